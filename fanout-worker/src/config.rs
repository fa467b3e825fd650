//! The configuration; keys, units and reasons are in `config/default.yaml`.

use std::{path::PathBuf, time::Duration};

use chassis::config::{Listen, Log, Shutdown};
use proto::Scope;
use serde::Deserialize;

use crate::consumer;

/// All keys with their defaults, commented.
pub const DEFAULTS: &str = include_str!("../config/default.yaml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub admin: Listen,
    pub log: Log,
    pub shutdown: Shutdown,
    pub kafka: Kafka,
    pub partition: Partition,
    pub batch: Batch,
    pub redis: Redis,
    pub sweeper: Sweeper,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    pub brokers: String,
    pub group_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub topics: Topics,
    #[serde(with = "chassis::config::duration")]
    pub session_timeout: Duration,
    #[serde(with = "chassis::config::duration")]
    pub heartbeat_interval: Duration,
    #[serde(with = "chassis::config::duration")]
    pub max_poll_interval: Duration,
    #[serde(with = "chassis::config::duration")]
    pub drain_deadline: Duration,
    #[serde(with = "chassis::config::duration")]
    pub commit_interval: Duration,
    #[serde(with = "chassis::config::duration")]
    pub statistics_interval: Duration,
    #[serde(with = "chassis::config::bytes")]
    pub prefetch_bytes: usize,
    #[serde(with = "chassis::config::duration")]
    pub dead_letter_timeout: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    pub messages: String,
    pub users: String,
    pub ephemeral: String,
    pub dead_letters: String,
}

impl Topics {
    /// The topics that are routed, each with what its key means.
    pub fn sources(&self) -> [(&str, Scope); 3] {
        [(&self.messages, Scope::Conversation), (&self.users, Scope::User), (&self.ephemeral, Scope::Ephemeral)]
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    pub queue_records: usize,
    #[serde(with = "chassis::config::bytes")]
    pub queue_bytes: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    pub records: usize,
    #[serde(with = "chassis::config::bytes")]
    pub bytes: usize,
    #[serde(with = "chassis::config::bytes")]
    pub max_record_bytes: usize,
    #[serde(with = "chassis::config::duration")]
    pub ephemeral_max_age: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: String,
    pub password_file: Option<PathBuf>,
    pub key_prefix: String,
    #[serde(with = "chassis::config::duration")]
    pub connect_timeout: Duration,
    #[serde(with = "chassis::config::duration")]
    pub response_timeout: Duration,
    #[serde(with = "chassis::config::duration")]
    pub check_interval: Duration,
    #[serde(with = "chassis::config::duration")]
    pub retry_base: Duration,
    #[serde(with = "chassis::config::duration")]
    pub retry_max: Duration,
    #[serde(with = "chassis::config::bytes")]
    pub pipeline_bytes: usize,
    pub stream_max_len: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweeper {
    #[serde(with = "chassis::config::duration")]
    pub interval: Duration,
    pub connections_per_step: usize,
    pub keys_per_step: usize,
}

impl chassis::Validate for Config {
    fn validate(&self) -> Result<(), String> {
        let (kafka, redis) = (&self.kafka, &self.redis);
        let positive = [
            ("partition.queue_records", self.partition.queue_records),
            ("batch.records", self.batch.records),
            ("batch.bytes", self.batch.bytes),
            ("redis.pipeline_bytes", redis.pipeline_bytes),
            ("redis.stream_max_len", redis.stream_max_len),
            ("sweeper.connections_per_step", self.sweeper.connections_per_step),
            ("sweeper.keys_per_step", self.sweeper.keys_per_step),
            ("kafka.drain_deadline", kafka.drain_deadline.as_millis() as usize),
            ("kafka.commit_interval", kafka.commit_interval.as_millis() as usize),
            ("kafka.statistics_interval", kafka.statistics_interval.as_millis() as usize),
            ("redis.retry_base", redis.retry_base.as_millis() as usize),
            ("redis.check_interval", redis.check_interval.as_millis() as usize),
            ("sweeper.interval", self.sweeper.interval.as_millis() as usize),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} must be above 0"));
        }
        // What Kafka takes as a group.instance.id.
        let is_name = |name: &String| {
            let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            (1..=249).contains(&name.len()) && name.chars().all(fits) && ![".", ".."].contains(&name.as_str())
        };
        if !kafka.instance_id.as_ref().is_none_or(is_name) {
            return Err("kafka.instance_id must have 1 to 249 letters (a-z, A-Z), digits, `.`, `-` or `_`".to_owned());
        }
        let relations = [
            (
                kafka.heartbeat_interval * 3 <= kafka.session_timeout,
                "kafka.heartbeat_interval must be at most a third of kafka.session_timeout",
            ),
            (
                kafka.session_timeout <= kafka.max_poll_interval,
                "kafka.session_timeout must not be above kafka.max_poll_interval",
            ),
            (
                kafka.drain_deadline * 2 <= kafka.max_poll_interval,
                "kafka.drain_deadline must be at most half of kafka.max_poll_interval: polling waits while a partition drains",
            ),
            (
                kafka.drain_deadline + consumer::LEAVE_LIMIT * 3 <= self.shutdown.grace,
                "kafka.drain_deadline must be at least 6s below shutdown.grace: a stop drains all partitions, commits, \
                 leaves the group and closes",
            ),
            (
                self.batch.max_record_bytes <= self.partition.queue_bytes,
                "batch.max_record_bytes must not be above partition.queue_bytes",
            ),
            (self.batch.bytes <= self.partition.queue_bytes, "batch.bytes must not be above partition.queue_bytes"),
            (redis.retry_base <= redis.retry_max, "redis.retry_base must not be above redis.retry_max"),
        ];
        match relations.iter().find(|(holds, _)| !holds) {
            Some((_, message)) => Err((*message).to_owned()),
            None => Ok(()),
        }
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
    use super::*;

    fn load(overrides: &[(&str, &str)]) -> Result<Config, String> {
        let env = overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        chassis::config::load(DEFAULTS, None, env).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = load(&[]).unwrap();
        assert_eq!(config.kafka.topics.sources()[0].0, proto::topics::MESSAGE_EVENTS);
        assert_eq!(config.kafka.topics.sources()[1].0, proto::topics::USER_EVENTS);
        assert_eq!(config.kafka.topics.sources()[2].0, proto::topics::EPHEMERAL_EVENTS);
        assert_eq!(config.kafka.topics.dead_letters, proto::topics::DEAD_LETTERS);
    }

    #[test]
    fn a_broken_relation_names_both_keys() {
        let message = load(&[("SWITCHBOARD__KAFKA__DRAIN_DEADLINE", "17s")]).unwrap_err();
        assert!(message.contains("kafka.drain_deadline") && message.contains("shutdown.grace"), "{message}");
        let message = load(&[("SWITCHBOARD__KAFKA__HEARTBEAT_INTERVAL", "5s")]).unwrap_err();
        assert!(message.contains("kafka.heartbeat_interval") && message.contains("kafka.session_timeout"), "{message}");
        assert_eq!(load(&[("SWITCHBOARD__BATCH__RECORDS", "0")]).unwrap_err(), "batch.records must be above 0");
    }

    #[test]
    fn a_name_in_the_group_is_one_that_kafka_takes() {
        let named = |name: &str| load(&[("SWITCHBOARD__KAFKA__INSTANCE_ID", name)]);
        assert_eq!(named("fanout-worker-1").unwrap().kafka.instance_id.as_deref(), Some("fanout-worker-1"));
        for name in ["a b", "a/b", "..", &"x".repeat(250)] {
            assert!(named(name).unwrap_err().contains("kafka.instance_id"), "{name}");
        }
    }
}
