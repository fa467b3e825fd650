//! What the workers' consumer group has not stored as done.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

use super::{Sources, TruthRecord};

/// How long one request to the broker may take.
const REQUEST: Duration = Duration::from_secs(10);

pub async fn read(sources: &Sources) -> Result<Vec<TruthRecord>> {
    let sources = sources.clone();
    tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &sources.kafka).set("group.id", &sources.group);
        // It only asks; it never joins the group.
        config.set("enable.auto.commit", "false").set("allow.auto.create.topics", "false");
        let consumer: BaseConsumer = config.create()?;
        let of = |topic: &String| Ok(TruthRecord::Lag { topic: topic.clone(), records: lag(&consumer, topic)? });
        sources.topics.iter().map(of).collect()
    })
    .await?
}

/// Over all partitions; of one without a stored offset all records count.
fn lag(consumer: &BaseConsumer, topic: &str) -> Result<i64> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && !found.partitions().is_empty());
    let mut asked = TopicPartitionList::new();
    for partition in found.with_context(|| format!("the topic {topic} does not exist"))?.partitions() {
        asked.add_partition(topic, partition.id());
    }
    let mut lag = 0;
    for stored in consumer.committed_offsets(asked, REQUEST)?.elements() {
        let (low, high) = consumer.fetch_watermarks(topic, stored.partition(), REQUEST)?;
        lag += match stored.offset() {
            Offset::Offset(offset) => high - offset.max(low),
            _ => high - low,
        };
    }
    Ok(lag)
}
