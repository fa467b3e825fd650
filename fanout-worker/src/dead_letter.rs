//! Records that can't be routed: written as they came to the dead-letter topic, with where they stood and what was
//! wrong, and acknowledged by the broker before the partition goes on. [`command`] looks at them and sends them again.

pub mod command;
mod content;
mod letter;
mod topic;

use std::time::Duration;

use chassis::Backoff;
use chrono::Utc;
use content::Content;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord},
};
use tracing::{error, warn};

use crate::{
    config,
    kafka_log::KafkaLog,
    metrics::{Metrics, ReasonLabel},
    polled::{Poison, Polled},
};

/// librdkafka's own bound; the broker's, which is lower, decides.
const CLIENT_MAX_BYTES: &str = "100000000";

/// Writes dead letters. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetters {
    producer: FutureProducer<KafkaLog>,
    topic: String,
    backoff: Backoff,
    metrics: Metrics,
}

impl DeadLetters {
    pub fn new(config: &config::Kafka, backoff: Backoff, metrics: Metrics) -> Result<Self, KafkaError> {
        Ok(Self { producer: producer(config)?, topic: config.topics.dead_letters.clone(), backoff, metrics })
    }

    /// Writes `record` and returns once the broker has acknowledged it; tries for as long as it takes.
    pub async fn bury(&self, topic: &str, partition: i32, record: &Polled, poison: &Poison) {
        let mut backoff = self.backoff.clone();
        let mut content = Content::of(record);
        while let Err(failure) = self.write(topic, partition, record.offset, &content, poison).await {
            if failure.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
                && let Some(part) = content.omit()
            {
                // The original still stands at the position that the headers name.
                warn!(
                    kafka.topic = topic,
                    kafka.partition = partition,
                    kafka.offset = record.offset,
                    "the dead letter is larger than its topic allows; written without its {part}"
                );
                continue;
            }
            error!(kafka.topic = self.topic, error = %failure, "a dead letter could not be written; its partition waits");
            tokio::time::sleep(backoff.next_delay()).await;
        }
        self.metrics.dead_letters.get_or_create(&ReasonLabel { reason: poison.reason() }).inc();
        warn!(
            kafka.topic = topic,
            kafka.partition = partition,
            kafka.offset = record.offset,
            reason = poison.reason(),
            error = poison.text(),
            "a record can't be routed; it is a dead letter now"
        );
    }

    async fn write(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        content: &Content<'_>,
        poison: &Poison,
    ) -> Result<(), KafkaError> {
        let at = proto::event::format_time(Utc::now());
        let headers = content.headers(topic, partition, offset, poison, &at);
        let mut letter = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        letter.key = content.key;
        letter.payload = content.payload;
        self.producer.send(letter, Duration::ZERO).await.map(|_| ()).map_err(|(failure, _)| failure)
    }
}

fn producer(config: &config::Kafka) -> Result<FutureProducer<KafkaLog>, KafkaError> {
    ClientConfig::new()
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", &config.client_id)
        .set("acks", "all")
        .set("message.timeout.ms", config.dead_letter_timeout.as_millis().to_string())
        .set("message.max.bytes", CLIENT_MAX_BYTES)
        // The partitioner of the Java clients: a key's records stand where its other ones do.
        .set("partitioner", "murmur2_random")
        .create_with_context(KafkaLog)
}
