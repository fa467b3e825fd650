//! Whether everybody who reads the outbox by way of its change stream has read all that is in it now.
//!
//! The connector: a canary row is committed, and its record waited for; the binlog has one order, so whatever was
//! committed before the canary is in Kafka when it is. The consumer groups: what Kafka has by then is read and
//! committed by each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use proto::topics::{CANARY_EVENTS, MESSAGE_EVENTS, USER_EVENTS, aggregate, header};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _, Message as _},
};
use sqlx::MySqlConnection;
use uuid::Uuid;

use crate::{config, db::lock_epoch};

/// One request to the broker, and between two looks at a group's offsets.
const REQUEST: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Returns when all are past what was committed before this call; an error says who is not.
pub async fn consumers(
    session: &mut MySqlConnection,
    kafka: &config::Kafka,
    config: &config::Partitions,
) -> Result<()> {
    let deadline = Instant::now() + config.guard_timeout;
    let brokers = kafka.brokers.clone();
    // Opened before the row is there, so that its record can't be missed.
    let reader = blocking(move || canaries(&brokers)).await?;
    let id = Uuid::now_v7().to_string();
    insert_canary(session, &id).await.context("inserting a canary row")?;
    blocking(move || wait_for(&reader, &id, deadline)).await?;

    let heads = {
        let brokers = kafka.brokers.clone();
        blocking(move || heads(&brokers)).await?
    };
    for group in &config.consumer_groups {
        let consumer = Arc::new(consumer(&kafka.brokers, group)?);
        loop {
            let (consumer, heads) = (Arc::clone(&consumer), heads.clone());
            let Some(position) = blocking(move || behind(&consumer, &heads)).await? else { break };
            if Instant::now() >= deadline {
                bail!("the consumer group {group} is not past {position}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}

async fn insert_canary(session: &mut MySqlConnection, id: &str) -> Result<()> {
    let epoch = lock_epoch(&mut *session).await?;
    sqlx::query(
        "INSERT INTO message_producer_outbox (id, aggregatetype, aggregateid, type, payload, epoch, created_at)
         VALUES (?, ?, '1', 'CANARY', '{}', ?, UTC_TIMESTAMP(6))",
    )
    .bind(id)
    .bind(aggregate::CANARY)
    .bind(epoch)
    .execute(session)
    .await?;
    Ok(())
}

/// A reader of the canaries that come from now on.
fn canaries(brokers: &str) -> Result<BaseConsumer> {
    let reader = consumer(brokers, "unused")?;
    let (_, end) =
        reader.fetch_watermarks(CANARY_EVENTS, 0, REQUEST).with_context(|| format!("asking for {CANARY_EVENTS}"))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(CANARY_EVENTS, 0, Offset::Offset(end))?;
    reader.assign(&list)?;
    Ok(reader)
}

fn wait_for(reader: &BaseConsumer, id: &str, deadline: Instant) -> Result<()> {
    let is_it = |record: &BorrowedMessage<'_>| {
        let headers = record.headers();
        headers.is_some_and(|headers| headers.iter().any(|h| h.key == header::ID && h.value == Some(id.as_bytes())))
    };
    while Instant::now() < deadline {
        if reader.poll(LOOK_AGAIN).transpose().context("reading canaries")?.is_some_and(|record| is_it(&record)) {
            return Ok(());
        }
    }
    bail!("the connector is not past it: a canary row did not reach {CANARY_EVENTS} in time")
}

type Heads = Vec<(&'static str, i32, i64)>;

/// How far the topics that the outbox feeds go; partitions without records are left out.
fn heads(brokers: &str) -> Result<Heads> {
    let consumer = consumer(brokers, "unused")?;
    let mut heads = Vec::new();
    for topic in [MESSAGE_EVENTS, USER_EVENTS] {
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST).with_context(|| format!("asking for {topic}"))?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        for partition in partitions.map(|partition| partition.id()) {
            let (low, high) = consumer.fetch_watermarks(topic, partition, REQUEST)?;
            if low < high {
                heads.push((topic, partition, high));
            }
        }
    }
    Ok(heads)
}

/// Where a group is not past these heads yet, if anywhere.
fn behind(consumer: &BaseConsumer, heads: &Heads) -> Result<Option<String>> {
    let mut asked = TopicPartitionList::new();
    for (topic, partition, _) in heads {
        asked.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(asked, REQUEST)?;
    let behind = heads.iter().find(|(topic, partition, head)| {
        let stored = committed.find_partition(topic, *partition).and_then(|found| found.offset().to_raw());
        stored.is_none_or(|stored| stored < *head)
    });
    Ok(behind.map(|(topic, partition, head)| format!("offset {head} of {topic}[{partition}]")))
}

/// Outside of its group: nothing is joined, nothing committed.
fn consumer(brokers: &str, group: &str) -> Result<BaseConsumer> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("group.id", group).set("enable.auto.commit", "false");
    client.set("allow.auto.create.topics", "false").create().context("the Kafka consumer")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("asking Kafka panicked")?
}
