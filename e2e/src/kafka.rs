//! Reading topics and a group's lag.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, StreamConsumer},
    message::{Headers as _, OwnedMessage},
};
use tokio::time::{Instant, timeout_at};

/// How long one request to the broker may take.
const REQUEST: Duration = Duration::from_secs(10);

/// Where to start in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Beginning,
    /// Behind what is there now.
    End,
}

/// A reader of one topic, outside of any consumer group.
pub struct Topic {
    consumer: StreamConsumer,
}

impl Topic {
    /// Assigns all partitions and returns once their start is fixed: what is produced afterwards is seen.
    ///
    /// # Errors
    /// The topic does not exist, or the broker does not answer.
    pub async fn open(brokers: &str, topic: &str, start: Start) -> Result<Self> {
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: StreamConsumer = config(&brokers, "unused").create()?;
            let mut assignment = TopicPartitionList::new();
            for partition in partitions(consumer.fetch_metadata(Some(&topic), REQUEST)?, &topic)? {
                let (low, high) = consumer.fetch_watermarks(&topic, partition, REQUEST)?;
                let offset = if start == Start::End { high } else { low };
                assignment.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
            }
            consumer.assign(&assignment)?;
            Ok(Self { consumer })
        })
        .await?
    }

    /// The next record that fits, within the deadline.
    pub async fn find(&self, deadline: Instant, fits: impl Fn(&OwnedMessage) -> bool) -> Result<OwnedMessage> {
        loop {
            let next = timeout_at(deadline, self.consumer.recv()).await;
            let record = next.context("no such record came in time")??.detach();
            if fits(&record) {
                return Ok(record);
            }
        }
    }
}

/// A header's value as text; `None` when it is missing or null.
pub fn header(record: &OwnedMessage, name: &str) -> Option<String> {
    let headers = record.headers()?;
    let header = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(header.value?).into_owned())
}

/// Records of the topic that the group has not stored yet, over all partitions; partitions without a stored offset
/// count whole.
pub async fn lag(brokers: &str, group: &str, topic: &str) -> Result<i64> {
    let (brokers, group, topic) = (brokers.to_owned(), group.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config(&brokers, &group).create()?;
        let mut asked = TopicPartitionList::new();
        for partition in partitions(consumer.fetch_metadata(Some(&topic), REQUEST)?, &topic)? {
            asked.add_partition(&topic, partition);
        }
        let mut lag = 0;
        for stored in consumer.committed_offsets(asked, REQUEST)?.elements() {
            let (low, high) = consumer.fetch_watermarks(&topic, stored.partition(), REQUEST)?;
            lag += match stored.offset() {
                Offset::Offset(offset) => high - offset.max(low),
                _ => high - low,
            };
        }
        Ok(lag)
    })
    .await?
}

/// Tells how many records a topic has had, cheaply enough to ask again and again.
pub struct Heads {
    consumer: BaseConsumer,
    topic: String,
    partitions: Vec<i32>,
}

impl Heads {
    pub fn of(brokers: &str, topic: &str) -> Result<Self> {
        let consumer: BaseConsumer = config(brokers, "unused").create()?;
        let partitions = partitions(consumer.fetch_metadata(Some(topic), REQUEST)?, topic)?;
        Ok(Self { consumer, topic: topic.to_owned(), partitions })
    }

    /// The sum of the heads of all partitions.
    pub async fn read(self: &Arc<Self>) -> Result<i64> {
        let heads = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let mut sum = 0;
            for partition in &heads.partitions {
                sum += heads.consumer.fetch_watermarks(&heads.topic, *partition, REQUEST)?.1;
            }
            Ok(sum)
        })
        .await?
    }
}

fn config(brokers: &str, group: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", group).set("enable.auto.commit", "false");
    // A record is wanted as soon as it is there.
    config.set("fetch.wait.max.ms", "20").set("allow.auto.create.topics", "false");
    config
}

fn partitions(metadata: rdkafka::metadata::Metadata, topic: &str) -> Result<Vec<i32>> {
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    match found {
        Some(found) if !found.partitions().is_empty() => Ok(found.partitions().iter().map(|p| p.id()).collect()),
        _ => bail!("the topic {topic} does not exist"),
    }
}
