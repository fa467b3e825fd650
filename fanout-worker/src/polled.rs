//! A record as it was polled, copied out of librdkafka's buffer, and its decoding.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use proto::{Record, RecordError, Scope, StreamEntry};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, OwnedHeaders};

/// A record on its way to the executor of its partition.
#[derive(Clone, Debug)]
pub struct Polled {
    pub offset: i64,
    /// When the broker appended it (or the producer made it), milliseconds since the Unix epoch.
    pub kafka_ms: i64,
    /// When this worker took it, microseconds since the Unix epoch.
    pub taken_us: i64,
    pub key: Option<Bytes>,
    pub headers: Option<OwnedHeaders>,
    pub payload: Option<Bytes>,
}

/// Why a record can't be routed and becomes a dead letter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Poison {
    #[error(transparent)]
    Undecodable(#[from] RecordError),
    #[error("key and value have {size} bytes, more than batch.max_record_bytes ({limit})")]
    TooLarge { size: usize, limit: usize },
    #[error("the name of a header is no UTF-8")]
    HeaderName,
}

impl Poison {
    /// One stable word, for the dead-letter header and for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Poison::Undecodable(error) => error.reason(),
            Poison::TooLarge { .. } => "too_large",
            Poison::HeaderName => "bad_header",
        }
    }
}

impl Polled {
    pub fn copy_of(message: &BorrowedMessage<'_>, taken_us: i64) -> Self {
        Self {
            offset: message.offset(),
            kafka_ms: message.timestamp().to_millis().unwrap_or(0),
            taken_us,
            key: message.key().map(Bytes::copy_from_slice),
            headers: message.headers().map(|headers| headers.detach()),
            payload: message.payload().map(Bytes::copy_from_slice),
        }
    }

    /// Bytes of key and value: what limits count.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.as_ref().map_or(0, Bytes::len)
    }

    /// Decodes key and headers into what a gateway's stream takes; the value stays unread.
    pub fn decode(&self, scope: Scope, max_bytes: usize) -> Result<StreamEntry, Poison> {
        if self.size() > max_bytes {
            return Err(Poison::TooLarge { size: self.size(), limit: max_bytes });
        }
        // rdkafka panics on a header whose name is no UTF-8, and anybody who may write to the topic can send one.
        let record = catch_unwind(AssertUnwindSafe(|| {
            let headers = self.headers.iter().flat_map(|headers| headers.iter());
            Record::decode(self.key.as_deref(), headers.map(|header| (header.key, header.value)), self.payload.clone())
        }))
        .map_err(|_| Poison::HeaderName)??;
        Ok(StreamEntry {
            scope,
            key: record.key,
            routing: record.routing,
            payload: record.payload,
            kafka_ms: self.kafka_ms,
            worker_us: self.taken_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Header;

    use super::*;

    fn polled(headers: &[(&str, &str)]) -> Polled {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        Polled {
            offset: 3,
            kafka_ms: 5,
            taken_us: 7000,
            key: Some(Bytes::from_static(b"42")),
            headers: Some(headers),
            payload: Some(Bytes::from_static(b"{}")),
        }
    }

    #[test]
    fn a_record_without_seq_is_routed_by_its_key() {
        let typing = polled(&[("id", "e"), ("eventType", "TYPING"), ("epoch", "1")]);
        let entry = typing.decode(Scope::Ephemeral, 1024).unwrap();
        assert_eq!((entry.key, entry.kafka_ms, entry.worker_us, entry.routing.seq), (42, 5, 7000, None));
    }

    #[test]
    fn a_record_that_is_too_large_is_poison_before_it_is_read() {
        assert_eq!(polled(&[]).decode(Scope::User, 3), Err(Poison::TooLarge { size: 4, limit: 3 }));
        assert_eq!(polled(&[]).decode(Scope::User, 4).unwrap_err().reason(), "missing_header");
    }
}
