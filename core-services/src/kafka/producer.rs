//! Unsequenced events: typing, and connections that come and go. Best effort: dropped when the queue is full.

use std::time::Duration;

use anyhow::Context as _;
use proto::{
    ConversationId, Envelope, EventType, UserId,
    event::TypingData,
    topics::{CONNECTION_EVENTS, EPHEMERAL_EVENTS, header},
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use serde::Serialize;
use serde_json::json;
use tracing::debug;

use crate::{config, connection::Connection, metrics::Metrics, outbox::envelope};

/// Clients show somebody as typing for this long.
const TYPING_EXPIRES_MS: u64 = 6000;
/// An event that the broker has not taken by then is of no use any more.
const MESSAGE_TIMEOUT_MS: &str = "5000";

/// The producer. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    inner: std::sync::Arc<ThreadedProducer<DefaultProducerContext>>,
    metrics: Metrics,
}

impl Producer {
    pub fn new(config: &config::Kafka, metrics: Metrics) -> anyhow::Result<Self> {
        let inner = ClientConfig::new()
            .set("bootstrap.servers", &config.brokers)
            // As Java's producers do, who write to topics of the same keys.
            .set("partitioner", "murmur2_random")
            .set("acks", "1")
            .set("linger.ms", "2")
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
            .set("queue.buffering.max.messages", config.queue_records.to_string())
            .create()
            .context("kafka.brokers")?;
        Ok(Self { inner: std::sync::Arc::new(inner), metrics })
    }

    /// Whether a broker answers. Blocks up to `timeout`.
    pub fn check(&self, timeout: Duration) -> Result<(), rdkafka::error::KafkaError> {
        self.inner.client().fetch_metadata(Some(EPHEMERAL_EVENTS), timeout).map(drop)
    }

    /// Somebody types in a conversation.
    pub fn typing(&self, conversation: ConversationId, user: UserId, epoch: i64) {
        let data = TypingData { user_id: user, expires_in_ms: TYPING_EXPIRES_MS };
        let envelope = envelope(EventType::Typing, epoch, user, crate::now(), data);
        let envelope = Envelope { conversation_id: Some(conversation), ..envelope };
        self.send(EPHEMERAL_EVENTS, conversation.0, &envelope);
    }

    /// A connection came (CONNECTED) or went (DISCONNECTED).
    pub fn connection(&self, event_type: EventType, connection: &Connection, epoch: i64) {
        let data = json!({
            "connection_id": connection.connection_id,
            "gateway_id": connection.gateway_id,
            "incarnation": connection.incarnation,
            "device_id": connection.device_id,
            "workspace_id": connection.workspace_id,
        });
        let envelope = envelope(event_type, epoch, connection.user_id, crate::now(), data);
        let envelope = Envelope { user_id: Some(connection.user_id), ..envelope };
        self.send(CONNECTION_EVENTS, connection.user_id.0, &envelope);
    }

    fn send<D: Serialize>(&self, topic: &'static str, key: i64, envelope: &Envelope<D>) {
        let payload = serde_json::to_string(envelope).expect("an envelope has text keys only, so it serialises");
        let (key, epoch) = (key.to_string(), envelope.epoch.to_string());
        let conversation = envelope.conversation_id.map(|id| id.to_string());
        let actor = envelope.actor_id.map(|id| id.to_string());
        let subject = envelope.user_id.map(|id| id.to_string());
        let fields = [
            (header::ID, Some(envelope.event_id.as_str())),
            (header::EVENT_TYPE, Some(envelope.event_type.as_str())),
            (header::EPOCH, Some(epoch.as_str())),
            (header::CONVERSATION_ID, conversation.as_deref()),
            (header::ACTOR_ID, actor.as_deref()),
            (header::SUBJECT_ID, subject.as_deref()),
        ];
        let headers = fields
            .into_iter()
            .filter(|(_, value)| value.is_some())
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value }));
        let record = BaseRecord::to(topic).key(&key).payload(&payload).headers(headers);
        if let Err((error, _)) = self.inner.send(record) {
            self.metrics.ephemeral_dropped.inc();
            debug!(kafka.topic = topic, %error, "an unsequenced event was dropped");
        }
    }
}
