//! Records captured from the real connector, decoded by the types that every process uses. They are captured by
//! `fanout-worker/examples/capture_records`; a file that changes is a wire change.

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use proto::{
    ConversationId, Envelope, EventType, Record, UserId,
    debezium::{Change, Op, OutboxKey, OutboxRow},
    topics,
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    topic: String,
    partition: i32,
    key: Option<String>,
    headers: Vec<(String, Option<String>)>,
    value: Option<String>,
}

impl Golden {
    fn decode(&self) -> Record {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().map(str::as_bytes)));
        let payload = self.value.clone().map(Bytes::from);
        Record::decode(self.key.as_deref().map(str::as_bytes), headers, payload)
            .unwrap_or_else(|error| panic!("{} at {:?}: {error}", self.topic, self.key))
    }
}

/// All files, by name.
fn all() -> BTreeMap<String, Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/records");
    let files =
        fs::read_dir(folder).expect("golden/records is there").map(|entry| entry.expect("it can be read").path());
    let parsed = files.map(|path| {
        let text = fs::read_to_string(&path).expect("the file can be read");
        let golden = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.file_name().expect("it is a file").to_string_lossy().into_owned(), golden)
    });
    parsed.collect()
}

fn one(topic: &str, name: &str) -> Golden {
    let file = format!("{topic}.{name}.json");
    all().remove(&file).unwrap_or_else(|| panic!("golden/records/{file} is missing"))
}

fn change(name: &str) -> (OutboxKey, Change<OutboxRow>) {
    let golden = one("raw.chat.message_producer_outbox", name);
    let key = serde_json::from_str(golden.key.as_deref().expect("a change has a key")).expect("a primary key");
    (key, serde_json::from_str(golden.value.as_deref().expect("a change has a value")).expect("a change"))
}

#[test]
fn every_type_is_there_for_every_topic() {
    let of_conversations = [
        EventType::Message,
        EventType::UserJoined,
        EventType::UserLeft,
        EventType::ConversationCreated,
        EventType::ConversationUpdated,
        EventType::ConversationArchived,
        EventType::ConversationUnarchived,
    ];
    let of_users = [EventType::UserCreated, EventType::MembershipStarted, EventType::MembershipEnded];
    let of_topics = [
        (topics::MESSAGE_EVENTS, &of_conversations[..]),
        (topics::USER_EVENTS, &of_users),
        (topics::EPHEMERAL_EVENTS, &[EventType::Typing]),
        (topics::CONNECTION_EVENTS, &[EventType::Connected, EventType::Disconnected]),
    ];
    for (topic, types) in of_topics {
        for event_type in types {
            let record = one(topic, event_type.as_str()).decode();
            assert_eq!(EventType::from_wire(&record.routing.event_type), Some(*event_type));
        }
    }
}

#[test]
fn key_headers_and_envelope_of_every_event_say_the_same() {
    let records = all().into_iter().filter(|(_, golden)| golden.topic.ends_with(".events"));
    for (name, golden) in records {
        assert!((0..topics::PARTITIONS).contains(&golden.partition), "{name}");
        let Record { key, routing, payload } = golden.decode();
        let envelope: Envelope = serde_json::from_slice(&payload).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(routing.event_type, envelope.event_type, "{name}");
        assert_eq!(routing.event_id, envelope.event_id, "{name}");
        assert_eq!(routing.epoch, envelope.epoch, "{name}");
        assert_eq!(routing.seq, envelope.seq, "{name}");
        assert_eq!(routing.user_seq, envelope.user_seq, "{name}");
        assert_eq!(routing.conversation_id.map(ConversationId), envelope.conversation_id, "{name}");
        assert_eq!(routing.actor_id.map(UserId), envelope.actor_id, "{name}");
        let keyed_by = envelope.conversation_id.map(|id| id.0).or(envelope.user_id.map(|id| id.0));
        assert_eq!(Some(key), keyed_by, "{name}");
        assert_eq!(golden.topic == topics::MESSAGE_EVENTS, routing.seq.is_some(), "{name}: only these are sequenced");
    }
}

#[test]
fn a_message_carries_its_trace_and_its_body_unchanged() {
    let record = one(topics::MESSAGE_EVENTS, "MESSAGE").decode();
    assert_eq!((record.routing.seq, record.routing.subject_id), (Some(2), None));
    assert!(record.routing.traceparent.unwrap().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    let envelope: Envelope<proto::event::MessageData> = serde_json::from_slice(&record.payload).unwrap();
    assert_eq!(envelope.data.body, "Grüße, 世界 😀 \"quoted\" back\\slash\nnewline\ttab \u{1}control <script>&amp;");
    // The connector passes the text on as it stands in the column.
    assert_eq!(serde_json::to_vec(&envelope).unwrap(), record.payload);
}

#[test]
fn a_membership_names_its_user_in_key_and_headers() {
    for (name, user_seq) in [("MEMBERSHIP_STARTED", 1), ("MEMBERSHIP_ENDED", 2)] {
        let record = one(topics::USER_EVENTS, name).decode();
        assert_eq!((record.routing.subject_id, record.routing.user_seq), (Some(record.key), Some(user_seq)));
    }
    let joined = one(topics::MESSAGE_EVENTS, "USER_JOINED").decode().routing;
    assert!(joined.subject_id.is_some() && joined.user_seq.is_some());
}

#[test]
fn an_insert_has_the_row_after_it_and_its_place_in_the_binlog() {
    let (key, created) = change("create");
    assert_eq!((created.op, created.before), (Op::Create, None));
    let row = created.after.unwrap();
    assert_eq!((&key.id, key.created_at), (&row.id, row.created_at));
    assert_eq!((&*row.aggregatetype, &*row.event_type), (topics::aggregate::MESSAGE, "MESSAGE"));
    assert_eq!((row.conversation_id, row.seq, row.epoch), (Some(7_342_891_234_567_168), Some(2), 1));
    assert_eq!((row.subject_id, row.target_seq, row.tracingspancontext), (None, None, None));
    let envelope: Envelope = serde_json::from_str(&row.payload).unwrap();
    assert_eq!(envelope.event_id, row.id);
    let source = created.source;
    assert_eq!((&*source.connector, &*source.db), ("mysql", "chat"));
    assert_eq!(source.table.as_deref(), Some("message_producer_outbox"));
    assert!(source.gtid.unwrap().contains(':') && source.pos > 0 && !source.file.is_empty());
    assert!(created.ts_ms.unwrap() >= source.ts_ms && created.ts_us.unwrap() / 1000 == created.ts_ms.unwrap());
}

#[test]
fn an_update_has_both_rows_and_a_delete_the_old_one_and_then_a_tombstone() {
    let (_, updated) = change("update");
    assert_eq!(updated.op, Op::Update);
    assert_ne!(updated.before.unwrap().payload, "{}");
    assert_eq!(updated.after.unwrap().payload, "{}");
    let (key, deleted) = change("delete");
    assert_eq!((deleted.op, deleted.after), (Op::Delete, None));
    assert_eq!(deleted.before.unwrap().id, key.id);
    let tombstone = one("raw.chat.message_producer_outbox", "tombstone");
    assert_eq!(tombstone.value, None);
    serde_json::from_str::<OutboxKey>(&tombstone.key.unwrap()).unwrap();
}
