//! What stands in the dead-letter topic: letters, and notes about those that were replayed. Pure.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use proto::{Scope, topics::header::dlq};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};

use crate::{
    config::Config,
    polled::{self, Polled},
};

/// What a letter has behind the original headers, in this order; behind those `dlq.omitted`, where something is.
pub const HEADERS: [&str; 6] = [dlq::TOPIC, dlq::PARTITION, dlq::OFFSET, dlq::REASON, dlq::ERROR, dlq::AT];

/// What a note has.
pub const NOTE: [&str; 3] = [dlq::REPLAYED_OFFSET, dlq::REPLAYED_TO, dlq::AT];

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

/// A record of the dead-letter topic.
#[derive(Debug)]
pub enum Entry {
    Letter(Box<Letter>),
    /// The letter at `offset` of the same partition was replayed.
    Note {
        offset: i64,
        replay: Replay,
    },
    /// Nothing that a worker of this version wrote.
    Foreign,
}

/// That a letter was replayed before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub to: String,
    pub at: String,
}

/// A dead letter, without its value.
#[derive(Debug)]
pub struct Letter {
    /// In the dead-letter topic.
    pub partition: i32,
    pub offset: i64,
    pub source: Position,
    pub reason: String,
    pub error: String,
    pub at: String,
    pub key: Option<Vec<u8>>,
    /// Bytes of key, headers and value.
    pub size: usize,
    /// The parts of the record that the letter goes without.
    pub omitted: Option<String>,
    pub outlook: Outlook,
    pub replay: Option<Replay>,
}

/// What a replay would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// This worker, configured as it is, can route it.
    Deliverable,
    /// Nothing is missing without it.
    NoOp(String),
    /// It would be a dead letter again.
    Poison(String),
}

/// Reads a record of the dead-letter topic, and judges a letter as a worker with this configuration would.
pub fn read(record: &impl Message, config: &Config) -> Entry {
    // rdkafka panics on a header whose name is no UTF-8; among the last ones only a stranger's record has it.
    catch_unwind(AssertUnwindSafe(|| try_read(record, config))).ok().flatten().unwrap_or(Entry::Foreign)
}

fn try_read<M: Message>(record: &M, config: &Config) -> Option<Entry> {
    let headers = record.headers()?;
    let count = headers.count();
    if let Some([offset, to, at]) = last(headers, count, NOTE) {
        return Some(Entry::Note { offset: offset.parse().ok()?, replay: Replay { to, at } });
    }
    let omitted = last(headers, count, [dlq::OMITTED]).map(|[parts]| parts);
    let end = count - usize::from(omitted.is_some());
    let [topic, partition, offset, reason, error, at] = last(headers, end, HEADERS)?;
    let source = Position { topic, partition: partition.parse().ok()?, offset: offset.parse().ok()? };
    let original_headers = copy(headers, end - HEADERS.len())?;
    let original = Polled {
        offset: source.offset,
        kafka_ms: 0,
        taken_us: 0,
        key: record.key().map(Bytes::copy_from_slice),
        header_bytes: polled::header_bytes(&original_headers),
        headers: Some(original_headers),
        payload: record.payload().map(Bytes::copy_from_slice),
    };
    Some(Entry::Letter(Box::new(Letter {
        partition: record.partition(),
        offset: record.offset(),
        outlook: outlook(&original, &source, omitted.as_deref(), config),
        source,
        reason,
        error,
        at,
        key: record.key().map(<[u8]>::to_vec),
        size: original.size(),
        omitted,
        replay: None,
    })))
}

/// The values of the last headers before `end`, if they have these names.
fn last<const N: usize>(headers: &impl Headers, end: usize, names: [&str; N]) -> Option<[String; N]> {
    let start = end.checked_sub(N)?;
    let mut values = [const { String::new() }; N];
    for (index, name) in names.iter().enumerate() {
        let header = headers.try_get(start + index).filter(|header| header.key == *name)?;
        values[index] = String::from_utf8_lossy(header.value?).into_owned();
    }
    Some(values)
}

/// The first headers of a letter that leaves nothing out: those of the original record.
pub fn original_headers(headers: &impl Headers) -> Option<OwnedHeaders> {
    copy(headers, headers.count().checked_sub(HEADERS.len())?)
}

/// `None` when a name can't be read, and so not be copied.
fn copy(headers: &impl Headers, count: usize) -> Option<OwnedHeaders> {
    let copied = catch_unwind(AssertUnwindSafe(|| {
        (0..count)
            .map(|index| headers.get(index))
            .fold(OwnedHeaders::new(), |all, Header { key, value }| all.insert(Header { key, value }))
    }));
    copied.ok()
}

fn outlook(original: &Polled, source: &Position, omitted: Option<&str>, config: &Config) -> Outlook {
    let sources = config.kafka.topics.sources();
    let Some((_, scope)) = sources.iter().find(|(topic, _)| *topic == source.topic) else {
        return Outlook::NoOp(format!("{} is no topic that is routed", source.topic));
    };
    if *scope == Scope::Conversation {
        return Outlook::NoOp(
            "a sequenced event: gateways have noticed the gap and read it from the event log".to_owned(),
        );
    }
    if let Some(parts) = omitted {
        return Outlook::Poison(format!(
            "it is larger than the dead-letter topic takes ({parts} left out); the original stands at {source}"
        ));
    }
    match original.decode(*scope, config.batch.max_record_bytes) {
        Ok(_) => Outlook::Deliverable,
        Err(poison) => Outlook::Poison(poison.text()),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{Timestamp, message::OwnedMessage};

    use super::*;
    use crate::config::DEFAULTS;

    const GOOD: [(&str, &str); 3] = [("id", "e"), ("eventType", "TYPING"), ("epoch", "1")];

    fn config() -> Config {
        chassis::config::load(DEFAULTS, None, []).unwrap()
    }

    fn record(original: &[(&str, &str)], ours: &[(&str, &str)], payload: Option<&[u8]>) -> OwnedMessage {
        let headers = original
            .iter()
            .chain(ours)
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let (key, payload) = (Some(b"42".to_vec()), payload.map(<[u8]>::to_vec));
        OwnedMessage::new(payload, key, "dlq".to_owned(), Timestamp::NotAvailable, 3, 17, Some(headers))
    }

    fn ours<'a>(topic: &'a str, reason: &'a str) -> [(&'a str, &'a str); 6] {
        let values = [topic, "5", "1204", reason, "what was wrong", "2026-01-01T00:00:00.000000Z"];
        std::array::from_fn(|index| (HEADERS[index], values[index]))
    }

    fn letter(record: &OwnedMessage) -> Letter {
        match read(record, &config()) {
            Entry::Letter(letter) => *letter,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_letter_says_where_it_stood_and_what_was_wrong() {
        let letter = letter(&record(&GOOD, &ours("chat.user.events", "too_large"), Some(b"{}")));
        assert_eq!((letter.partition, letter.offset, letter.size), (3, 17, 28));
        assert_eq!(letter.source.to_string(), "chat.user.events[5]@1204");
        assert_eq!((letter.reason.as_str(), letter.error.as_str()), ("too_large", "what was wrong"));
    }

    #[test]
    fn what_a_replay_would_do_is_judged_by_topic_and_record() {
        let outlook = |original: &[_], topic, reason, payload: Option<&[u8]>| {
            letter(&record(original, &ours(topic, reason), payload)).outlook
        };
        let ephemeral = "chat.ephemeral.events";
        assert_eq!(outlook(&GOOD, ephemeral, "too_large", Some(b"{}")), Outlook::Deliverable);
        assert_eq!(outlook(&GOOD, "chat.user.events", "bad_header", Some(b"{}")), Outlook::Deliverable);
        let says = |outlook: Outlook, text: &str| match outlook {
            Outlook::NoOp(why) | Outlook::Poison(why) => assert!(why.contains(text), "{why}"),
            Outlook::Deliverable => panic!("expected: {text}"),
        };
        says(outlook(&GOOD, "chat.message.events", "bad_key", Some(b"{}")), "event log");
        says(outlook(&GOOD, "elsewhere", "bad_key", Some(b"{}")), "elsewhere");
        says(outlook(&GOOD[..2], ephemeral, "missing_header", Some(b"{}")), "\"epoch\" is missing");
        says(outlook(&GOOD, ephemeral, "no_payload", None), "no value");
    }

    #[test]
    fn a_letter_that_leaves_something_out_is_not_replayed() {
        let omitted = [(dlq::OMITTED, "value")];
        let ours: Vec<_> = ours("chat.ephemeral.events", "too_large").into_iter().chain(omitted).collect();
        let letter = letter(&record(&GOOD, &ours, None));
        assert_eq!(letter.omitted.as_deref(), Some("value"));
        let Outlook::Poison(why) = letter.outlook else { panic!("{letter:?}") };
        assert!(why.contains("value left out") && why.contains("stands at chat.ephemeral.events[5]@1204"), "{why}");
    }

    #[test]
    fn a_letter_of_a_letter_is_the_last_ones() {
        let again: Vec<_> = GOOD.into_iter().chain(ours("first", "bad_key")).collect();
        let record = record(&again, &ours("chat.user.events", "too_large"), Some(b"{}"));
        assert_eq!(letter(&record).source.topic, "chat.user.events");
        let original = original_headers(record.headers().unwrap()).unwrap();
        assert_eq!(original.count(), GOOD.len() + HEADERS.len());
    }

    #[test]
    fn notes_and_foreign_records_are_no_letters() {
        let note: [_; 3] = std::array::from_fn(|index| (NOTE[index], ["12", "t[1]@2", "then"][index]));
        let replay = Replay { to: "t[1]@2".to_owned(), at: "then".to_owned() };
        let read_note = read(&record(&[], &note, None), &config());
        assert!(matches!(read_note, Entry::Note { offset: 12, replay: found } if found == replay));
        assert!(matches!(read(&record(&GOOD, &[], Some(b"{}")), &config()), Entry::Foreign));
    }
}
