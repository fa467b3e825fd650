//! `dead-letters list` and `replay`, as an operator calls them.

use std::{collections::BTreeMap, process::Stdio};

use proto::{
    Scope,
    topics::header::{CONVERSATION_ID, EPOCH, EVENT_TYPE, ID, SEQ, USER_SEQ},
};
use serde_json::Value;

use crate::{
    bed::{Bed, Worker, binary, eventually},
    gateway::Gateway,
};

const MAX_RECORD: &str = "SWITCHBOARD__BATCH__MAX_RECORD_BYTES";
const TOO_LARGE: &[u8] = &[b'x'; 4096];

/// Calls the command and returns what it says, a JSON object a letter.
async fn dead_letters(settings: &BTreeMap<String, String>, arguments: &[&str]) -> Vec<Value> {
    let mut command = binary(settings);
    command.args(["dead-letters"]).args(arguments).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The outcome of each letter by its source topic.
fn outcomes(letters: &[Value]) -> BTreeMap<&str, &str> {
    let pairs = letters.iter().map(|letter| {
        let topic = letter["source"]["topic"].as_str().unwrap();
        (topic.rsplit_once('.').unwrap().1, letter["outcome"].as_str().unwrap())
    });
    pairs.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_delivers_records_of_users_and_ephemeral_ones_once_their_cause_is_gone() {
    let bed = Bed::new().await;
    let gateway = Gateway::start(&bed, "gateway").await;
    gateway.serve_user(7).await;
    gateway.serve_conversation(9).await;
    let mut small = bed.settings();
    small.insert(MAX_RECORD.to_owned(), "2KiB".to_owned());
    let worker = Worker::start(small.clone());
    worker.is_ready().await;
    let user = [(ID, "u"), (EVENT_TYPE, "MEMBERSHIP_STARTED"), (EPOCH, "1"), (USER_SEQ, "3")];
    let (partition, offset) = bed.produce("users", Some("7"), &user, Some(TOO_LARGE)).await;
    let typing = [(ID, "t"), (EVENT_TYPE, "TYPING"), (EPOCH, "1"), (CONVERSATION_ID, "9")];
    bed.produce("ephemeral", Some("9"), &typing, Some(TOO_LARGE)).await;
    let message = [(ID, "m"), (EVENT_TYPE, "MESSAGE"), (EPOCH, "1"), (CONVERSATION_ID, "9"), (SEQ, "1")];
    bed.produce("messages", Some("9"), &message, Some(TOO_LARGE)).await;
    bed.dead_letters(3).await;

    // The limit stands as it did: nothing is sent round in circles.
    let listed = dead_letters(&small, &["list"]).await;
    let poison = [("ephemeral", "poison"), ("messages", "no_op"), ("users", "poison")];
    assert_eq!(outcomes(&listed), poison.into());
    let of_user = listed.iter().find(|letter| letter["source"]["topic"] == bed.topic("users")).unwrap();
    assert_eq!((&of_user["source"]["partition"], &of_user["source"]["offset"]), (&partition.into(), &offset.into()));
    assert_eq!(
        (&of_user["reason"], &of_user["key"], &of_user["size"]),
        (&"too_large".into(), &"7".into(), &4142.into())
    );
    assert!(of_user["error"].as_str().unwrap().contains("4142 bytes"), "{of_user}");
    assert_eq!(outcomes(&dead_letters(&small, &["replay"]).await), poison.into());
    worker.stop().await;

    let raised = bed.settings();
    let worker = Worker::start(raised.clone());
    worker.is_ready().await;
    let deliverable = [("ephemeral", "deliverable"), ("messages", "no_op"), ("users", "deliverable")];
    assert_eq!(outcomes(&dead_letters(&raised, &["replay", "--dry-run"]).await), deliverable.into());
    assert!(gateway.entries().await.is_empty(), "a dry run sends nothing");

    let (topic, partition, offset) = (bed.topic("users"), partition.to_string(), offset.to_string());
    let one = ["replay", "--topic", &topic, "--partition", &partition, "--offset", &offset];
    assert_eq!(outcomes(&dead_letters(&raised, &one).await), [("users", "replayed")].into());
    let replayed = dead_letters(&raised, &["replay"]).await;
    let expected = [("ephemeral", "replayed"), ("messages", "no_op"), ("users", "replayed_before")];
    assert_eq!(outcomes(&replayed), expected.into());

    let entries = eventually("both are in the gateway's stream", || async {
        let entries = gateway.entries().await;
        (entries.len() == 2).then_some(entries)
    })
    .await;
    let user = entries.iter().find(|entry| entry.scope == Scope::User).unwrap();
    assert_eq!((user.key, user.routing.event_id.as_str(), user.routing.user_seq), (7, "u", Some(3)));
    let typing = entries.iter().find(|entry| entry.scope == Scope::Ephemeral).unwrap();
    assert_eq!((typing.key, typing.routing.event_type.as_str(), &typing.payload[..]), (9, "TYPING", TOO_LARGE));

    let before = [("ephemeral", "replayed_before"), ("messages", "no_op"), ("users", "replayed_before")];
    assert_eq!(outcomes(&dead_letters(&raised, &["replay"]).await), before.into());
    assert_eq!(outcomes(&dead_letters(&raised, &["list"]).await), before.into());
    worker.stop().await;
    assert_eq!(bed.committed("users").await, 2, "the record, and it again");
    assert_eq!(bed.committed("messages").await, 1);
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_can_match_nothing_is_refused() {
    let bed = Bed::new().await;
    for (arguments, said) in [
        (&["--topic", "elsewhere"][..], "expected one of"),
        (&["--topic", &bed.topic("users"), "--partition", "0", "--offset", "5"], "no dead letter stood there"),
        (&["--offset", "5"], "--partition"),
    ] {
        let mut command = binary(&bed.settings());
        command.args(["dead-letters", "replay"]).args(arguments).stderr(Stdio::piped());
        let output = command.output().await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{arguments:?}: {stderr}");
    }
    bed.remove().await;
}
