//! The message row and its outbox row are there together or not at all, whatever happens to the second insert.

use sqlx::{Connection as _, MySqlConnection};
use tonic::Code;

use crate::harness::{Core, run, run_on};

const SECOND_INSERT: &str = "INSERT INTO message_producer_outbox";

/// A session that keeps every insert of a sequenced event waiting, by a gap lock at the end of the log's index.
pub async fn hold_the_log(core: &Core, conversation: i64) -> MySqlConnection {
    let mut holder = core.db.acquire().await.unwrap().detach();
    run_on(&mut holder, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await;
    run_on(&mut holder, "START TRANSACTION").await;
    let gap = "SELECT seq FROM message_producer_outbox FORCE INDEX (conversation_id)
               WHERE conversation_id = ? AND seq > 0 FOR UPDATE";
    // The index is named by its first column where a migration gave it no other name.
    let index: String = sqlx::query_scalar(
        "SELECT DISTINCT INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
         AND TABLE_NAME = 'message_producer_outbox' AND COLUMN_NAME = 'conversation_id' AND SEQ_IN_INDEX = 1",
    )
    .fetch_one(&mut holder)
    .await
    .unwrap();
    let gap = gap.replace("(conversation_id)", &format!("({index})"));
    sqlx::query(sqlx::AssertSqlSafe(gap)).bind(conversation).fetch_all(&mut holder).await.unwrap();
    holder
}

#[tokio::test]
async fn a_second_insert_that_fails_takes_the_message_row_with_it() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    run(&core.db, "ALTER TABLE message_producer_outbox ADD CONSTRAINT no_poison CHECK (payload NOT LIKE '%poison%')")
        .await;

    let refused = core.send(&alice, channel, "m-1", "poison").await.unwrap_err();
    assert_ne!(refused.code(), Code::Ok);
    assert_eq!(core.rows_of("m-1").await, 0, "a row without its event");
    core.send(&alice, channel, "m-2", "good").await.unwrap();
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn one_bad_message_of_a_batch_does_not_take_its_neighbours_along() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    run(&core.db, "ALTER TABLE message_producer_outbox ADD CONSTRAINT no_poison CHECK (payload NOT LIKE '%poison%')")
        .await;

    let sends = (0..40).map(|n| {
        let (core, alice) = (&core, &alice);
        let body = if n % 10 == 3 { "poison" } else { "good" };
        async move { core.send(alice, channel, &format!("m-{n}"), body).await.is_ok() }
    });
    let accepted = futures_util::future::join_all(sends).await;
    for (n, accepted) in accepted.iter().enumerate() {
        assert_eq!(*accepted, n % 10 != 3, "message {n}");
        assert_eq!(core.rows_of(&format!("m-{n}")).await, i64::from(*accepted), "message {n}");
    }
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn a_lock_wait_that_times_out_at_the_second_insert_takes_the_message_row_with_it() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let holder = hold_the_log(&core, channel).await;

    let refused = core.send(&alice, channel, "m-1", "late").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(core.rows_of("m-1").await, 0, "1205 undoes one statement only: the rest must be rolled back");

    holder.close().await.unwrap();
    let retried = core.send(&alice, channel, "m-1", "late").await.unwrap();
    assert!(!retried.duplicate, "nothing of the first try was kept");
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn a_deadlock_is_rolled_back_whole_and_tried_again() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    run(&core.db, "CREATE TABLE ballast (n INT PRIMARY KEY)").await;
    let mut holder = hold_the_log(&core, channel).await;
    // The server ends the transaction that changed less: this one must not be it.
    let rows = (0..2000).map(|n| format!("({n})")).collect::<Vec<_>>().join(",");
    run_on(&mut holder, &format!("INSERT INTO ballast VALUES {rows}")).await;

    let deadlock = async {
        core.session_running(SECOND_INSERT).await;
        // It holds the conversation and waits for the log; now the other way round.
        sqlx::query("SELECT last_seq FROM conversations WHERE id = ? FOR UPDATE")
            .bind(channel)
            .fetch_one(&mut holder)
            .await
            .expect("the other transaction is the victim");
        run_on(&mut holder, "ROLLBACK").await;
    };
    let (sent, ()) = tokio::join!(core.send(&alice, channel, "m-1", "again"), deadlock);
    assert!(!sent.unwrap().duplicate);
    assert_eq!(core.rows_of("m-1").await, 1);
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn a_session_killed_between_the_statements_leaves_nothing_behind() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let holder = hold_the_log(&core, channel).await;

    let kill = async {
        let session = core.session_running(SECOND_INSERT).await;
        run(&core.db, &format!("KILL {session}")).await;
    };
    let (sent, ()) = tokio::join!(core.send(&alice, channel, "m-1", "cut off"), kill);
    assert!(sent.is_err(), "the log is still held");
    assert_eq!(core.rows_of("m-1").await, 0);

    holder.close().await.unwrap();
    core.send(&alice, channel, "m-1", "cut off").await.unwrap();
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn core_killed_between_the_statements_leaves_the_message_whole_or_not_at_all() {
    let mut core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let holder = hold_the_log(&core, channel).await;

    let mut messages = core.messages();
    let request = alice.request(proto::rpc::v1::CreateMessageRequest {
        conversation_id: channel,
        body: "last words".into(),
        client_message_id: "m-1".into(),
        ..Default::default()
    });
    let sent = tokio::spawn(async move { messages.create_message(request).await });
    core.session_running(SECOND_INSERT).await;
    core.kill();
    assert!(sent.await.unwrap().is_err());
    holder.close().await.unwrap();

    // The server goes on with what it was sent, the COMMIT included, or notices that the client is gone and rolls back:
    // then the conversation's row can be locked again.
    let mut probe = core.db.acquire().await.unwrap();
    sqlx::query("SELECT last_seq FROM conversations WHERE id = ? FOR UPDATE")
        .bind(channel)
        .fetch_one(&mut *probe)
        .await
        .unwrap();
    drop(probe);
    assert!(core.rows_of("m-1").await <= 1);
    core.assert_whole(channel).await;
    core.finish().await;
}
