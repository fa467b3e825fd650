//! Whether everybody who reads the outbox by way of its change stream has read all that is in it now.
//!
//! The connector: a canary row is committed, and its record waited for; the binlog has one order, so whatever was
//! committed before the canary is in Kafka when it is. The consumer groups: what Kafka has by then is read and
//! committed by each. Offsets alone don't show that: a transaction's end takes one, too, where the connector uses them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use proto::topics::{CANARY_EVENTS, MESSAGE_EVENTS, USER_EVENTS, aggregate, header};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
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
        let (name, group) = (group, Arc::new(Group::new(&kafka.brokers, group)?));
        loop {
            let (group, heads) = (Arc::clone(&group), heads.clone());
            let Some(position) = blocking(move || group.behind(&heads)).await? else { break };
            if Instant::now() >= deadline {
                bail!("the consumer group {name} is not past {position}");
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
    let mut client = client(brokers, "unused");
    // The canary's transaction may have ended in its partition and not yet in others.
    let consumer: BaseConsumer =
        client.set("isolation.level", "read_uncommitted").create().context("the Kafka consumer")?;
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

/// A consumer group, seen from outside.
pub struct Group {
    brokers: String,
    consumer: BaseConsumer,
}

/// A partition where a group stored an offset below the head.
#[derive(Clone, Copy, Debug)]
struct Below {
    partition: i32,
    stored: i64,
    head: i64,
}

impl Group {
    /// Connects in the background.
    pub fn new(brokers: &str, name: &str) -> Result<Self> {
        Ok(Self { brokers: brokers.to_owned(), consumer: consumer(brokers, name)? })
    }

    /// Where it is not past these heads (topic, partition, offset) yet, if anywhere. Blocks.
    pub fn behind(&self, heads: &[(&str, i32, i64)]) -> Result<Option<String>> {
        let mut asked = TopicPartitionList::new();
        for (topic, partition, _) in heads {
            asked.add_partition(topic, *partition);
        }
        let committed = self.consumer.committed_offsets(asked, REQUEST)?;
        let position = |topic: &str, partition: i32, head: i64| format!("offset {head} of {topic}[{partition}]");
        let mut below = BTreeMap::<&str, Vec<Below>>::new();
        for &(topic, partition, head) in heads {
            match committed.find_partition(topic, partition).and_then(|found| found.offset().to_raw()) {
                Some(stored) if stored >= head => {}
                Some(stored) if stored >= 0 => below.entry(topic).or_default().push(Below { partition, stored, head }),
                _ => return Ok(Some(position(topic, partition, head))),
            }
        }
        for (topic, below) in below {
            if let Some(Below { partition, head, .. }) = unread(&self.brokers, topic, &below)? {
                return Ok(Some(position(topic, partition, head)));
            }
        }
        Ok(None)
    }
}

/// The first of these partitions of a topic that turns out to have a record between what is stored and the head, or
/// where that is not known: a transaction is open, or time is over.
fn unread(brokers: &str, topic: &str, below: &[Below]) -> Result<Option<Below>> {
    let mut client = client(brokers, "unused");
    // Only what was committed is read, and its end is told. Where the stored offset is gone, the oldest record counts.
    client.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    client.set("auto.offset.reset", "earliest").set("fetch.message.max.bytes", "1024");
    // Of its own for each topic and look: an end says its partition only.
    let reader: BaseConsumer = client.create().context("the Kafka consumer")?;
    let mut list = TopicPartitionList::new();
    for below in below {
        // The end that is told is that of what was committed by then.
        let (_, end) = reader.fetch_watermarks(topic, below.partition, REQUEST)?;
        if end < below.head {
            return Ok(Some(*below));
        }
        list.add_partition_offset(topic, below.partition, Offset::Offset(below.stored))?;
    }
    reader.assign(&list)?;
    let mut open: BTreeMap<i32, Below> = below.iter().map(|below| (below.partition, *below)).collect();
    let deadline = Instant::now() + REQUEST;
    while let Some((_, first)) = open.first_key_value() {
        if Instant::now() >= deadline {
            return Ok(Some(*first));
        }
        match reader.poll(LOOK_AGAIN) {
            None => {}
            Some(Ok(record)) => {
                let below = open.remove(&record.partition());
                if below.is_some_and(|below| record.offset() < below.head) {
                    return Ok(below);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(error)) => return Err(error).with_context(|| format!("reading {topic}")),
        }
    }
    Ok(None)
}

/// Outside of its group: nothing is joined, nothing committed.
fn consumer(brokers: &str, group: &str) -> Result<BaseConsumer> {
    client(brokers, group).create().context("the Kafka consumer")
}

fn client(brokers: &str, group: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("group.id", group).set("enable.auto.commit", "false");
    client.set("allow.auto.create.topics", "false");
    client
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("asking Kafka panicked")?
}
