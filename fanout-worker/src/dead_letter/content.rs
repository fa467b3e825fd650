//! What a dead letter holds of its record, and what it leaves out when its topic takes no more. Pure.

use proto::topics::header::dlq;
use rdkafka::message::{Header, OwnedHeaders};

use super::letter::HEADERS;
use crate::polled::{Poison, Polled};

/// The parts of a record that go into its letter.
pub struct Content<'a> {
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    headers: Option<&'a OwnedHeaders>,
    omitted: Vec<&'static str>,
}

impl<'a> Content<'a> {
    /// All of it.
    pub fn of(record: &'a Polled) -> Self {
        Self {
            key: record.key.as_deref(),
            payload: record.payload.as_deref(),
            headers: record.headers.as_ref(),
            omitted: Vec::new(),
        }
    }

    /// Leaves out one part more, the one that is needed least, and names it; `None`: all are left out.
    pub fn omit(&mut self) -> Option<&'static str> {
        let part = if self.payload.take().is_some() {
            "value"
        } else if self.headers.take().is_some() {
            "headers"
        } else if self.key.take().is_some() {
            "key"
        } else {
            return None;
        };
        self.omitted.push(part);
        Some(part)
    }

    /// The original headers, then ours, which [`super::letter`] finds from the end.
    pub fn headers(&self, topic: &str, partition: i32, offset: i64, poison: &Poison, at: &str) -> OwnedHeaders {
        let (partition, offset, error) = (partition.to_string(), offset.to_string(), poison.text());
        let ours = [topic, &partition, &offset, poison.reason(), &error, at];
        let omitted = self.omitted.join(",");
        let omitted = (!omitted.is_empty()).then_some((dlq::OMITTED, omitted.as_str()));
        let original = self.headers.cloned().unwrap_or_default();
        let ours = HEADERS.into_iter().zip(ours).chain(omitted);
        ours.fold(original, |all, (key, value)| all.insert(Header { key, value: Some(value) }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::RecordError;
    use rdkafka::{
        Timestamp,
        message::{Headers as _, OwnedMessage},
    };

    use super::*;
    use crate::{
        config::DEFAULTS,
        dead_letter::letter::{self, Entry, Letter},
        polled::{MAX_TEXT, header_bytes},
    };

    fn record(key: &str, payload: Option<&'static [u8]>) -> Polled {
        let headers = OwnedHeaders::new().insert(Header { key: "id", value: Some("e") });
        Polled {
            offset: 1204,
            kafka_ms: 0,
            taken_us: 0,
            key: Some(Bytes::from(key.to_owned())),
            header_bytes: header_bytes(&headers),
            headers: Some(headers),
            payload: payload.map(Bytes::from_static),
        }
    }

    fn headers(content: &Content<'_>) -> OwnedHeaders {
        let poison = Poison::from(RecordError::BadKey("x".repeat(600 << 10)));
        content.headers("chat.user.events", 5, 1204, &poison, "then")
    }

    fn read(content: &Content<'_>) -> Letter {
        let (key, payload) = (content.key.map(<[u8]>::to_vec), content.payload.map(<[u8]>::to_vec));
        let headers = Some(headers(content));
        let message = OwnedMessage::new(payload, key, "dlq".to_owned(), Timestamp::NotAvailable, 3, 17, headers);
        match letter::read(&message, &chassis::config::load(DEFAULTS, None, []).unwrap()) {
            Entry::Letter(letter) => *letter,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parts_are_left_out_one_by_one_and_the_letter_says_which() {
        let record = record("general", Some(b"{}"));
        let mut content = Content::of(&record);
        assert_eq!(headers(&content).get(0).key, "id");
        assert_eq!(read(&content).omitted, None);
        for (part, omitted) in [("value", "value"), ("headers", "value,headers"), ("key", "value,headers,key")] {
            assert_eq!(content.omit(), Some(part));
            let letter = read(&content);
            assert_eq!(letter.omitted.as_deref(), Some(omitted));
            assert_eq!(letter.source.to_string(), "chat.user.events[5]@1204");
        }
        assert_eq!(content.omit(), None);
        assert_eq!((content.key, content.payload), (None, None));
        assert_eq!(headers(&content).count(), HEADERS.len() + 1);
    }

    #[test]
    fn what_a_record_has_not_is_not_left_out() {
        let record = record("general", None);
        assert_eq!(Content::of(&record).omit(), Some("headers"));
    }

    #[test]
    fn without_its_parts_a_letter_is_small_whatever_was_wrong() {
        let record = record("general", Some(b"{}"));
        let mut content = Content::of(&record);
        while content.omit().is_some() {}
        assert!(header_bytes(&headers(&content)).unwrap() < MAX_TEXT + 512);
    }
}
