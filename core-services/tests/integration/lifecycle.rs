//! Start, configuration, missing dependencies, and the end.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use proto::rpc::v1::{CreateMessageRequest, create_message_result::Result::Created};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{
    harness::{Core, code, engines},
    proxy::Proxy,
};

/// An address where nothing listens.
const NOWHERE: &str = "127.0.0.1:9";

#[tokio::test]
async fn without_redis_and_kafka_core_says_so_and_messages_are_written_all_the_same() {
    let redis = format!("redis://{NOWHERE}");
    let mut core = Core::launch(&[("REDIS__URL", &redis), ("KAFKA__BROKERS", NOWHERE)]).await;
    core.until_ready(|status, answer| {
        let missing = answer["missing"].as_array().unwrap();
        let names: Vec<&str> = missing.iter().map(|one| one["dependency"].as_str().unwrap()).collect();
        let known = missing.iter().all(|one| one["reason"] != "not reached yet");
        status == 503 && known && names == ["kafka", "redis"]
    })
    .await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    core.send(&alice, channel, "m-1", "hello").await.unwrap();
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn core_waits_for_mysql_at_start_and_goes_on_when_it_comes_back() {
    let mysql = engines().mysql;
    let (credentials, rest) = mysql.split_once('@').unwrap();
    let (address, _) = rest.split_once('/').unwrap();
    let mut proxy = Proxy::new(address);
    // The database that a core makes for itself, by way of the proxy.
    let database = Core::launch(&[]).await;
    let url = format!("{credentials}@{}/{}", proxy.address, database.database);
    let mut core = Core::launch(&[("MYSQL__URL", &url)]).await;
    let away = |status: u16, answer: &serde_json::Value| {
        let missing = answer["missing"].as_array().unwrap().iter();
        status == 503 && missing.clone().any(|one| one["dependency"] == "mysql" && one["reason"] != "not reached yet")
    };
    core.until_ready(away).await;
    proxy.mend().await;
    core.until_ready(|status, _| status == 200).await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    core.send(&alice, channel, "m-1", "hello").await.unwrap();

    proxy.cut().await;
    let refused = core.send(&alice, channel, "m-2", "hello").await.unwrap_err();
    assert_eq!((refused.code(), code(&refused)), (Code::Unavailable, "unavailable"));
    core.until_ready(away).await;
    proxy.mend().await;
    core.until_ready(|status, _| status == 200).await;
    core.send(&alice, channel, "m-2", "hello").await.unwrap();
    database.assert_whole(channel).await;
    core.discard().await;
    database.finish().await;
}

#[tokio::test]
async fn messages_are_written_again_soon_after_mysqls_connections_fell_silent() {
    let mysql = engines().mysql;
    let (credentials, rest) = mysql.split_once('@').unwrap();
    let (address, _) = rest.split_once('/').unwrap();
    let mut proxy = Proxy::new(address);
    proxy.mend().await;
    let database = Core::launch(&[]).await;
    let url = format!("{credentials}@{}/{}", proxy.address, database.database);
    let mut core = Core::launch(&[("MYSQL__URL", &url), ("MYSQL__RESPONSE_TIMEOUT", "4s")]).await;
    core.until_ready(|status, _| status == 200).await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    core.send(&alice, channel, "m-1", "hello").await.unwrap();

    proxy.silence();
    let began = Instant::now();
    let refused = core.send(&alice, channel, "m-2", "hello").await.unwrap_err();
    assert_eq!((refused.code(), code(&refused)), (Code::Unavailable, "unavailable"));
    core.send(&alice, channel, "m-2", "hello").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    database.assert_whole(channel).await;
    core.discard().await;
    database.finish().await;
}

#[tokio::test]
async fn cores_that_start_at_once_on_one_database_have_node_ids_of_their_own() {
    let mut first = Core::launch(&[]).await;
    let url = first.mysql.clone();
    let mut second = Core::launch(&[("MYSQL__URL", &url)]).await;
    for core in [&mut first, &mut second] {
        core.until_ready(|status, _| status == 200).await;
    }
    let leases: Vec<(u16, i64)> = sqlx::query_as("SELECT node_id, until_ms FROM node_leases ORDER BY node_id")
        .fetch_all(&first.db)
        .await
        .unwrap();
    let now_ms = chassis::now_us() / 1000;
    assert_eq!(leases.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [0, 1]);
    assert!(leases.iter().all(|(_, until_ms)| (now_ms..now_ms + 30_000).contains(until_ms)), "{leases:?}");
    second.discard().await;
    first.finish().await;
}

#[tokio::test]
async fn a_terminated_core_answers_what_it_took_and_exits_with_0_though_streams_are_open() {
    let mut core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let (requests, receiver) = mpsc::channel(64);
    let stream = alice.request(ReceiverStream::new(receiver));
    let mut answers = core.messages().stream_create_messages(stream).await.unwrap().into_inner();
    let (_positions, receiver) = mpsc::channel(1);
    let positions = alice.request(ReceiverStream::new(receiver));
    let mut positions = core.messages().stream_ack_offsets(positions).await.unwrap().into_inner();
    let watch = tonic_health::pb::HealthCheckRequest::default();
    let mut health = tonic_health::pb::health_client::HealthClient::new(core.grpc.clone());
    let mut health = health.watch(watch).await.unwrap().into_inner();
    for n in 0..50 {
        let client_message_id = format!("m-{n}");
        let body = "hello".to_owned();
        let request = CreateMessageRequest { conversation_id: channel, body, client_message_id, ..Default::default() };
        requests.send(request).await.unwrap();
    }
    let first = answers.message().await.unwrap().unwrap();
    assert!(matches!(first.result, Some(Created(_))));

    let begun = Instant::now();
    let status = core.terminate().await;
    assert!(status.success(), "{status}: {}", core.log());
    assert!(begun.elapsed().as_secs() < 9, "nothing had to be cut off, but it took {:?}", begun.elapsed());
    let mut answered = 1;
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(matches!(answer.result, Some(Created(_))), "{answer:?}");
        answered += 1;
    }
    let written: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM messages").fetch_one(&core.db).await.unwrap();
    assert_eq!(written, answered, "what was written was answered");
    assert!(positions.message().await.unwrap().is_none());
    while health.message().await.is_ok_and(|status| status.is_some()) {}
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn a_reflection_stream_that_stays_open_is_cut_off() {
    let mut core = Core::start_with(&[("SERVER__DRAIN_TIMEOUT", "500ms")]).await;
    let (_requests, receiver) = mpsc::channel(1);
    let mut reflection =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(core.grpc.clone());
    let _open = reflection.server_reflection_info(ReceiverStream::new(receiver)).await.unwrap();
    let status = core.terminate().await;
    assert!(status.success(), "{status}: {}", core.log());
    core.finish().await;
}

#[test]
fn a_bad_configuration_is_refused_by_the_name_of_its_key() {
    for (variable, value, named) in [
        ("SWITCHBOARD__MESSAGES__WRITERS", "0", "messages.writers"),
        ("SWITCHBOARD__SERVER__LISTEN", "nowhere", "server.listen"),
        ("SWITCHBOARD__SERVER__DRAIN_TIMEOUT", "31s", "server.drain_timeout"),
        ("SWITCHBOARD__MYSQL__COLOUR", "red", "colour"),
    ] {
        let checked = Command::new(env!("CARGO_BIN_EXE_core-services"))
            .arg("--check-config")
            .env(variable, value)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert_eq!(checked.status.code(), Some(64), "{variable}={value}: {said}");
        assert!(said.contains(named), "{variable}={value}: {said}");
    }
}
