//! The configuration; `config/default.yaml` documents every key.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chassis::config::{Listen, Log, Shutdown, bytes, duration};
use serde::Deserialize;

/// The largest record that the connector's producer and the broker take: the defaults of Kafka's `max.request.size`
/// (1048576) and `max.message.bytes`. A larger one stops the connector, and with it all delivery.
const MAX_RECORD: usize = 1 << 20;
/// A control character is one byte of text and six of JSON (`\u0001`); nothing grows more.
const JSON_BYTES_OF_A_BYTE: usize = 6;
/// What a record has beside the text: the rest of the envelope, key and headers.
const RECORD_WITHOUT_TEXT: usize = 8 << 10;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub admin: Listen,
    pub log: Log,
    pub shutdown: Shutdown,
    pub mysql: MySql,
    pub redis: Redis,
    pub kafka: Kafka,
    pub auth: Auth,
    pub messages: Messages,
    pub conversations: Conversations,
    pub connections: Connections,
    pub ids: Ids,
    pub outbox: Outbox,
    pub import: Import,
    pub hops: Hops,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    pub max_concurrent_streams: u32,
    #[serde(with = "bytes")]
    pub stream_window: usize,
    #[serde(with = "bytes")]
    pub connection_window: usize,
    #[serde(with = "duration")]
    pub keepalive_interval: Duration,
    #[serde(with = "duration")]
    pub keepalive_timeout: Duration,
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    #[serde(with = "bytes")]
    pub max_body: usize,
    pub gateway_urls: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MySql {
    pub url: String,
    pub password_file: Option<PathBuf>,
    pub max_connections: u32,
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
    #[serde(with = "duration")]
    pub session_timeout: Duration,
    #[serde(with = "duration")]
    pub lock_wait_timeout: Duration,
    #[serde(with = "duration")]
    pub response_timeout: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: String,
    pub key_prefix: String,
    #[serde(with = "duration")]
    pub timeout: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    pub brokers: String,
    pub partitions: i32,
    pub replication_factor: i32,
    pub queue_records: u32,
    #[serde(with = "duration")]
    pub ephemeral_retention: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub issuer: String,
    pub key_dir: PathBuf,
    #[serde(with = "duration")]
    pub access_token_ttl: Duration,
    #[serde(with = "duration")]
    pub refresh_token_ttl: Duration,
    pub hashes_at_once: usize,
    pub service_clients: Vec<ServiceClient>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceClient {
    pub client_id: String,
    pub secret_file: PathBuf,
    pub scopes: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Messages {
    #[serde(with = "bytes")]
    pub max_body: usize,
    pub writers: usize,
    pub max_batch: usize,
    #[serde(with = "bytes")]
    pub max_batch_bytes: usize,
    pub pace: Pace,
    pub writer_queue: usize,
    pub max_in_flight: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    #[serde(with = "duration")]
    pub interval: Duration,
    pub from_messages: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversations {
    pub max_group_members: usize,
    pub max_added: usize,
    pub max_name: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    pub max_per_user: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    #[serde(with = "duration")]
    pub lease: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbox {
    pub partitions: Partitions,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partitions {
    #[serde(with = "duration")]
    pub interval: Duration,
    #[serde(with = "duration")]
    pub width: Duration,
    #[serde(with = "duration")]
    pub ahead: Duration,
    #[serde(with = "duration")]
    pub retention: Duration,
    pub max: usize,
    #[serde(with = "duration")]
    pub lock_timeout: Duration,
    pub consumer_groups: Vec<String>,
    #[serde(with = "duration")]
    pub guard_timeout: Duration,
}

impl Partitions {
    fn validate(&self) -> Result<(), String> {
        if self.width < Duration::from_secs(60) {
            return Err("outbox.partitions.width must be at least 1m".into());
        }
        if self.lock_timeout.as_secs() == 0 {
            return Err("outbox.partitions.lock_timeout must be at least 1s: the server counts whole seconds".into());
        }
        if self.interval.is_zero() || self.interval > self.ahead {
            return Err("outbox.partitions.interval must be above 0, and at most outbox.partitions.ahead".into());
        }
        // Those of the window, the one that leaves it, today's, those ahead, the catch-all.
        let needed = (self.retention + self.ahead).as_secs() / self.width.as_secs() + 4;
        if needed > self.max as u64 {
            return Err(format!(
                "outbox.partitions.max is {}, but outbox.partitions.retention and .ahead need {needed} partitions of \
                 outbox.partitions.width: make them wider",
                self.max
            ));
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    pub batch: usize,
    #[serde(with = "bytes")]
    pub max_line: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hops {
    pub capacity: usize,
}

impl chassis::Validate for Config {
    fn validate(&self) -> Result<(), String> {
        let positive = [
            ("messages.writers", self.messages.writers),
            ("messages.max_batch", self.messages.max_batch),
            ("messages.max_batch_bytes", self.messages.max_batch_bytes),
            ("messages.pace.from_messages", self.messages.pace.from_messages as usize),
            ("messages.writer_queue", self.messages.writer_queue),
            ("messages.max_in_flight", self.messages.max_in_flight),
            ("messages.max_body", self.messages.max_body),
            ("auth.hashes_at_once", self.auth.hashes_at_once),
            ("mysql.max_connections", self.mysql.max_connections as usize),
            ("conversations.max_added", self.conversations.max_added),
            ("import.batch", self.import.batch),
            ("import.max_line", self.import.max_line),
            ("connections.max_per_user", self.connections.max_per_user),
            ("server.max_concurrent_streams", self.server.max_concurrent_streams as usize),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} must be above 0"));
        }
        if self.mysql.lock_wait_timeout.as_secs() == 0 {
            return Err("mysql.lock_wait_timeout must be at least 1s: the server counts whole seconds".into());
        }
        let mysql = &self.mysql;
        if mysql.response_timeout < mysql.lock_wait_timeout * 2 || mysql.response_timeout > mysql.session_timeout {
            return Err("mysql.response_timeout must be at least twice mysql.lock_wait_timeout, and at most \
                        mysql.session_timeout"
                .into());
        }
        if self.mysql.session_timeout < self.mysql.lock_wait_timeout * 2 {
            return Err("mysql.session_timeout must be at least twice mysql.lock_wait_timeout".into());
        }
        if self.messages.max_body > self.server.max_body {
            return Err("messages.max_body must not be above server.max_body".into());
        }
        let max_body = (MAX_RECORD - RECORD_WITHOUT_TEXT) / JSON_BYTES_OF_A_BYTE;
        if self.messages.max_body > max_body {
            return Err(format!(
                "messages.max_body must be at most {max_body} bytes: a text may become six times as long in JSON, and \
                 its record must fit into 1MiB, Kafka's max.request.size"
            ));
        }
        if self.server.drain_timeout >= self.shutdown.grace {
            return Err("shutdown.grace must be longer than server.drain_timeout: writers end after connections".into());
        }
        if self.messages.pace.interval > Duration::from_secs(1) {
            return Err("messages.pace.interval must be at most 1s: senders wait for it".into());
        }
        // A text may become six times as long in JSON and twice that in SQL; the server takes 64 MiB at once.
        if self.messages.max_batch_bytes > 4 << 20 {
            return Err("messages.max_batch_bytes must be at most 4MiB: the server must take the batch at once".into());
        }
        // Longer lists are worse for everybody who waits for a row.
        if self.messages.max_batch > 1024 {
            return Err("messages.max_batch must be at most 1024".into());
        }
        if self.import.batch > 1024 {
            return Err("import.batch must be at most 1024".into());
        }
        if self.conversations.max_name > 128 {
            return Err("conversations.max_name must be at most 128: the column holds no more".into());
        }
        self.outbox.partitions.validate()?;
        // The design's limit for one call; events are one a member.
        if self.conversations.max_added > 100 {
            return Err("conversations.max_added must be at most 100".into());
        }
        Ok(())
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}

#[cfg(test)]
mod tests {
    use proto::{MessageId, UserId, event::MessageData};

    use super::*;

    fn load(env: &[(&str, &str)]) -> Result<Config, String> {
        let env = env.iter().map(|(name, value)| (format!("SWITCHBOARD__{name}"), (*value).to_owned()));
        chassis::config::load(include_str!("../config/default.yaml"), None, env).map_err(|error| error.to_string())
    }

    #[test]
    fn the_commented_defaults_are_valid() {
        load(&[]).unwrap();
    }

    #[test]
    fn texts_that_could_make_a_record_too_large_for_kafka_are_not_allowed() {
        let of = |max_body: &str| load(&[("MESSAGES__MAX_BODY", max_body)]);
        assert_eq!(of("169KiB").unwrap().messages.max_body, 169 << 10);
        for max_body in ["170KiB", "1MiB"] {
            let refused = of(max_body).unwrap_err();
            assert!(refused.contains("messages.max_body") && refused.contains("max.request.size"), "{refused}");
        }
        assert!(of("2MiB").unwrap_err().contains("server.max_body"));
    }

    #[test]
    fn the_worst_text_that_may_be_allowed_leaves_room_for_key_and_headers() {
        let data = MessageData {
            message_id: MessageId(i64::MAX),
            message_no: i64::MAX,
            kind: "text".to_owned(),
            body: "\u{1}".repeat((MAX_RECORD - RECORD_WITHOUT_TEXT) / JSON_BYTES_OF_A_BYTE),
            client_message_id: "\u{1}".repeat(128),
            thread_root_id: Some(MessageId(i64::MAX)),
            mentions: Vec::new(),
            attachments: Vec::new(),
            deleted: false,
        };
        let envelope = crate::outbox::envelope(proto::EventType::Message, 1, UserId(i64::MAX), crate::now(), data);
        let value = serde_json::to_string(&envelope).unwrap();
        assert!(value.len() < MAX_RECORD - RECORD_WITHOUT_TEXT / 2, "{}", value.len());
    }
}
