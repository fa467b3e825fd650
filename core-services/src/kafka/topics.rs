//! The topics: made when they are missing, checked when they are there.

use std::time::Duration;

use proto::topics::{CANARY_EVENTS, CONNECTION_EVENTS, DEAD_LETTERS, EPHEMERAL_EVENTS, MESSAGE_EVENTS, USER_EVENTS};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::KafkaError,
    types::RDKafkaErrorCode,
};
use tracing::info;

use crate::config;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the topics are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    #[error("Kafka does not answer: {0}")]
    Away(#[from] KafkaError),
    #[error("the topic {topic} could not be made: {error}")]
    NotMade { topic: String, error: RDKafkaErrorCode },
    /// Keys would move between partitions: nothing that time heals.
    #[error(
        "the topic {topic} has {is} partitions, kafka.partitions says {wanted}: set it right, or make a new topic and \
         raise the epoch"
    )]
    Partitions { topic: String, is: usize, wanted: i32 },
}

/// Makes what is missing, and checks what is there.
pub async fn ensure(config: &config::Kafka) -> Result<(), TopicsError> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create()?;
    let retention_ms = config.ephemeral_retention.as_millis().to_string();
    let topics = [MESSAGE_EVENTS, USER_EVENTS, CONNECTION_EVENTS, EPHEMERAL_EVENTS, DEAD_LETTERS, CANARY_EVENTS];
    let wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|name| {
            let topic =
                NewTopic::new(name, partitions(config, name), TopicReplication::Fixed(config.replication_factor));
            // The broker's time: how long a record waits on its way is measured from it.
            let topic = topic.set("message.timestamp.type", "LogAppendTime");
            if *name == EPHEMERAL_EVENTS { topic.set("retention.ms", &retention_ms) } else { topic }
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    for made in admin.create_topics(&wanted, &options).await? {
        match made {
            Ok(topic) => info!(kafka.topic = topic, "made a topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => return Err(TopicsError::NotMade { topic, error }),
        }
    }
    let config = config.clone();
    tokio::task::spawn_blocking(move || check(&admin, &config)).await.expect("the check does not panic")
}

fn partitions(config: &config::Kafka, topic: &str) -> i32 {
    if topic == CANARY_EVENTS { 1 } else { config.partitions }
}

/// Blocks.
fn check(admin: &AdminClient<DefaultClientContext>, config: &config::Kafka) -> Result<(), TopicsError> {
    let metadata = admin.inner().fetch_metadata(None, TIMEOUT)?;
    for topic in metadata.topics() {
        let known = [MESSAGE_EVENTS, USER_EVENTS, CONNECTION_EVENTS, EPHEMERAL_EVENTS, DEAD_LETTERS, CANARY_EVENTS];
        if known.contains(&topic.name()) {
            let (is, wanted) = (topic.partitions().len(), partitions(config, topic.name()));
            if i32::try_from(is) != Ok(wanted) {
                return Err(TopicsError::Partitions { topic: topic.name().to_owned(), is, wanted });
            }
        }
    }
    Ok(())
}
