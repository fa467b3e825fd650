//! A record as it was polled, copied out of librdkafka's buffer, and its decoding.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use proto::{Record, RecordError, Scope, StreamEntry};
use rdkafka::message::{BorrowedMessage, Headers, Message as _, OwnedHeaders};

/// Bytes of a fault's text, which may repeat a key or the value of a header.
pub const MAX_TEXT: usize = 1024;

/// What headers count for that can't be read: as much as a topic takes by default.
const UNREADABLE_HEADERS: usize = 1024 * 1024;

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
    /// See [`header_bytes`].
    pub header_bytes: Option<usize>,
    pub payload: Option<Bytes>,
}

/// Why a record can't be routed and becomes a dead letter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Poison {
    #[error(transparent)]
    Undecodable(#[from] RecordError),
    #[error("key, headers and value have {size} bytes, more than batch.max_record_bytes ({limit})")]
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

    /// For people: at most [`MAX_TEXT`] bytes.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        if text.len() > MAX_TEXT {
            text.truncate(text.floor_char_boundary(MAX_TEXT - '…'.len_utf8()));
            text.push('…');
        }
        text
    }
}

impl Polled {
    pub fn copy_of(message: &BorrowedMessage<'_>, taken_us: i64) -> Self {
        let headers = message.headers();
        Self {
            offset: message.offset(),
            kafka_ms: message.timestamp().to_millis().unwrap_or(0),
            taken_us,
            key: message.key().map(Bytes::copy_from_slice),
            header_bytes: headers.map_or(Some(0), header_bytes),
            headers: headers.map(|headers| headers.detach()),
            payload: message.payload().map(Bytes::copy_from_slice),
        }
    }

    /// Bytes of key, headers and value: what limits count.
    pub fn size(&self) -> usize {
        let headers = self.header_bytes.unwrap_or(UNREADABLE_HEADERS);
        self.key.as_ref().map_or(0, Bytes::len) + headers + self.payload.as_ref().map_or(0, Bytes::len)
    }

    /// Decodes key and headers into what a gateway's stream takes; the value stays unread.
    pub fn decode(&self, scope: Scope, max_bytes: usize) -> Result<StreamEntry, Poison> {
        if self.header_bytes.is_none() {
            return Err(Poison::HeaderName);
        }
        if self.size() > max_bytes {
            return Err(Poison::TooLarge { size: self.size(), limit: max_bytes });
        }
        let headers = self.headers.iter().flat_map(|headers| headers.iter());
        let headers = headers.map(|header| (header.key, header.value));
        let record = Record::decode(self.key.as_deref(), headers, self.payload.clone())?;
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

/// Bytes of all names and values; `None` when a name is no UTF-8.
pub fn header_bytes(headers: &impl Headers) -> Option<usize> {
    // rdkafka panics on such a name, and anybody who may write to the topic can send one.
    let counted = catch_unwind(AssertUnwindSafe(|| {
        headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum()
    }));
    counted.ok()
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
            header_bytes: header_bytes(&headers),
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

    #[test]
    fn headers_count_as_key_and_value_do() {
        let record = polled(&[("id", "e"), ("eventType", "TYPING")]);
        assert_eq!(record.size(), 22);
        assert_eq!(record.decode(Scope::User, 21).unwrap_err().reason(), "too_large");
    }

    #[test]
    fn headers_that_can_not_be_read_are_poison_and_count_for_much() {
        struct Unreadable;
        impl Headers for Unreadable {
            fn count(&self) -> usize {
                1
            }
            fn try_get(&self, _: usize) -> Option<Header<'_, &[u8]>> {
                panic!("as rdkafka does");
            }
        }
        let record = Polled { header_bytes: header_bytes(&Unreadable), ..polled(&[]) };
        assert!(record.size() > UNREADABLE_HEADERS);
        assert_eq!(record.decode(Scope::User, 1024), Err(Poison::HeaderName));
    }

    #[test]
    fn the_text_of_a_fault_is_short_and_ends_with_a_whole_character() {
        let fault = |key: String| Poison::from(RecordError::BadKey(key)).text();
        assert_eq!(fault("ü".to_owned()), "the key \"ü\" is no decimal id");
        for shift in ["", "x"] {
            let text = fault(shift.to_owned() + &"ü".repeat(MAX_TEXT));
            assert!((MAX_TEXT - 1..=MAX_TEXT).contains(&text.len()) && text.ends_with("ü…"), "{text}");
        }
    }
}
