//! An entry of a gateway's Redis stream: the routing fields and the unread payload.

use std::str;

use bytes::Bytes;

use crate::record::Routing;

/// Field names.
pub mod field {
    pub const SCOPE: &str = "scope";
    pub const KEY: &str = "key";
    pub const TYPE: &str = "type";
    pub const EVENT_ID: &str = "event_id";
    pub const CONVERSATION_ID: &str = "conversation_id";
    pub const SEQ: &str = "seq";
    pub const EPOCH: &str = "epoch";
    pub const ACTOR_ID: &str = "actor_id";
    pub const SUBJECT_ID: &str = "subject_id";
    pub const TARGET_SEQ: &str = "target_seq";
    pub const USER_SEQ: &str = "user_seq";
    pub const TRACEPARENT: &str = "traceparent";
    /// When the broker appended the record, milliseconds since the Unix epoch.
    pub const KAFKA_MS: &str = "kafka_ms";
    /// When the worker took the record, microseconds since the Unix epoch.
    pub const WORKER_US: &str = "worker_us";
    pub const PAYLOAD: &str = "payload";
}

/// Which topic an entry came from, and so what its key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A sequenced event; the key is the conversation.
    Conversation,
    /// An event of a person; the key is the user.
    User,
    /// An unsequenced event; the key is the conversation.
    Ephemeral,
}

impl Scope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Conversation => "conversation",
            Scope::User => "user",
            Scope::Ephemeral => "ephemeral",
        }
    }
}

/// An entry as the worker writes it and the gateway reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    pub scope: Scope,
    pub key: i64,
    pub routing: Routing,
    pub payload: Bytes,
    pub kafka_ms: i64,
    pub worker_us: i64,
}

/// Why an entry can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StreamEntryError {
    #[error("the field {0:?} is missing")]
    Missing(&'static str),
    #[error("the field {name:?} is {value:?}")]
    Bad { name: String, value: String },
}

impl StreamEntry {
    /// Calls `put` with each field that has a value, payload last.
    pub fn encode(&self, mut put: impl FnMut(&'static str, &[u8])) {
        let r = &self.routing;
        put(field::SCOPE, self.scope.as_str().as_bytes());
        put(field::KEY, self.key.to_string().as_bytes());
        put(field::TYPE, r.event_type.as_bytes());
        put(field::EVENT_ID, r.event_id.as_bytes());
        put(field::EPOCH, r.epoch.to_string().as_bytes());
        let numbers = [
            (field::CONVERSATION_ID, r.conversation_id),
            (field::SEQ, r.seq),
            (field::ACTOR_ID, r.actor_id),
            (field::SUBJECT_ID, r.subject_id),
            (field::TARGET_SEQ, r.target_seq),
            (field::USER_SEQ, r.user_seq),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                put(name, value.to_string().as_bytes());
            }
        }
        if let Some(traceparent) = &r.traceparent {
            put(field::TRACEPARENT, traceparent.as_bytes());
        }
        put(field::KAFKA_MS, self.kafka_ms.to_string().as_bytes());
        put(field::WORKER_US, self.worker_us.to_string().as_bytes());
        put(field::PAYLOAD, &self.payload);
    }

    /// Reads an entry's fields; unknown ones are ignored, so that workers may be newer than gateways.
    pub fn decode(fields: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Self, StreamEntryError> {
        let mut scope = None;
        let mut key = None;
        let mut epoch = None;
        let mut payload = None;
        let mut routing = Routing::default();
        let (mut kafka_ms, mut worker_us) = (0, 0);
        for (name, value) in fields {
            let name = str::from_utf8(&name).unwrap_or_default();
            match name {
                field::SCOPE => {
                    scope = Some(match &value[..] {
                        b"conversation" => Scope::Conversation,
                        b"user" => Scope::User,
                        b"ephemeral" => Scope::Ephemeral,
                        _ => return Err(bad(name, &value)),
                    });
                }
                field::KEY => key = Some(number(name, &value)?),
                field::TYPE => routing.event_type = text(name, &value)?,
                field::EVENT_ID => routing.event_id = text(name, &value)?,
                field::EPOCH => epoch = Some(number(name, &value)?),
                field::CONVERSATION_ID => routing.conversation_id = Some(number(name, &value)?),
                field::SEQ => routing.seq = Some(number(name, &value)?),
                field::ACTOR_ID => routing.actor_id = Some(number(name, &value)?),
                field::SUBJECT_ID => routing.subject_id = Some(number(name, &value)?),
                field::TARGET_SEQ => routing.target_seq = Some(number(name, &value)?),
                field::USER_SEQ => routing.user_seq = Some(number(name, &value)?),
                field::TRACEPARENT => routing.traceparent = Some(text(name, &value)?),
                field::KAFKA_MS => kafka_ms = number(name, &value)?,
                field::WORKER_US => worker_us = number(name, &value)?,
                field::PAYLOAD => payload = Some(value),
                _ => {}
            }
        }
        if routing.event_type.is_empty() {
            return Err(StreamEntryError::Missing(field::TYPE));
        }
        routing.epoch = epoch.ok_or(StreamEntryError::Missing(field::EPOCH))?;
        Ok(Self {
            scope: scope.ok_or(StreamEntryError::Missing(field::SCOPE))?,
            key: key.ok_or(StreamEntryError::Missing(field::KEY))?,
            routing,
            payload: payload.ok_or(StreamEntryError::Missing(field::PAYLOAD))?,
            kafka_ms,
            worker_us,
        })
    }
}

fn bad(name: &str, value: &[u8]) -> StreamEntryError {
    StreamEntryError::Bad { name: name.to_owned(), value: String::from_utf8_lossy(value).into_owned() }
}

fn text(name: &str, value: &[u8]) -> Result<String, StreamEntryError> {
    str::from_utf8(value).map(str::to_owned).map_err(|_| bad(name, value))
}

fn number(name: &str, value: &[u8]) -> Result<i64, StreamEntryError> {
    str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(|| bad(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> StreamEntry {
        StreamEntry {
            scope: Scope::Conversation,
            key: 42,
            routing: Routing {
                event_id: "e-1".into(),
                event_type: "MESSAGE".into(),
                epoch: 1,
                conversation_id: Some(42),
                seq: Some(7),
                actor_id: Some(5),
                ..Routing::default()
            },
            payload: Bytes::from_static(b"{\"type\":\"MESSAGE\"}"),
            kafka_ms: 1_700_000_000_000,
            worker_us: 1_700_000_000_000_001,
        }
    }

    fn fields(entry: &StreamEntry) -> Vec<(Bytes, Bytes)> {
        let mut out = Vec::new();
        entry.encode(|name, value| out.push((Bytes::from_static(name.as_bytes()), Bytes::copy_from_slice(value))));
        out
    }

    #[test]
    fn an_entry_is_read_back_as_it_was_written() {
        assert_eq!(StreamEntry::decode(fields(&entry())).unwrap(), entry());
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_ones_named() {
        let mut more = fields(&entry());
        more.push((Bytes::from_static(b"later"), Bytes::from_static(b"x")));
        assert_eq!(StreamEntry::decode(more).unwrap(), entry());
        let less: Vec<_> = fields(&entry()).into_iter().filter(|(name, _)| name != "payload").collect();
        assert_eq!(StreamEntry::decode(less), Err(StreamEntryError::Missing("payload")));
    }
}
