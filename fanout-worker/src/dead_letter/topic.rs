//! Reading the dead-letter topic outside of any consumer group, from its beginning to its end of now.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{BorrowedMessage, Message as _, OwnedMessage},
};

use crate::{config, kafka_log::KafkaLog};

/// One request to the broker, and the longest silence while records are expected.
const PATIENCE: Duration = Duration::from_secs(10);

/// Cheap to clone; one reads at a time.
#[derive(Clone)]
pub struct Topic {
    consumer: Arc<BaseConsumer<KafkaLog>>,
    name: String,
    partitions: BTreeSet<i32>,
}

impl Topic {
    pub async fn open(config: &config::Kafka) -> Result<Self> {
        let name = config.topics.dead_letters.clone();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &config.brokers).set("client.id", &config.client_id);
        // Named because it has to be; nothing is committed.
        client.set("group.id", format!("{}-dead-letters", config.group_id)).set("enable.auto.commit", "false");
        client.set("enable.partition.eof", "true").set("allow.auto.create.topics", "false");
        blocking(move || {
            let consumer: BaseConsumer<KafkaLog> =
                client.create_with_context(KafkaLog).context("the Kafka consumer")?;
            let metadata = consumer.fetch_metadata(Some(&name), PATIENCE).context("asking Kafka")?;
            let partitions: BTreeSet<i32> = metadata
                .topics()
                .iter()
                .filter(|topic| topic.name() == name && topic.error().is_none())
                .flat_map(|topic| topic.partitions().iter().map(|partition| partition.id()))
                .collect();
            ensure!(
                !partitions.is_empty(),
                "there is no topic {name}: kafka.topics.dead_letters names it, core makes it"
            );
            Ok(Self { consumer: Arc::new(consumer), name, partitions })
        })
        .await
    }

    /// What `read` makes of each record; those of a partition come in their order.
    pub async fn read_all<T: Send + 'static>(
        &self,
        mut read: impl FnMut(&BorrowedMessage<'_>) -> T + Send + 'static,
    ) -> Result<Vec<T>> {
        let topic = self.clone();
        blocking(move || {
            let mut list = TopicPartitionList::new();
            for partition in &topic.partitions {
                list.add_partition_offset(&topic.name, *partition, Offset::Beginning)?;
            }
            topic.consumer.assign(&list)?;
            let (mut unfinished, mut all) = (topic.partitions.clone(), Vec::new());
            while !unfinished.is_empty() {
                match topic.poll()? {
                    Polled::Record(record) => all.push(read(&record)),
                    Polled::End(partition) => {
                        unfinished.remove(&partition);
                    }
                }
            }
            Ok(all)
        })
        .await
    }

    /// The record at a position.
    pub async fn fetch(&self, partition: i32, offset: i64) -> Result<OwnedMessage> {
        let topic = self.clone();
        blocking(move || {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic.name, partition, Offset::Offset(offset))?;
            topic.consumer.assign(&list)?;
            match topic.poll()? {
                Polled::Record(record) if record.offset() == offset => Ok(record.detach()),
                _ => bail!("{}[{partition}]@{offset} is not there any more", topic.name),
            }
        })
        .await
    }

    fn poll(&self) -> Result<Polled<'_>> {
        match self.consumer.poll(PATIENCE) {
            Some(Ok(record)) => Ok(Polled::Record(record)),
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Polled::End(partition)),
            Some(Err(error)) => Err(error).with_context(|| format!("reading {}", self.name)),
            None => bail!("reading {}: Kafka sent nothing for {} s", self.name, PATIENCE.as_secs()),
        }
    }
}

enum Polled<'a> {
    Record(BorrowedMessage<'a>),
    End(i32),
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("reading the dead letters panicked")?
}
