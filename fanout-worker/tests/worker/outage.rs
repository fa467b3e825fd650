//! Redis is away: nothing is lost, nothing is stored too early, and polling goes on.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use proto::topics::header::{EPOCH, EVENT_TYPE, ID};

use crate::{
    bed::{Bed, Worker, eventually},
    gateway::Gateway,
    proxy::{Mode, Proxy},
};

const SEQS: i64 = 200;

/// A proxy before Redis, and the settings of a worker behind it whose queue is soon full.
async fn behind_proxy(bed: &Bed) -> (Proxy, BTreeMap<String, String>) {
    let address: SocketAddr =
        bed.endpoints.redis.trim_start_matches("redis://").to_socket_addrs().unwrap().next().unwrap();
    let proxy = Proxy::to(address).await;
    let mut settings = bed.settings();
    for (key, value) in [
        ("REDIS__URL", format!("redis://{}", proxy.address)),
        ("REDIS__RESPONSE_TIMEOUT", "300ms".to_owned()),
        ("REDIS__CONNECT_TIMEOUT", "300ms".to_owned()),
        ("PARTITION__QUEUE_RECORDS", "20".to_owned()),
        ("BATCH__RECORDS", "8".to_owned()),
        ("KAFKA__DRAIN_DEADLINE", "500ms".to_owned()),
    ] {
        settings.insert(format!("SWITCHBOARD__{key}"), value);
    }
    (proxy, settings)
}

async fn survives(mode: Mode) {
    let bed = Bed::new().await;
    let gateway = Gateway::start(&bed, "gateway").await;
    gateway.serve_conversation(1).await;
    let (proxy, settings) = behind_proxy(&bed).await;
    let worker = Worker::start(settings);
    worker.is_ready().await;
    bed.message(1, 1).await;
    gateway.has_all(1, 1).await;

    proxy.set(mode);
    for seq in 2..=SEQS {
        bed.message(1, seq).await;
    }
    eventually("the worker says that Redis is missing", || async {
        worker.process.readiness.missing().iter().any(|missing| missing.dependency == "redis").then_some(())
    })
    .await;
    eventually("the partition is paused", || async {
        let url = format!("{}/partitions", worker.admin);
        let partitions: serde_json::Value = chassis::http::get_json(&url).await.ok()?;
        partitions["items"].as_array()?.iter().any(|item| item["paused"] == true).then_some(())
    })
    .await;
    assert_eq!(bed.committed("messages").await, 1, "only what Redis has taken is committed");

    proxy.set(Mode::Open);
    gateway.has_all(1, SEQS).await;
    worker.is_ready().await;
    worker.stop().await;
    assert_eq!(bed.committed("messages").await, SEQS);
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_to_redis_delays_and_loses_nothing() {
    survives(Mode::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_says_nothing_delays_and_loses_nothing() {
    survives(Mode::Silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_while_redis_is_away_leaves_the_rest_to_the_next() {
    let bed = Bed::new().await;
    let gateway = Gateway::start(&bed, "gateway").await;
    gateway.serve_conversation(1).await;
    let (proxy, settings) = behind_proxy(&bed).await;
    let stopped = Worker::start(settings);
    stopped.is_ready().await;
    bed.message(1, 1).await;
    gateway.has_all(1, 1).await;
    proxy.set(Mode::Cut);
    for seq in 2..=SEQS {
        bed.message(1, seq).await;
    }
    stopped.stop().await;
    assert_eq!(bed.committed("messages").await, 1);

    let next = Worker::start(bed.settings());
    gateway.has_all(1, SEQS).await;
    next.stop().await;
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_that_waited_too_long_is_dropped() {
    const MAX_AGE: Duration = Duration::from_secs(1);
    let bed = Bed::new().await;
    let gateway = Gateway::start(&bed, "gateway").await;
    gateway.serve_conversation(1).await;
    let (proxy, mut settings) = behind_proxy(&bed).await;
    settings.insert("SWITCHBOARD__BATCH__EPHEMERAL_MAX_AGE".to_owned(), format!("{}ms", MAX_AGE.as_millis()));
    let worker = Worker::start(settings);
    worker.is_ready().await;
    proxy.set(Mode::Cut);
    let typing = |id| [(ID, id), (EVENT_TYPE, "TYPING"), (EPOCH, "1")];
    bed.produce("ephemeral", Some("1"), &typing("stale"), Some(b"{}")).await;
    let produced = Instant::now();
    eventually("the record is too old", || async { (produced.elapsed() > MAX_AGE).then_some(()) }).await;
    proxy.set(Mode::Open);
    worker.is_ready().await;
    bed.produce("ephemeral", Some("1"), &typing("fresh"), Some(b"{}")).await;
    let entries =
        eventually("an entry came", || async { Some(gateway.entries().await).filter(|entries| !entries.is_empty()) })
            .await;
    assert_eq!(entries[0].routing.event_id, "fresh");
    worker.stop().await;
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_paused_when_it_went_is_read_when_it_comes_back() {
    const CONVERSATIONS: i64 = 16;
    let bed = Bed::new().await;
    let gateway = Gateway::start(&bed, "gateway").await;
    for conversation in 1..=CONVERSATIONS {
        gateway.serve_conversation(conversation).await;
    }
    let (proxy, settings) = behind_proxy(&bed).await;
    let worker = Worker::start(settings);
    worker.is_ready().await;
    proxy.set(Mode::Cut);
    for seq in 1..=50 {
        for conversation in 1..=CONVERSATIONS {
            bed.message(conversation, seq).await;
        }
    }
    let paused = || async {
        let partitions: serde_json::Value =
            chassis::http::get_json(&format!("{}/partitions", worker.admin)).await.ok()?;
        Some(partitions["items"].as_array()?.iter().filter(|item| item["paused"] == true).count())
    };
    eventually("all partitions of messages are paused", || async { (paused().await? == 4).then_some(()) }).await;

    // Redis is there for the other, which takes some of them.
    let other = Worker::start(bed.settings());
    eventually("some partitions are gone", || async { (paused().await? < 4).then_some(()) }).await;
    other.is_ready().await;
    other.stop().await;
    proxy.set(Mode::Open);
    for conversation in 1..=CONVERSATIONS {
        bed.message(conversation, 51).await;
    }
    for conversation in 1..=CONVERSATIONS {
        gateway.has_all(conversation, 51).await;
    }
    worker.stop().await;
    assert_eq!(bed.committed("messages").await, CONVERSATIONS * 51);
    bed.remove().await;
}
