//! The outbox's partitions: made ahead, by one core at a time; and not dropped while somebody may need them.
//!
//! No connector reads the databases of these tests. That drops happen where one does is shown end to end.

use std::process::{Output, Stdio};

use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};

use crate::harness::{Core, DEADLINE, POLL};

async fn names(core: &Core) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT CAST(PARTITION_NAME AS CHAR) FROM information_schema.PARTITIONS
         WHERE TABLE_SCHEMA = ? AND TABLE_NAME = 'message_producer_outbox' ORDER BY PARTITION_ORDINAL_POSITION",
    )
    .bind(&core.database)
    .fetch_all(&core.db)
    .await
    .unwrap()
}

async fn rows(core: &Core, partition: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM message_producer_outbox PARTITION ({partition})");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&core.db).await.unwrap()
}

async fn until_made(core: &Core) -> Vec<String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let names = names(core).await;
        if names.len() > 1 {
            return names;
        }
        assert!(Instant::now() < deadline, "no partitions were made: {}", core.log());
        sleep(POLL).await;
    }
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn partitions_are_made_ahead_and_the_catch_all_stays_empty() {
    let core = Core::start().await;
    let made = until_made(&core).await;
    // Today, three days ahead, and the catch-all.
    assert_eq!((made.len(), made[4].as_str()), (5, "p_max"), "{made:?}");
    assert!(made[..4].iter().all(|name| name.starts_with("before_") && name.ends_with("_000000")), "{made:?}");
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    for n in 0..5 {
        core.send(&alice, channel, &format!("m-{n}"), "hello").await.unwrap();
    }
    assert_eq!(rows(&core, "p_max").await, 0);
    assert!(rows(&core, &made[0]).await >= 6);
    assert!(said(&core.command().arg("partitions").output().unwrap()).contains("nothing is to be done"));
    assert_eq!(names(&core).await, made);
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn of_many_who_look_at_once_one_makes_the_partitions() {
    let core = Core::start_with(&[("OUTBOX__PARTITIONS__AHEAD", "1d")]).await;
    assert_eq!(until_made(&core).await.len(), 3);
    let looking: Vec<_> = (0..6)
        .map(|_| {
            let mut command = core.command();
            command.env("SWITCHBOARD__OUTBOX__PARTITIONS__AHEAD", "9d").arg("partitions");
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let said: Vec<String> = looking.into_iter().map(|child| said(&child.wait_with_output().unwrap())).collect();
    assert_eq!(said.iter().filter(|said| said.contains("made: ")).count(), 1, "{said:?}");
    assert_eq!(names(&core).await.len(), 11);
    core.finish().await;
}

#[tokio::test]
async fn an_old_partition_stays_while_the_connector_is_not_past_it() {
    let core = Core::start().await;
    let made = until_made(&core).await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let (first, db) = (&made[0], &core.db);
    let bound: String =
        sqlx::query_scalar("SELECT DATE_FORMAT(UTC_DATE() + INTERVAL 1 DAY, '%Y-%m-%d')").fetch_one(db).await.unwrap();
    let split = format!(
        "ALTER TABLE message_producer_outbox REORGANIZE PARTITION {first} INTO (
         PARTITION long_ago VALUES LESS THAN ('2026-01-02'), PARTITION {first} VALUES LESS THAN ('{bound}'))"
    );
    sqlx::query(AssertSqlSafe(split)).execute(db).await.unwrap();
    let aged = "UPDATE message_producer_outbox SET created_at = '2026-01-01 12:00:00' WHERE conversation_id = ?";
    sqlx::query(aged).bind(channel).execute(db).await.unwrap();
    assert_eq!(rows(&core, "long_ago").await, 1);

    assert!(
        said(&core.command().args(["partitions", "--dry-run"]).output().unwrap()).contains("to be dropped: long_ago")
    );
    let mut command = core.command();
    let looked =
        command.env("SWITCHBOARD__OUTBOX__PARTITIONS__GUARD_TIMEOUT", "2s").arg("partitions").output().unwrap();
    assert!(said(&looked).contains("stay for now: the connector is not past it"), "{looked:?}");
    assert_eq!(rows(&core, "long_ago").await, 1);
    core.assert_whole(channel).await;
    core.finish().await;
}
