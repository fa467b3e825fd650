//! Records as golden files hold them, and reading them from Kafka.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use proto::topics::header;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _, Message as _},
};
use serde::Serialize;

/// A record; texts, because everything of ours is UTF-8.
#[derive(Clone, Debug, Serialize)]
pub struct Captured {
    pub topic: String,
    pub partition: i32,
    pub key: Option<String>,
    /// In the order of the record; a header may have no value.
    pub headers: Vec<(String, Option<String>)>,
    pub value: Option<String>,
}

impl Captured {
    fn of(message: &BorrowedMessage<'_>) -> Result<Self> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).context("the record is no UTF-8");
        let mut headers = Vec::new();
        for header in message.headers().iter().flat_map(|headers| headers.iter()) {
            headers.push((header.key.to_owned(), header.value.map(text).transpose()?));
        }
        Ok(Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            key: message.key().map(text).transpose()?,
            headers,
            value: message.payload().map(text).transpose()?,
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name)?.1.as_deref()
    }

    /// The record as if its topic had that name.
    pub fn under(mut self, topic: &str) -> Self {
        topic.clone_into(&mut self.topic);
        self
    }
}

/// Reads topics without a group.
pub struct Reader {
    consumer: BaseConsumer,
    /// What came before it was asked for: partitions have no common order.
    early: Vec<Captured>,
}

impl Reader {
    pub fn from_the_start(brokers: &str, topics: &[&str]) -> Result<Self> {
        Self::new(brokers, topics, |(low, _)| low)
    }

    pub fn from_the_end(brokers: &str, topics: &[&str]) -> Result<Self> {
        Self::new(brokers, topics, |(_, high)| high)
    }

    fn new(brokers: &str, topics: &[&str], start: impl Fn((i64, i64)) -> i64) -> Result<Self> {
        const ANSWER: Duration = Duration::from_secs(10);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "capture-records").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let ids: Vec<_> = partitions.map(|partition| partition.id()).collect();
            anyhow::ensure!(!ids.is_empty(), "the topic {topic} is not there");
            for id in ids {
                let offset = start(consumer.fetch_watermarks(topic, id, ANSWER)?);
                list.add_partition_offset(topic, id, Offset::Offset(offset))?;
            }
        }
        consumer.assign(&list)?;
        Ok(Self { consumer, early: Vec::new() })
    }

    /// The next record that is wanted.
    pub fn next(&mut self, patience: Duration, wanted: impl Fn(&Captured) -> bool) -> Result<Captured> {
        if let Some(at) = self.early.iter().position(&wanted) {
            return Ok(self.early.remove(at));
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(message) = self.consumer.poll(Duration::from_millis(100)) {
                let record = Captured::of(&message?)?;
                if wanted(&record) {
                    return Ok(record);
                }
                self.early.push(record);
            }
        }
        bail!("the record did not come within {patience:?}")
    }

    /// All that is there now: the newest record of each event type.
    pub fn newest_of_each_type(&mut self) -> Result<BTreeMap<String, Captured>> {
        let mut newest = BTreeMap::new();
        while let Ok(record) = self.next(Duration::from_secs(3), |_| true) {
            let event_type = record.header(header::EVENT_TYPE).context("a record without an event type")?.to_owned();
            newest.insert(event_type, record);
        }
        Ok(newest)
    }
}
