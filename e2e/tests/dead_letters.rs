//! Poison records on the running stack: each becomes a dead letter with its cause, its partition goes on, and nobody
//! misses anything.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    kafka,
    stomp::Frame,
    testing::{Stack, eventually},
};
use proto::topics::{
    self, DEAD_LETTERS, EPHEMERAL_EVENTS, MESSAGE_EVENTS, USER_EVENTS,
    header::{CONVERSATION_ID, EPOCH, EVENT_TYPE, ID, SEQ, dlq},
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};
use sqlx::{Connection as _, MySqlConnection, Row as _};

const WORKER: &str = "fanout-worker-1";
const GROUP: &str = "fanout";

/// Where a record was put.
struct Put {
    topic: &'static str,
    partition: i32,
    offset: i64,
}

async fn put(stack: &Stack, topic: &'static str, key: &[u8], headers: &[(&str, &[u8])], value: &[u8]) -> Result<Put> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &stack.endpoints.kafka)
        .set("partitioner", "murmur2_random")
        .create()?;
    let headers =
        headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
    let record = FutureRecord::to(topic).key(key).headers(headers).payload(value);
    let delivery = producer.send(record, e2e::testing::DEADLINE).await.map_err(|(error, _)| error)?;
    let (partition, offset) = delivery;
    Ok(Put { topic, partition, offset })
}

/// Calls `dead-letters` of the worker's program; an object a letter.
async fn dead_letters(stack: &Stack, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = stack.program(WORKER)?;
    let output = command.arg("dead-letters").args(arguments).arg("--json").output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "dead-letters {arguments:?}: {said}");
    String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// The letter of a record, once it is one.
async fn letter_of(stack: &Stack, put: &Put, command: &str) -> Result<Value> {
    let (partition, offset) = (put.partition.to_string(), put.offset.to_string());
    let which = [command, "--topic", put.topic, "--partition", &partition];
    eventually(format!("a dead letter of {}[{partition}]@{offset}", put.topic), || async {
        let letters = dead_letters(stack, &which).await?;
        Ok(letters.into_iter().find(|letter| letter["source"]["offset"] == put.offset))
    })
    .await
}

fn text(frame: &Frame) -> String {
    frame.json()["data"]["body"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_poison_record_in_any_topic_is_a_dead_letter_with_its_cause_and_its_partition_goes_on() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut receiver = stack.connect(&bob, 1).await?;
    receiver.subscribe(&format!("/topic/conversations/{conversation}")).await?;
    let mut everything = stack.connect(&bob, 0).await?;
    everything.subscribe("/user/queue/events").await?;

    // Keys of these very people, so that what comes behind stands in the same partition.
    let (id, user) = (conversation.to_string(), bob.user_id.to_string());
    let garbage = b"\xff\xfe\x00{\"type\":";
    let bad_seq: [(&str, &[u8]); 5] =
        [(ID, b"x"), (EVENT_TYPE, b"MESSAGE"), (EPOCH, b"1"), (CONVERSATION_ID, id.as_bytes()), (SEQ, b"1e3")];
    let message = put(&stack, MESSAGE_EVENTS, id.as_bytes(), &bad_seq, garbage).await?;
    let of_user = put(&stack, USER_EVENTS, user.as_bytes(), &[], garbage).await?;
    let bad_type: [(&str, &[u8]); 3] = [(ID, b"x"), (EVENT_TYPE, b"\xc3\x28"), (EPOCH, b"1")];
    let ephemeral = put(&stack, EPHEMERAL_EVENTS, id.as_bytes(), &bad_type, garbage).await?;

    for (put, reason, outcome) in [
        (&message, "bad_header", "no_op"),
        (&of_user, "missing_header", "poison"),
        (&ephemeral, "bad_header", "poison"),
    ] {
        let letter = letter_of(&stack, put, "list").await?;
        assert_eq!((letter["reason"].as_str(), letter["outcome"].as_str()), (Some(reason), Some(outcome)), "{letter}");
        let replayed = letter_of(&stack, put, "replay").await?;
        assert_eq!(replayed["outcome"], outcome, "{replayed}");
    }

    let mut sender = stack.connect(&alice, 0).await?;
    sender.say(conversation, "behind the poison").await?;
    assert_eq!(text(&receiver.event("MESSAGE").await?), "behind the poison");
    let typing = Frame::new("SEND").with("destination", format!("/app/conversations/{conversation}/typing"));
    sender.request(typing.with_body(json!({}).to_string())).await?;
    receiver.event("TYPING").await?;
    let next = stack.channel(&[&alice, &bob]).await?.to_string();
    let joined = |frame: &Frame| frame.header("conversation-id") == Some(&next);
    everything.message_where("the conversation that bob was added to", joined).await?;
    for topic in [MESSAGE_EVENTS, USER_EVENTS, EPHEMERAL_EVENTS] {
        let caught_up = || async { Ok((kafka::lag(&stack.endpoints.kafka, GROUP, topic).await? == 0).then_some(())) };
        eventually(format!("the workers have read all of {topic}"), caught_up).await?;
    }
    Ok(())
}

/// Commits the next message of a conversation as core does, but with a key that no worker can route by: the row and its
/// event are whole, the record is poison.
async fn commit_with_a_bad_key(stack: &Stack, conversation: i64, body: &str) -> Result<String> {
    let mut mysql = MySqlConnection::connect(&stack.endpoints.mysql).await?;
    let mut tx = mysql.begin().await?;
    let locked = sqlx::query("SELECT last_seq, message_no FROM conversations WHERE id = ? FOR UPDATE");
    let locked = locked.bind(conversation).fetch_one(&mut *tx).await?;
    let (before, message_no): (i64, i64) = (locked.try_get(0)?, locked.try_get(1)?);
    let latest = "SELECT payload FROM message_producer_outbox WHERE conversation_id = ? AND seq = ?";
    let payload: String = sqlx::query_scalar(latest).bind(conversation).bind(before).fetch_one(&mut *tx).await?;
    let mut envelope: Value = serde_json::from_str(&payload)?;
    let message = envelope["data"]["message_id"].as_str().context("the latest event is a message")?;
    let message: i64 = message.parse::<i64>()? + 1;
    let (event, key) = (uuid::Uuid::now_v7().to_string(), format!("c{conversation}"));
    envelope["event_id"] = event.clone().into();
    envelope["seq"] = (before + 1).into();
    let data = &mut envelope["data"];
    data["message_id"] = message.to_string().into();
    data["message_no"] = (message_no + 1).into();
    data["body"] = body.into();
    data["client_message_id"] = event.clone().into();

    sqlx::query("UPDATE conversations SET last_seq = last_seq + 1, message_no = message_no + 1 WHERE id = ?")
        .bind(conversation)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO messages (conversation_id, seq, id, message_no, sender_id, kind, body, client_message_id, \
         request_hash, epoch, created_at) SELECT conversation_id, seq + 1, ?, message_no + 1, sender_id, kind, ?, ?, \
         request_hash, epoch, UTC_TIMESTAMP(6) FROM messages WHERE conversation_id = ? AND seq = ?",
    )
    .bind(message)
    .bind(body)
    .bind(&event)
    .bind(conversation)
    .bind(before)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO message_producer_outbox (id, aggregatetype, aggregateid, type, payload, conversation_id, seq, \
         epoch, actor_id, created_at) SELECT ?, aggregatetype, ?, type, ?, conversation_id, seq + 1, epoch, actor_id, \
         UTC_TIMESTAMP(6) FROM message_producer_outbox WHERE conversation_id = ? AND seq = ?",
    )
    .bind(&event)
    .bind(&key)
    .bind(envelope.to_string())
    .bind(conversation)
    .bind(before)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(key)
}

#[tokio::test]
async fn a_sequenced_event_whose_record_is_poison_is_delivered_by_gap_fill_and_replaying_it_is_needless() -> Result<()>
{
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut receiver = stack.connect(&bob, 1).await?;
    receiver.subscribe(&format!("/topic/conversations/{conversation}")).await?;
    let mut sender = stack.connect(&alice, 0).await?;
    sender.say(conversation, "first").await?;
    let key = commit_with_a_bad_key(&stack, conversation, "poison, then another").await?;
    let letter = eventually("its record is a dead letter", || async {
        let letters = dead_letters(&stack, &["list", "--topic", MESSAGE_EVENTS, "--reason", "bad_key"]).await?;
        Ok(letters.into_iter().find(|letter| letter["key"] == *key))
    })
    .await?;
    sender.say(conversation, "behind it").await?;
    // No later event shows the gap: the comparison of heads does.
    commit_with_a_bad_key(&stack, conversation, "poison, the last").await?;
    let mut texts = Vec::new();
    for seq in 2..=5 {
        let frame = receiver.event("MESSAGE").await?;
        assert_eq!(frame.number("seq"), Some(seq));
        texts.push(text(&frame));
    }
    assert_eq!(texts, ["first", "poison, then another", "behind it", "poison, the last"]);

    let (partition, offset) = (letter["source"]["partition"].to_string(), letter["source"]["offset"].to_string());
    let it = ["replay", "--topic", MESSAGE_EVENTS, "--partition", &partition, "--offset", &offset];
    let replayed = dead_letters(&stack, &it).await?;
    assert_eq!(replayed[0]["outcome"], "no_op", "{replayed:?}");
    assert!(replayed[0]["detail"].as_str().is_some_and(|why| why.contains("event log")), "{replayed:?}");
    Ok(())
}

#[tokio::test]
async fn a_replayed_ephemeral_event_reaches_the_client() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut receiver = stack.connect(&bob, 1).await?;
    receiver.subscribe(&format!("/topic/conversations/{conversation}")).await?;

    // As a worker would have left it that could not read it then.
    let (id, event_id) = (conversation.to_string(), uuid::Uuid::now_v7().to_string());
    let headers: Vec<(&str, &[u8])> = vec![
        (ID, event_id.as_bytes()),
        (EVENT_TYPE, b"TYPING"),
        (EPOCH, b"1"),
        (CONVERSATION_ID, id.as_bytes()),
        (dlq::TOPIC, topics::EPHEMERAL_EVENTS.as_bytes()),
        (dlq::PARTITION, b"0"),
        (dlq::OFFSET, b"9000000000"),
        (dlq::REASON, b"bad_header"),
        (dlq::ERROR, b"written by a newer version"),
        (dlq::AT, b"2026-01-01T00:00:00.000000Z"),
    ];
    let envelope = json!({ "type": "TYPING", "event_id": event_id, "epoch": 1, "conversation_id": id,
        "actor_id": alice.user_id.to_string(), "at": "2026-01-01T00:00:00.000000Z",
        "data": { "user_id": alice.user_id.to_string(), "expires_in_ms": 5000 } });
    put(&stack, DEAD_LETTERS, id.as_bytes(), &headers, envelope.to_string().as_bytes()).await?;

    let replay = ["replay", "--topic", EPHEMERAL_EVENTS, "--partition", "0", "--offset", "9000000000"];
    let replayed = dead_letters(&stack, &replay).await?;
    assert!(replayed.iter().any(|letter| letter["outcome"] == "replayed"), "{replayed:?}");
    let frame = receiver.event("TYPING").await?;
    assert_eq!(frame.header("event-id"), Some(event_id.as_str()));
    assert_eq!(frame.json(), envelope);
    let again = dead_letters(&stack, &replay).await?;
    assert!(again.iter().all(|letter| letter["outcome"] == "replayed_before"), "{again:?}");
    Ok(())
}
