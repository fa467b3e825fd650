//! One order for a conversation, and one row for a message, under concurrency and retries.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tonic::Code;

use crate::harness::Core;

#[tokio::test]
async fn eight_senders_at_once_number_a_conversation_without_a_gap() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let senders = (0..8).map(|sender| {
        let (core, alice) = (&core, &alice);
        async move {
            let mut seqs = Vec::new();
            for n in 0..25 {
                let sent = core.send(alice, channel, &format!("m-{sender}-{n}"), "hello").await.unwrap();
                seqs.push(sent.seq);
            }
            seqs
        }
    });
    let seqs = join_all(senders).await;
    assert!(seqs.iter().all(|seqs| seqs.is_sorted()), "answers of one sender come in the order sent");
    let all: BTreeSet<i64> = seqs.concat().into_iter().collect();
    // CONVERSATION_CREATED is 1.
    assert_eq!(all, (2..=201).collect());
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn an_exact_retry_gets_the_first_answer_and_another_content_is_a_conflict() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let first = core.send(&alice, channel, "m-1", "hello").await.unwrap();
    let again = core.send(&alice, channel, "m-1", "hello").await.unwrap();
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((first.message_id, first.seq), (again.message_id, again.seq));

    let other = core.send(&alice, channel, "m-1", "something else").await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    assert_eq!(other.metadata().get("code").unwrap(), "conflict");

    let at_once = join_all((0..20).map(|_| core.send(&alice, channel, "m-2", "hello"))).await;
    let firsts = at_once.iter().filter(|sent| !sent.as_ref().unwrap().duplicate).count();
    assert_eq!(firsts, 1, "twenty at once are one message");
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn every_character_comes_back_as_it_went_in() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let ascii: String = (0..128u8).map(char::from).collect();
    let body = format!("{ascii}'); DROP TABLE messages; -- \\' \u{80}\u{5c}\u{a5}\u{20a9}\u{10ffff}日本語\\");
    let id = "it's \\ a \"client's\" id\\";
    for duplicate in [false, true] {
        let sent = core.send(&alice, channel, id, &body).await.unwrap();
        assert_eq!(sent.duplicate, duplicate, "it is found again by its id");
        assert_eq!(sent.client_message_id, id);
    }
    let (stored, payload): (String, String) = sqlx::query_as(
        "SELECT m.body, o.payload FROM messages m JOIN message_producer_outbox o USING (conversation_id, seq)
         WHERE client_message_id = ?",
    )
    .bind(id)
    .fetch_one(&core.db)
    .await
    .unwrap();
    assert_eq!(stored, body);
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(payload["data"]["body"], body);
    assert_eq!(payload["data"]["client_message_id"], id);
    core.assert_whole(channel).await;
    core.finish().await;
}
