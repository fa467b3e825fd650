//! Conversations and members: each change has its seq and its user_seq, and decides who sees what.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Core, User, id};

/// One conversation with these members beside the owner.
async fn make(core: &Core, owner: &User, kind: &str, members: &[&User]) -> i64 {
    let members: Vec<String> = members.iter().map(|user| user.id.to_string()).collect();
    let body = json!({ "kind": kind, "name": "test", "member_ids": members });
    id(&core.post("/api/v1/conversations", Some(owner), &body).await["id"])
}

async fn add(core: &Core, actor: &User, conversation: i64, user: &User) {
    let body = json!({ "user_ids": [user.id.to_string()] });
    core.post(&format!("/api/v1/conversations/{conversation}/members"), Some(actor), &body).await;
}

/// The seqs of the event log, and of history, as this user sees them.
async fn seen(core: &Core, user: &User, conversation: i64) -> (Vec<i64>, Vec<i64>) {
    let mut both = Vec::new();
    for list in ["events", "messages"] {
        let path = format!("/api/v1/conversations/{conversation}/{list}");
        let (status, page) = core.call("GET", &path, Some(user), Value::Null).await;
        assert_eq!(status, 200, "{page}");
        both.push(page["items"].as_array().unwrap().iter().map(|item| item["seq"].as_i64().unwrap()).collect());
    }
    let messages = both.pop().unwrap();
    (both.pop().unwrap(), messages)
}

#[tokio::test]
async fn two_people_have_one_dm_however_often_and_at_once_it_is_made() {
    let core = Core::start().await;
    let (alice, bob) = (core.register("alice").await, core.register("bob").await);
    let made = join_all((0..8).map(|n| {
        let (me, other) = if n % 2 == 0 { (&alice, &bob) } else { (&bob, &alice) };
        let body = json!({ "kind": "dm", "member_ids": [other.id.to_string()] });
        let core = &core;
        async move { core.call("POST", "/api/v1/conversations", Some(me), body).await }
    }))
    .await;
    assert_eq!(made.iter().filter(|(status, _)| *status == 201).count(), 1, "{made:?}");
    assert_eq!(made.iter().filter(|(status, _)| *status == 200).count(), 7, "{made:?}");
    assert!(made.iter().all(|(_, dm)| dm["id"] == made[0].1["id"]));
    let dm = id(&made[0].1["id"]);
    let (status, problem) =
        core.call("POST", &format!("/api/v1/conversations/{dm}/leave"), Some(&bob), Value::Null).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("forbidden")));
    core.assert_whole(dm).await;
    core.finish().await;
}

#[tokio::test]
async fn every_change_of_members_takes_the_next_seq_and_the_next_user_seq() {
    let core = Core::start().await;
    let (alice, bob, carol) = (core.register("alice").await, core.register("bob").await, core.register("carol").await);
    let channels = [make(&core, &alice, "channel", &[&bob]).await, make(&core, &alice, "channel", &[]).await];
    // At once, in both: the order of each is its own, the user_seq of a person is one.
    join_all(channels.map(|channel| {
        let (core, alice, bob, carol) = (&core, &alice, &bob, &carol);
        async move {
            let path = |rest: &str| format!("/api/v1/conversations/{channel}{rest}");
            for _ in 0..3 {
                core.post(&path("/join"), Some(carol), &Value::Null).await;
                add(core, alice, channel, bob).await;
                core.post(&path("/leave"), Some(carol), &Value::Null).await;
                let (status, _) =
                    core.call("DELETE", &path(&format!("/members/{}", bob.id)), Some(alice), Value::Null).await;
                assert_eq!(status, 200);
            }
        }
    }))
    .await;
    for channel in channels {
        core.assert_whole(channel).await;
    }
    for user in [&alice, &bob, &carol] {
        let seqs: Vec<i64> = sqlx::query_scalar(
            "SELECT user_seq FROM message_producer_outbox
             WHERE aggregatetype = 'user' AND subject_id = ? AND user_seq IS NOT NULL ORDER BY user_seq",
        )
        .bind(user.id)
        .fetch_all(&core.db)
        .await
        .unwrap();
        let head: i64 = sqlx::query_scalar("SELECT user_seq FROM users WHERE id = ?")
            .bind(user.id)
            .fetch_one(&core.db)
            .await
            .unwrap();
        assert_eq!(seqs, (1..=head).collect::<Vec<_>>());
    }
    // The event that others see names the same user_seq as the person's own.
    let apart: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM message_producer_outbox c LEFT JOIN message_producer_outbox u
         ON u.aggregatetype = 'user' AND u.subject_id = c.subject_id AND u.user_seq = c.user_seq
         WHERE c.type IN ('USER_JOINED', 'USER_LEFT') AND u.id IS NULL",
    )
    .fetch_one(&core.db)
    .await
    .unwrap();
    assert_eq!(apart, 0);
    core.finish().await;
}

#[tokio::test]
async fn a_former_member_sees_a_channel_up_to_their_end_and_of_a_group_their_interval() {
    let core = Core::start().await;
    let (alice, bob, carol) = (core.register("alice").await, core.register("bob").await, core.register("carol").await);
    for (kind, events, messages) in [("channel", vec![1, 2, 3, 4, 5], vec![2, 4]), ("group", vec![3, 4, 5], vec![4])] {
        let conversation = make(&core, &alice, kind, &[&carol]).await;
        core.send(&alice, conversation, "m-2", "before").await.unwrap();
        add(&core, &alice, conversation, &bob).await;
        core.send(&alice, conversation, "m-4", "while").await.unwrap();
        core.post(&format!("/api/v1/conversations/{conversation}/leave"), Some(&bob), &Value::Null).await;
        core.send(&alice, conversation, "m-6", "after").await.unwrap();

        assert_eq!(seen(&core, &bob, conversation).await, (events, messages), "{kind}");
        assert_eq!(seen(&core, &carol, conversation).await, ((1..=6).collect(), vec![2, 4, 6]), "{kind}");
        let refused = core.send(&bob, conversation, "m-7", "too late").await.unwrap_err();
        assert_eq!(crate::harness::code(&refused), "not_a_member");
        core.assert_whole(conversation).await;
    }
    let channel = make(&core, &alice, "channel", &[]).await;
    let path = format!("/api/v1/conversations/{channel}/messages");
    let (status, problem) = core.call("GET", &path, Some(&bob), Value::Null).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("not_a_member")));
    core.finish().await;
}
