//! Events that have left the retention window, on the running stack: their partition is dropped once everybody is past
//! it, and who resumes from before is told.

use anyhow::{Result, ensure};
use e2e::{
    stomp::{Client, Frame},
    testing::{Stack, eventually},
};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};

/// Moves the events of a conversation up to a seq into a partition of long ago.
async fn age(stack: &Stack, conversation: i64, up_to: i64) -> Result<()> {
    let mut mysql = MySqlConnection::connect(&stack.endpoints.mysql).await?;
    let (first, bound): (String, String) = sqlx::query_as(
        "SELECT CAST(PARTITION_NAME AS CHAR), CAST(PARTITION_DESCRIPTION AS CHAR) FROM information_schema.PARTITIONS \
         WHERE TABLE_SCHEMA = 'chat' AND TABLE_NAME = 'message_producer_outbox' AND PARTITION_DESCRIPTION <> 'MAXVALUE' \
         ORDER BY PARTITION_ORDINAL_POSITION LIMIT 1",
    )
    .fetch_one(&mut mysql)
    .await?;
    let split = format!(
        "ALTER TABLE message_producer_outbox REORGANIZE PARTITION {first} INTO ( \
         PARTITION long_ago VALUES LESS THAN ('2026-01-02'), PARTITION {first} VALUES LESS THAN ({bound}))"
    );
    sqlx::query(AssertSqlSafe(split)).execute(&mut mysql).await?;
    let aged =
        "UPDATE message_producer_outbox SET created_at = '2026-01-01 12:00:00' WHERE conversation_id = ? AND seq <= ?";
    sqlx::query(aged).bind(conversation).bind(up_to).execute(&mut mysql).await?;
    mysql.close().await?;
    Ok(())
}

/// Subscribes behind a seq; what RESUMED says.
async fn resume(client: &mut Client, conversation: i64, after: i64) -> Result<serde_json::Value> {
    let destination = format!("/topic/conversations/{conversation}");
    client.subscribe_with(&destination, &[("after-seq", after.to_string())]).await?;
    Ok(client.event("RESUMED").await?.json()["data"].clone())
}

#[tokio::test]
async fn who_resumes_from_before_the_retention_window_is_told_and_delivery_goes_on() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut sender = stack.connect(&alice, 0).await?;
    for number in 2..=6 {
        sender.say(conversation, &format!("message {number}")).await?;
    }
    age(&stack, conversation, 4).await?;
    eventually("the old partition is dropped", || async {
        let output = stack.program("core-services-1")?.arg("partitions").output().await?;
        let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "partitions: {failed}");
        Ok(said.contains("dropped: long_ago").then_some(()))
    })
    .await?;

    // A gateway that has nothing of it in memory.
    let mut late = stack.connect(&bob, 1).await?;
    let resumed = resume(&mut late, conversation, 2).await?;
    assert_eq!((&resumed["recovered"], &resumed["after_seq"]), (&false.into(), &6.into()), "{resumed}");
    let mut in_time = stack.connect(&bob, 1).await?;
    let resumed = resume(&mut in_time, conversation, 4).await?;
    assert_eq!((&resumed["recovered"], &resumed["after_seq"]), (&true.into(), &4.into()), "{resumed}");
    sender.say(conversation, "message 7").await?;
    let seq = |frame: Frame| frame.number("seq");
    for expected in 5..=7 {
        assert_eq!(seq(in_time.event("MESSAGE").await?), Some(expected));
    }
    assert_eq!(seq(late.event("MESSAGE").await?), Some(7));

    for (after, complete) in [(2, false), (4, true)] {
        let path = format!("/api/v1/conversations/{conversation}/events?after_seq={after}");
        let page = stack.rest.get(&path, &bob.token).await?;
        assert_eq!((&page["complete"], &page["items"][0]["seq"]), (&complete.into(), &5.into()), "{page}");
    }
    Ok(())
}
