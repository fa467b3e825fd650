//! Several workers that come and go while records flow.

use std::{collections::BTreeMap, process::Stdio, sync::Arc};

use crate::{
    bed::{Bed, Worker, binary, eventually, signal},
    gateway::Gateway,
};

const CONVERSATIONS: i64 = 16;
const SEQS: i64 = 100;

/// A gateway that serves all conversations, and the events of all of them on their way.
async fn flowing(bed: &Arc<Bed>) -> (Gateway, tokio::task::JoinHandle<()>) {
    let gateway = Gateway::start(bed, "gateway").await;
    for conversation in 1..=CONVERSATIONS {
        gateway.serve_conversation(conversation).await;
    }
    let producing = Arc::clone(bed);
    let flow = tokio::spawn(async move {
        for seq in 1..=SEQS {
            for conversation in 1..=CONVERSATIONS {
                producing.message(conversation, seq).await;
            }
        }
    });
    (gateway, flow)
}

/// Settings of a worker with a name of its own. No test waits as long as its session lasts.
fn named(bed: &Bed, name: &str) -> BTreeMap<String, String> {
    let mut settings = bed.settings();
    settings.insert("SWITCHBOARD__KAFKA__INSTANCE_ID".to_owned(), name.to_owned());
    settings.insert("SWITCHBOARD__KAFKA__SESSION_TIMEOUT".to_owned(), "120s".to_owned());
    settings
}

fn admin(settings: &BTreeMap<String, String>) -> String {
    format!("http://{}", settings["SWITCHBOARD__ADMIN__LISTEN"])
}

/// Waits until the worker has so many partitions, of all topics.
async fn has(admin: &str, count: usize) {
    eventually(&format!("{admin} has {count} partitions"), || async {
        let partitions: serde_json::Value = chassis::http::get_json(&format!("{admin}/partitions")).await.ok()?;
        (partitions["items"].as_array()?.len() == count).then_some(())
    })
    .await;
}

async fn has_everything(gateway: &Gateway) -> usize {
    let mut repeated = 0;
    for conversation in 1..=CONVERSATIONS {
        repeated += gateway.has_all(conversation, SEQS).await;
    }
    repeated
}

async fn has_a_part(admin: &str) {
    eventually("the worker has partitions", || async {
        let partitions: serde_json::Value = chassis::http::get_json(&format!("{admin}/partitions")).await.ok()?;
        let taken = |item: &serde_json::Value| item["topic"].as_str()?.ends_with("messages").then_some(());
        partitions["items"].as_array()?.iter().find_map(taken)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_and_nothing_is_lost_or_repeated_while_workers_join_and_leave() {
    let bed = Arc::new(Bed::new().await);
    let first = Worker::start(bed.settings());
    first.is_ready().await;
    let (gateway, flow) = flowing(&bed).await;
    let second = Worker::start(bed.settings());
    has_a_part(&second.admin).await;
    first.stop().await;
    let third = Worker::start(bed.settings());
    has_a_part(&third.admin).await;
    flow.await.unwrap();
    assert_eq!(has_everything(&gateway).await, 0, "a drained partition is committed: its next owner repeats nothing");
    second.stop().await;
    third.stop().await;
    assert_eq!(bed.committed("messages").await, CONVERSATIONS * SEQS);
    Arc::into_inner(bed).unwrap().remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partitions_of_a_killed_worker_move_and_nothing_is_lost() {
    let bed = Arc::new(Bed::new().await);
    let mut killed = binary(&bed.settings()).spawn().unwrap();
    let (gateway, flow) = flowing(&bed).await;
    eventually("the worker that will be killed has written", || async {
        (!gateway.entries().await.is_empty()).then_some(())
    })
    .await;
    killed.start_kill().unwrap();
    killed.wait().await.unwrap();
    let heir = Worker::start(bed.settings());
    flow.await.unwrap();
    has_everything(&gateway).await;
    heir.stop().await;
    Arc::into_inner(bed).unwrap().remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_suspended_beyond_its_session_gives_up_what_it_lost_and_goes_on() {
    let bed = Arc::new(Bed::new().await);
    let settings = bed.settings();
    let admin = format!("http://{}", settings["SWITCHBOARD__ADMIN__LISTEN"]);
    let suspended = binary(&settings).spawn().unwrap();
    let (gateway, flow) = flowing(&bed).await;
    eventually("the worker that will be suspended has written", || async {
        (!gateway.entries().await.is_empty()).then_some(())
    })
    .await;
    signal(&suspended, "STOP").await;
    let heir = Worker::start(bed.settings());
    flow.await.unwrap();
    has_everything(&gateway).await;

    signal(&suspended, "CONT").await;
    has_a_part(&admin).await;
    heir.stop().await;
    for conversation in 1..=CONVERSATIONS {
        bed.message(conversation, SEQS + 1).await;
        gateway.has_all(conversation, SEQS + 1).await;
    }
    Arc::into_inner(bed).unwrap().remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_that_comes_back_under_its_name_has_its_partitions_at_once() {
    let bed = Arc::new(Bed::new().await);
    // The older one leads the group, and is the one to be killed.
    let settings = named(&bed, "one");
    let mut killed = binary(&settings).spawn().unwrap();
    has(&admin(&settings), 12).await;
    let other = Worker::start(named(&bed, "other"));
    has(&other.admin, 6).await;
    has(&admin(&settings), 6).await;
    let (gateway, flow) = flowing(&bed).await;
    for _ in 0..2 {
        killed.start_kill().unwrap();
        killed.wait().await.unwrap();
        killed = binary(&settings).spawn().unwrap();
        has(&admin(&settings), 6).await;
    }
    flow.await.unwrap();
    has_everything(&gateway).await;
    has(&other.admin, 6).await;
    other.stop().await;
    Arc::into_inner(bed).unwrap().remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_name_that_is_told_to_stop_does_not_keep_its_partitions() {
    let bed = Bed::new().await;
    let first = Worker::start(named(&bed, "first"));
    has(&first.admin, 12).await;
    let second = Worker::start(named(&bed, "second"));
    has(&second.admin, 6).await;
    first.stop().await;
    has(&second.admin, 12).await;
    second.stop().await;
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_with_one_name_the_older_ends_and_says_why() {
    let bed = Bed::new().await;
    let settings = named(&bed, "twin");
    let older = binary(&settings).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    has(&admin(&settings), 12).await;
    let newer = Worker::start(named(&bed, "twin"));
    let ended = older.wait_with_output().await.unwrap();
    let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("joining the consumer group anew"), "it could have been a mistake of Kafka: {said}");
    assert!(said.contains("kafka.instance_id"), "{said}");
    has(&newer.admin, 12).await;
    newer.stop().await;
    bed.remove().await;
}
