//! A record of our topics, as the EventRouter and core's own producer write them: key, headers, value.

use std::str::{self, FromStr};

use bytes::Bytes;

use crate::topics::header;

/// What routing needs to know of an event: outbox columns, then Kafka headers, then stream fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    pub event_id: String,
    pub event_type: String,
    pub epoch: i64,
    pub conversation_id: Option<i64>,
    pub seq: Option<i64>,
    pub actor_id: Option<i64>,
    /// Who joined, left, or is notified.
    pub subject_id: Option<i64>,
    pub target_seq: Option<i64>,
    pub user_seq: Option<i64>,
    pub traceparent: Option<String>,
}

/// A decoded record. The value stays unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Conversation or user id, as the topic says.
    pub key: i64,
    pub routing: Routing,
    pub payload: Bytes,
}

/// Why a record can't be routed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    #[error("the record has no key; expected a decimal id")]
    NoKey,
    #[error("the key {0:?} is no decimal id")]
    BadKey(String),
    #[error("the header {0:?} is missing")]
    MissingHeader(&'static str),
    #[error("the header {name:?} is {value:?}; expected a decimal number")]
    BadHeader { name: String, value: String },
    #[error("the header {0:?} is no UTF-8")]
    NotUtf8(String),
    #[error("the record has no value")]
    NoPayload,
    #[error("the key {key} and the header conversation_id {header} differ")]
    KeyMismatch { key: i64, header: i64 },
}

impl RecordError {
    /// One stable word, for the dead-letter header and for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            RecordError::NoKey | RecordError::BadKey(_) => "bad_key",
            RecordError::MissingHeader(_) => "missing_header",
            RecordError::BadHeader { .. } | RecordError::NotUtf8(_) => "bad_header",
            RecordError::NoPayload => "no_payload",
            RecordError::KeyMismatch { .. } => "key_mismatch",
        }
    }
}

impl Record {
    /// Decodes key and headers; `headers` yields name and value, `None` for a null value. Unknown headers are ignored.
    ///
    /// A record with a `seq` must carry the conversation of its key.
    pub fn decode<'a>(
        key: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
        payload: Option<Bytes>,
    ) -> Result<Self, RecordError> {
        let key = key.ok_or(RecordError::NoKey)?;
        let key = parse_id(key).ok_or_else(|| RecordError::BadKey(String::from_utf8_lossy(key).into_owned()))?;
        let mut routing = Routing::default();
        let mut epoch = None;
        for (name, value) in headers {
            let Some(value) = value else { continue };
            match name {
                header::ID => routing.event_id = text(name, value)?.to_owned(),
                header::EVENT_TYPE => routing.event_type = text(name, value)?.to_owned(),
                header::TRACEPARENT => routing.traceparent = Some(text(name, value)?.to_owned()),
                header::EPOCH => epoch = Some(number(name, value)?),
                header::CONVERSATION_ID => routing.conversation_id = Some(number(name, value)?),
                header::SEQ => routing.seq = Some(number(name, value)?),
                header::ACTOR_ID => routing.actor_id = Some(number(name, value)?),
                header::SUBJECT_ID => routing.subject_id = Some(number(name, value)?),
                header::TARGET_SEQ => routing.target_seq = Some(number(name, value)?),
                header::USER_SEQ => routing.user_seq = Some(number(name, value)?),
                _ => {}
            }
        }
        if routing.event_id.is_empty() {
            return Err(RecordError::MissingHeader(header::ID));
        }
        if routing.event_type.is_empty() {
            return Err(RecordError::MissingHeader(header::EVENT_TYPE));
        }
        routing.epoch = epoch.ok_or(RecordError::MissingHeader(header::EPOCH))?;
        match (routing.seq, routing.conversation_id) {
            (Some(_), None) => return Err(RecordError::MissingHeader(header::CONVERSATION_ID)),
            (Some(_), Some(conversation)) if conversation != key => {
                return Err(RecordError::KeyMismatch { key, header: conversation });
            }
            _ => {}
        }
        Ok(Self { key, routing, payload: payload.ok_or(RecordError::NoPayload)? })
    }
}

fn parse_id(bytes: &[u8]) -> Option<i64> {
    str::from_utf8(bytes).ok().and_then(|text| i64::from_str(text).ok()).filter(|id| *id > 0)
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, RecordError> {
    str::from_utf8(value).map_err(|_| RecordError::NotUtf8(name.to_owned()))
}

fn number(name: &str, value: &[u8]) -> Result<i64, RecordError> {
    let value = text(name, value)?;
    value.parse().map_err(|_| RecordError::BadHeader { name: name.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[(&str, Option<&[u8]>)] = &[
        ("id", Some(b"0190a5b0-0000-7000-8000-000000000001")),
        ("eventType", Some(b"MESSAGE")),
        ("epoch", Some(b"1")),
        ("conversation_id", Some(b"42")),
        ("seq", Some(b"7")),
        ("subject_id", None),
        ("from_the_future", Some(b"\xff")),
    ];

    fn decode(headers: &[(&'static str, Option<&'static [u8]>)]) -> Result<Record, RecordError> {
        Record::decode(Some(b"42"), headers.iter().copied(), Some(Bytes::from_static(b"{}")))
    }

    #[test]
    fn null_and_unknown_headers_are_passed_over() {
        let record = decode(GOOD).unwrap();
        assert_eq!((record.key, record.routing.seq, record.routing.subject_id), (42, Some(7), None));
    }

    #[test]
    fn each_fault_has_its_reason() {
        let without = |name: &str| GOOD.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
        assert_eq!(decode(&without("epoch")), Err(RecordError::MissingHeader("epoch")));
        assert_eq!(decode(&without("eventType")), Err(RecordError::MissingHeader("eventType")));
        assert_eq!(decode(&without("conversation_id")), Err(RecordError::MissingHeader("conversation_id")));
        let mut bad = without("seq");
        bad.push(("seq", Some(b"seven")));
        assert_eq!(decode(&bad).unwrap_err().reason(), "bad_header");
        let mut other = without("conversation_id");
        other.push(("conversation_id", Some(b"43")));
        assert_eq!(decode(&other), Err(RecordError::KeyMismatch { key: 42, header: 43 }));
        assert_eq!(Record::decode(None, [], None), Err(RecordError::NoKey));
        assert_eq!(Record::decode(Some(b"x"), [], None).unwrap_err().reason(), "bad_key");
        assert_eq!(Record::decode(Some(b"42"), GOOD.iter().copied(), None), Err(RecordError::NoPayload));
    }
}
