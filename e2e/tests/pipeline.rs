//! A message's whole way on the running stack: stored, captured, routed, delivered, and read again.

use anyhow::{Context as _, Result};
use e2e::{
    kafka::{Start, Topic, header},
    rest::{code_of, id_in},
    stomp::{Client, Frame, Refusal},
    testing::{DEADLINE, Stack},
};
use proto::topics;
use serde_json::json;
use sqlx::{Connection as _, MySqlConnection, Row as _};
use tokio::time::Instant;

fn topic(conversation: i64) -> String {
    format!("/topic/conversations/{conversation}")
}

fn texts(frames: &[Frame]) -> Vec<String> {
    let text = |frame: &Frame| frame.json()["data"]["body"].as_str().map(str::to_owned);
    frames.iter().filter_map(text).collect()
}

fn seqs(frames: &[Frame]) -> Vec<i64> {
    frames.iter().filter_map(|frame| frame.number("seq")).collect()
}

async fn take(client: &mut Client, count: usize) -> Result<Vec<Frame>> {
    let mut frames = Vec::new();
    for _ in 0..count {
        frames.push(client.message().await?);
    }
    Ok(frames)
}

#[tokio::test]
async fn the_message_row_its_outbox_row_its_kafka_record_and_its_frame_say_the_same() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let records = Topic::open(&stack.endpoints.kafka, topics::MESSAGE_EVENTS, Start::End).await?;
    let mut receiver = stack.connect(&bob, 1).await?;
    receiver.subscribe(&topic(conversation)).await?;

    let mut sender = stack.connect(&alice, 0).await?;
    let body = json!({ "body": "grüße 🦀", "client_message_id": "one" });
    let receipt = sender.send_message(conversation, &body).await?;

    let mut mysql = MySqlConnection::connect(&stack.endpoints.mysql).await?;
    let row = sqlx::query("SELECT id, sender_id, body FROM messages WHERE conversation_id = ? AND seq = ?")
        .bind(conversation)
        .bind(receipt.seq)
        .fetch_one(&mut mysql)
        .await?;
    assert_eq!(row.try_get::<i64, _>("id")?, receipt.message);
    assert_eq!(row.try_get::<i64, _>("sender_id")?, alice.user_id);
    assert_eq!(row.try_get::<String, _>("body")?, "grüße 🦀");

    let outbox = sqlx::query(
        "SELECT id, aggregateid, type, payload, epoch, actor_id FROM message_producer_outbox \
         WHERE conversation_id = ? AND seq = ? AND aggregatetype = 'message'",
    )
    .bind(conversation)
    .bind(receipt.seq)
    .fetch_all(&mut mysql)
    .await?;
    let [outbox] = &outbox[..] else { panic!("{} outbox rows", outbox.len()) };
    let event_id = outbox.try_get::<String, _>("id")?;
    let payload = outbox.try_get::<String, _>("payload")?;
    assert_eq!(outbox.try_get::<String, _>("aggregateid")?, conversation.to_string());
    assert_eq!(outbox.try_get::<i64, _>("actor_id")?, alice.user_id);

    let wanted = Some(event_id.clone());
    let record = records.find(Instant::now() + DEADLINE, |record| header(record, "id") == wanted).await?;
    assert_eq!(rdkafka::Message::key(&record), Some(conversation.to_string().as_bytes()));
    assert_eq!(rdkafka::Message::payload(&record), Some(payload.as_bytes()), "byte for byte");
    for (name, value) in [
        ("eventType", "MESSAGE".to_owned()),
        ("conversation_id", conversation.to_string()),
        ("seq", receipt.seq.to_string()),
        ("epoch", receipt.epoch.to_string()),
        ("actor_id", alice.user_id.to_string()),
    ] {
        assert_eq!(header(&record, name), Some(value), "{name}");
    }

    let frame = receiver.event("MESSAGE").await?;
    assert_eq!(frame.body, payload.as_bytes(), "byte for byte");
    assert_eq!(frame.header("event-id"), Some(event_id.as_str()));
    Ok(())
}

#[tokio::test]
async fn a_message_crosses_from_one_gateway_to_another() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut sender = stack.connect(&alice, 0).await?;
    let mut receiver = stack.connect(&bob, 1).await?;
    let subscription = receiver.subscribe(&topic(conversation)).await?;

    let receipt = sender.say(conversation, "hello").await?;
    assert_eq!(receipt.message_id, format!("{conversation}-{}", receipt.seq));
    let frame = receiver.event("MESSAGE").await?;
    for (name, value) in [
        ("subscription", subscription),
        ("destination", topic(conversation)),
        ("message-id", receipt.message_id),
        ("content-type", "application/json".to_owned()),
        ("conversation-id", conversation.to_string()),
        ("seq", receipt.seq.to_string()),
        ("epoch", receipt.epoch.to_string()),
    ] {
        assert_eq!(frame.header(name), Some(value.as_str()), "{name}");
    }
    let event = frame.json();
    assert_eq!(event["type"], "MESSAGE");
    assert_eq!(event["actor_id"], alice.user_id.to_string());
    assert_eq!(event["data"]["body"], "hello");
    assert_eq!(event["data"]["message_id"], receipt.message.to_string());
    Ok(())
}

#[tokio::test]
async fn a_sender_gets_their_own_message_too_and_unsubscribed_means_nothing_more() -> Result<()> {
    let stack = Stack::get()?;
    let alice = stack.person("alice").await?;
    let conversation = stack.channel(&[&alice]).await?;
    let mut client = stack.connect(&alice, 0).await?;
    let first = client.subscribe(&topic(conversation)).await?;
    let second = client.subscribe(&topic(conversation)).await?;
    client.say(conversation, "one").await?;
    for subscription in [&first, &second] {
        let mine = |frame: &Frame| frame.header("subscription") == Some(subscription) && frame.number("seq").is_some();
        assert_eq!(client.message_where("my own message", mine).await?.json()["data"]["body"], "one");
    }
    client.request(Frame::new("UNSUBSCRIBE").with("id", &first)).await?;
    client.say(conversation, "two").await?;
    let on_second = |frame: &Frame| frame.header("subscription") == Some(&second) && frame.number("seq").is_some();
    client.message_where("the second subscription's", on_second).await?;
    let rest = client.messages_so_far().await?;
    assert!(rest.iter().all(|frame| frame.number("seq").is_none()), "{rest:?}");
    Ok(())
}

#[tokio::test]
async fn typing_arrives_without_a_seq() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut sender = stack.connect(&alice, 0).await?;
    let mut receiver = stack.connect(&bob, 1).await?;
    receiver.subscribe(&topic(conversation)).await?;

    let destination = format!("/app/conversations/{conversation}/typing");
    sender.request(Frame::new("SEND").with("destination", destination).with_body("{}")).await?;
    let frame = receiver.event("TYPING").await?;
    let event_id = frame.header("event-id").context("no event-id")?;
    assert_eq!(frame.header("message-id"), Some(format!("u-{event_id}").as_str()));
    assert_eq!(frame.header("seq"), None);
    assert_eq!(frame.json()["data"]["user_id"], alice.user_id.to_string());
    assert_eq!(frame.json()["data"]["expires_in_ms"], 6000);
    Ok(())
}

#[tokio::test]
async fn history_and_event_log_hold_what_came_live() -> Result<()> {
    const MESSAGES: usize = 30;
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut sender = stack.connect(&alice, 0).await?;
    let mut receiver = stack.connect(&bob, 1).await?;
    receiver.subscribe(&topic(conversation)).await?;
    receiver.event("RESUMED").await?;
    for number in 0..MESSAGES {
        sender.say(conversation, &format!("message {number}")).await?;
    }
    let live = take(&mut receiver, MESSAGES).await?;

    let log = stack.rest.events(&bob.token, conversation, 1).await?;
    let bodies: Vec<_> = live.iter().map(Frame::json).collect();
    assert_eq!(log, bodies, "the event log is the envelopes");
    let mut history = stack.rest.history(&bob.token, conversation, 100).await?;
    history.sort_by_key(|message| message["seq"].as_i64());
    let said: Vec<_> = history.iter().filter_map(|message| message["body"].as_str().map(str::to_owned)).collect();
    assert_eq!(said, texts(&live));
    let numbers: Vec<_> = history.iter().filter_map(|message| message["seq"].as_i64()).collect();
    assert_eq!(numbers, seqs(&live));
    Ok(())
}

#[tokio::test]
async fn somebody_who_is_added_gets_the_conversation_live_from_the_join_on() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice]).await?;
    let mut owner = stack.connect(&alice, 0).await?;
    let mut added = stack.connect(&bob, 1).await?;
    added.subscribe("/user/queue/events").await?;

    let before = owner.say(conversation, "before").await?;
    stack.rest.add_members(&alice.token, conversation, &[bob.user_id]).await?;
    owner.say(conversation, "after").await?;

    let frames = take(&mut added, 3).await?;
    let kinds: Vec<_> = frames.iter().filter_map(|frame| frame.header("event-type")).collect();
    assert_eq!(kinds, ["RESUMED", "USER_JOINED", "MESSAGE"]);
    let resumed = frames[0].json();
    assert_eq!(resumed["data"]["conversation_id"], conversation.to_string());
    assert_eq!(resumed["data"]["after_seq"], before.seq, "delivery starts with the join");
    assert_eq!(resumed["data"]["recovered"], true);
    assert_eq!(frames[1].json()["data"]["user_id"], bob.user_id.to_string());
    assert!(frames[1].number("user-seq").is_some(), "it changes my memberships: {:?}", frames[1]);
    assert_eq!(frames[2].json()["data"]["body"], "after");
    assert_eq!(seqs(&frames), [before.seq + 1, before.seq + 2]);
    Ok(())
}

#[tokio::test]
async fn somebody_who_joins_a_channel_gets_it_live_and_may_send() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice]).await?;
    let mut client = stack.connect(&bob, 1).await?;
    client.subscribe("/user/queue/events").await?;
    stack.rest.join(&bob.token, conversation).await?;
    assert_eq!(client.event("USER_JOINED").await?.number("conversation-id"), Some(conversation));
    let receipt = client.say(conversation, "here I am").await?;
    assert_eq!(client.event("MESSAGE").await?.number("seq"), Some(receipt.seq));
    Ok(())
}

#[tokio::test]
async fn a_new_conversation_reaches_its_members_from_its_first_event_on() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let mut client = stack.connect(&bob, 1).await?;
    client.subscribe("/user/queue/events").await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let created = client.event("CONVERSATION_CREATED").await?;
    assert_eq!((created.number("conversation-id"), created.number("seq")), (Some(conversation), Some(1)));
    assert!(created.number("user-seq").is_some(), "it changes my memberships: {created:?}");
    Ok(())
}

#[tokio::test]
async fn a_removed_member_gets_their_own_user_left_and_nothing_after() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob, carol] = stack.people(["alice", "bob", "carol"]).await?;
    let conversation = stack.channel(&[&alice, &bob, &carol]).await?;
    let mut owner = stack.connect(&alice, 0).await?;
    let mut removed = stack.connect(&bob, 1).await?;
    let mut witness = stack.connect(&carol, 1).await?;
    let on_topic = removed.subscribe(&topic(conversation)).await?;
    let on_queue = removed.subscribe("/user/queue/events").await?;
    witness.subscribe(&topic(conversation)).await?;

    owner.say(conversation, "with you").await?;
    stack.rest.remove_member(&alice.token, conversation, bob.user_id).await?;
    let secret = owner.say(conversation, "without you").await?;

    for subscription in [&on_topic, &on_queue] {
        let left = |frame: &Frame| {
            frame.header("subscription") == Some(subscription) && frame.header("event-type") == Some("USER_LEFT")
        };
        let frame = removed.message_where("USER_LEFT", left).await?;
        assert_eq!(frame.json()["data"]["user_id"], bob.user_id.to_string());
        assert!(frame.number("user-seq").is_some(), "{frame:?}");
        assert_eq!(frame.number("seq"), Some(secret.seq - 1));
    }
    let ended = removed.refusal().await?;
    assert_eq!((ended.code.as_str(), ended.fatal), ("subscription_ended", false));

    // The same gateway has written the later message to the neighbour.
    witness.message_where("without you", |frame| frame.number("seq") == Some(secret.seq)).await?;
    let rest = removed.messages_so_far().await?;
    assert!(!texts(&rest).contains(&"without you".to_owned()), "{rest:?}");
    let refused = removed.say(conversation, "let me in").await.unwrap_err();
    assert_eq!(refused.downcast_ref::<Refusal>().map(|refusal| refusal.code.as_str()), Some("not_a_member"));
    Ok(())
}

#[tokio::test]
async fn a_client_that_was_away_gets_exactly_what_it_missed_on_another_gateway() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut sender = stack.connect(&alice, 0).await?;
    let mut receiver = stack.connect(&bob, 0).await?;
    receiver.subscribe(&topic(conversation)).await?;
    sender.say(conversation, "seen").await?;
    let seen = receiver.event("MESSAGE").await?;
    receiver.disconnect().await?;

    for number in 1..=5 {
        sender.say(conversation, &format!("missed {number}")).await?;
    }
    let mut receiver = stack.connect(&bob, 1).await?;
    let position = ["seq", "epoch"].map(|name| seen.header(name).unwrap_or_default().to_owned());
    let [seq, epoch] = position.clone();
    receiver.subscribe_with(&topic(conversation), &[("after-seq", seq), ("after-epoch", epoch)]).await?;
    sender.say(conversation, "live").await?;

    let frames = take(&mut receiver, 7).await?;
    assert_eq!(frames[0].header("event-type"), Some("RESUMED"));
    let resumed = frames[0].json();
    assert_eq!(resumed["data"]["after_seq"].to_string(), position[0]);
    assert_eq!((&resumed["data"]["recovered"], &resumed["data"]["ended"]), (&json!(true), &json!(false)));
    assert_eq!(texts(&frames), ["missed 1", "missed 2", "missed 3", "missed 4", "missed 5", "live"]);
    let first = seen.number("seq").context("no seq")? + 1;
    assert_eq!(seqs(&frames), (first..first + 6).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn app_resume_sets_the_start_of_the_conversations_that_it_names_before_the_queue_is_subscribed() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let [named, other] = [stack.channel(&[&alice, &bob]).await?, stack.channel(&[&alice, &bob]).await?];
    let mut sender = stack.connect(&alice, 0).await?;
    let seen = sender.say(named, "seen").await?;
    for conversation in [named, other] {
        sender.say(conversation, "missed").await?;
    }
    // What bob knew when he left: both memberships, one conversation up to `seen`.
    let mut before = stack.connect(&bob, 0).await?;
    before.subscribe("/user/queue/events").await?;
    let user_seq = before.event("RESUMED").await?.json()["data"]["user_seq"].clone();
    assert!(user_seq.as_i64() > Some(0), "{user_seq}");

    let mut client = stack.connect(&bob, 1).await?;
    let resume = json!({
        "conversations": { named.to_string(): { "seq": seen.seq, "epoch": seen.epoch } },
        "user_seq": user_seq,
    });
    let resume = || Frame::new("SEND").with("destination", "/app/resume").with_body(resume.to_string());
    client.request(resume()).await?;
    client.subscribe("/user/queue/events").await?;
    let frames = take(&mut client, 3).await?;
    let missed: Vec<_> = frames.iter().filter(|frame| frame.header("event-type") == Some("MESSAGE")).collect();
    assert_eq!(missed.len(), 1, "only the conversation that was named: {frames:?}");
    assert_eq!((missed[0].number("conversation-id"), missed[0].number("seq")), (Some(named), Some(seen.seq + 1)));

    let refused = client.request(resume()).await.unwrap_err();
    assert_eq!(refused.downcast_ref::<Refusal>().map(|refusal| refusal.code.as_str()), Some("resume_too_late"));
    Ok(())
}

#[tokio::test]
async fn resumed_comes_first_on_every_subscription_even_where_nothing_was_missed() -> Result<()> {
    let stack = Stack::get()?;
    let alice = stack.person("alice").await?;
    let [one, two] = [stack.channel(&[&alice]).await?, stack.channel(&[&alice]).await?];
    let mut client = stack.connect(&alice, 0).await?;
    client.subscribe(&topic(one)).await?;
    let resumed = client.message().await?;
    assert_eq!(resumed.header("event-type"), Some("RESUMED"));
    let message_id = resumed.header("message-id").unwrap_or_default();
    assert_eq!(message_id, format!("u-{}", resumed.header("event-id").unwrap_or_default()));
    assert_eq!(resumed.header("seq"), None, "it is no event of the conversation's order");
    let data = &resumed.json()["data"];
    assert_eq!((&data["after_seq"], &data["head"]), (&json!(1), &json!(1)), "the head: CONVERSATION_CREATED");
    assert_eq!(data["conversation_id"], one.to_string());

    client.subscribe("/user/queue/events").await?;
    client.say(one, "first").await?;
    client.say(two, "first").await?;
    let frames = take(&mut client, 5).await?;
    let on_queue: Vec<_> =
        frames.iter().filter(|frame| frame.header("destination") == Some("/user/queue/events")).collect();
    for conversation in [one, two] {
        let of_this = |frame: &&&Frame| frame.json().to_string().contains(&conversation.to_string());
        let first = on_queue.iter().find(of_this).context("nothing of a conversation of mine")?;
        assert_eq!(first.header("event-type"), Some("RESUMED"));
    }
    Ok(())
}

#[tokio::test]
async fn a_position_that_never_was_is_not_recovered_and_delivery_goes_on_from_the_head() -> Result<()> {
    let stack = Stack::get()?;
    let alice = stack.person("alice").await?;
    let conversation = stack.channel(&[&alice]).await?;
    let mut client = stack.connect(&alice, 0).await?;
    client.subscribe_with(&topic(conversation), &[("after-seq", "900".to_owned())]).await?;
    let resumed = client.event("RESUMED").await?.json();
    assert_eq!(resumed["data"]["recovered"], false);
    let receipt = client.say(conversation, "from here").await?;
    assert_eq!(client.event("MESSAGE").await?.number("seq"), Some(receipt.seq));
    Ok(())
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_another_content_is_a_conflict() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut client = stack.connect(&alice, 0).await?;
    let body = json!({ "body": "once", "client_message_id": "retry-me" });
    let first = client.send_message(conversation, &body).await?;
    assert_eq!(client.send_message(conversation, &body).await?, first);
    // Another gateway, and another interface, are the same sender.
    assert_eq!(stack.connect(&alice, 1).await?.send_message(conversation, &body).await?, first);
    let path = format!("/api/v1/conversations/{conversation}/messages");
    let by_rest = stack.rest.post(&path, &alice.token, &body).await?;
    assert_eq!(by_rest["seq"], first.seq);

    let other = json!({ "body": "twice", "client_message_id": "retry-me" });
    let refused = client.send_message(conversation, &other).await.unwrap_err();
    assert_eq!(refused.downcast_ref::<Refusal>().map(|refusal| refusal.code.as_str()), Some("conflict"));
    assert_eq!(code_of(&stack.rest.post(&path, &alice.token, &other).await.unwrap_err()), Some("conflict"));
    // The key is the sender's own.
    let theirs = stack.connect(&bob, 0).await?.send_message(conversation, &other).await?;
    assert_eq!(theirs.seq, first.seq + 1);
    Ok(())
}

#[tokio::test]
async fn sends_of_one_session_commit_in_the_order_sent() -> Result<()> {
    const MESSAGES: i64 = 200;
    let stack = Stack::get()?;
    let alice = stack.person("alice").await?;
    let conversation = stack.channel(&[&alice]).await?;
    let mut client = stack.connect(&alice, 0).await?;
    for number in 1..=MESSAGES {
        let send = Frame::new("SEND")
            .with("destination", format_args!("/app/conversations/{conversation}/messages"))
            .with("receipt", format_args!("m{number}"))
            .with_body(json!({ "body": format!("{number}") }).to_string());
        client.write(&send).await?;
    }
    for number in 1..=MESSAGES {
        let receipt = client.receipt(&format!("m{number}")).await?;
        assert_eq!(receipt.number("seq"), Some(number + 1), "behind CONVERSATION_CREATED");
    }
    Ok(())
}

#[tokio::test]
async fn a_dm_is_one_for_two_people_and_closed_to_others() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob, eve] = stack.people(["alice", "bob", "eve"]).await?;
    let dm = stack.rest.create_conversation(&alice.token, "dm", "", &[bob.user_id]).await?;
    let mine = stack.rest.get("/api/v1/conversations", &bob.token).await?;
    let ids: Result<Vec<_>> = e2e::rest::items(mine).iter().map(|item| id_in(item, "id")).collect();
    assert!(ids?.contains(&dm));
    stack.connect(&bob, 0).await?.say(dm, "just us").await?;
    let refused = stack.rest.history(&eve.token, dm, 10).await.unwrap_err();
    assert!(matches!(code_of(&refused), Some("not_a_member" | "not_found")), "{refused}");
    let refused = stack.rest.join(&eve.token, dm).await.unwrap_err();
    assert!(matches!(code_of(&refused), Some("forbidden" | "not_found" | "not_a_member")), "{refused}");
    Ok(())
}
