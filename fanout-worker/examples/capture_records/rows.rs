//! Outbox rows as core writes them, one of every type, with ids and times that are the same at every run.

use anyhow::Result;
use chrono::{DateTime, Utc};
use proto::{
    ConversationId, Envelope, EventType, MessageId, UserId,
    event::{MemberData, MembershipData, MessageData},
    topics::aggregate,
};
use serde::Serialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use sqlx::MySqlPool;

const CONVERSATION: ConversationId = ConversationId(7_342_891_234_567_168);
const ALICE: UserId = UserId(7_342_890_000_000_001);
const BOB: UserId = UserId(7_342_890_000_000_002);
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// What `id`s of these rows start with.
const ID_PREFIX: &str = "01930000-0000-7000-8000-0000000000";
/// All that JSON, MySQL and a converter might change: a quote, an escape, a control character, four-byte UTF-8.
const HARD_BODY: &str = "Grüße, 世界 😀 \"quoted\" back\\slash\nnewline\ttab \u{1}control <script>&amp;";

/// A row of `message_producer_outbox`, but for its time.
pub struct Row {
    pub id: String,
    pub event_type: String,
    aggregate_type: &'static str,
    aggregate_id: String,
    payload: String,
    conversation_id: Option<i64>,
    seq: Option<i64>,
    actor_id: Option<i64>,
    subject_id: Option<i64>,
    user_seq: Option<i64>,
    traceparent: Option<&'static str>,
}

impl Row {
    pub async fn insert(&self, pool: &MySqlPool) -> Result<()> {
        sqlx::query(
            "INSERT INTO message_producer_outbox (id, aggregatetype, aggregateid, type, payload, conversation_id, seq, \
             epoch, actor_id, subject_id, target_seq, user_seq, traceparent, tracingspancontext, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, NULL, ?, ?, NULL, UTC_TIMESTAMP(6))",
        )
        .bind(&self.id)
        .bind(self.aggregate_type)
        .bind(&self.aggregate_id)
        .bind(&self.event_type)
        .bind(&self.payload)
        .bind(self.conversation_id)
        .bind(self.seq)
        .bind(self.actor_id)
        .bind(self.subject_id)
        .bind(self.user_seq)
        .bind(self.traceparent)
        .execute(pool)
        .await?;
        Ok(())
    }
}

/// As the delete of a message does.
pub async fn overwrite_payload(pool: &MySqlPool, id: &str) -> Result<()> {
    sqlx::query("UPDATE message_producer_outbox SET payload = '{}' WHERE id = ?").bind(id).execute(pool).await?;
    Ok(())
}

pub async fn remove_all(pool: &MySqlPool) -> Result<()> {
    let ids = format!("{ID_PREFIX}%");
    sqlx::query("DELETE FROM message_producer_outbox WHERE id LIKE ?").bind(ids).execute(pool).await?;
    Ok(())
}

/// Every type that goes through the outbox.
pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    let conversation = |name: &str, archived: bool| {
        raw(&json!({ "id": CONVERSATION, "workspace_id": "1", "kind": "channel", "name": name, "visibility": "public",
                "archived": archived, "created_by": ALICE, "created_at": proto::event::format_time(at()) }))
    };
    let member = |reason: &str| MemberData { user_id: BOB, role: "member".to_owned(), reason: reason.to_owned() };
    let mut of_conversation = |event_type, seq, data: Box<RawValue>, subject: Option<(UserId, i64)>| {
        rows.push(of_conversation(number(event_type), event_type, seq, data, subject));
    };
    of_conversation(EventType::ConversationCreated, 1, conversation("general", false), None);
    of_conversation(EventType::Message, 2, message(), None);
    of_conversation(EventType::UserJoined, 3, raw(&member("added")), Some((BOB, 1)));
    of_conversation(EventType::ConversationUpdated, 4, conversation("lounge", false), None);
    of_conversation(EventType::UserLeft, 5, raw(&member("left")), Some((BOB, 2)));
    of_conversation(EventType::ConversationArchived, 6, conversation("lounge", true), None);
    of_conversation(EventType::ConversationUnarchived, 7, conversation("lounge", false), None);
    rows.push(of_user(EventType::UserCreated, None, raw(&json!({ "user_id": BOB, "username": "bob" }))));
    rows.push(of_user(EventType::MembershipStarted, Some(1), raw(&membership(None))));
    rows.push(of_user(EventType::MembershipEnded, Some(2), raw(&membership(Some(5)))));
    rows
}

/// The row of MESSAGE.
pub fn first_message() -> Row {
    of_conversation(90, EventType::Message, 2, message(), None)
}

fn of_conversation(
    number: usize,
    event_type: EventType,
    seq: i64,
    data: Box<RawValue>,
    subject: Option<(UserId, i64)>,
) -> Row {
    let envelope = Envelope {
        event_type: event_type.as_str().to_owned(),
        event_id: id(number),
        epoch: 1,
        conversation_id: Some(CONVERSATION),
        seq: Some(seq),
        user_id: None,
        user_seq: subject.map(|(_, user_seq)| user_seq),
        actor_id: Some(ALICE),
        at: at(),
        data,
    };
    Row {
        id: id(number),
        event_type: envelope.event_type.clone(),
        aggregate_type: aggregate::MESSAGE,
        aggregate_id: CONVERSATION.to_string(),
        payload: text(&envelope),
        conversation_id: Some(CONVERSATION.0),
        seq: Some(seq),
        actor_id: Some(ALICE.0),
        subject_id: subject.map(|(user, _)| user.0),
        user_seq: envelope.user_seq,
        traceparent: (event_type == EventType::Message).then_some(TRACEPARENT),
    }
}

fn of_user(event_type: EventType, user_seq: Option<i64>, data: Box<RawValue>) -> Row {
    let number = number(event_type);
    let envelope = Envelope {
        event_type: event_type.as_str().to_owned(),
        event_id: id(number),
        epoch: 1,
        conversation_id: None,
        seq: None,
        user_id: Some(BOB),
        user_seq,
        actor_id: None,
        at: at(),
        data,
    };
    Row {
        id: id(number),
        event_type: envelope.event_type.clone(),
        aggregate_type: aggregate::USER,
        aggregate_id: BOB.to_string(),
        payload: text(&envelope),
        conversation_id: None,
        seq: None,
        actor_id: None,
        subject_id: Some(BOB.0),
        user_seq,
        traceparent: None,
    }
}

fn message() -> Box<RawValue> {
    raw(&MessageData {
        message_id: MessageId(7_342_891_234_600_001),
        message_no: 1,
        kind: "text".to_owned(),
        body: HARD_BODY.to_owned(),
        client_message_id: "c-1".to_owned(),
        thread_root_id: None,
        mentions: vec![BOB],
        attachments: Vec::new(),
        deleted: false,
    })
}

fn membership(left_seq: Option<i64>) -> MembershipData {
    MembershipData {
        conversation_id: CONVERSATION,
        kind: "channel".to_owned(),
        role: "member".to_owned(),
        joined_seq: 3,
        left_seq,
    }
}

/// Its place among all types: what makes its id its own.
fn number(event_type: EventType) -> usize {
    EventType::ALL.iter().position(|known| *known == event_type).expect("ALL has every type")
}

fn id(number: usize) -> String {
    format!("{ID_PREFIX}{number:02}")
}

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_795_244_400_123_456).expect("a time in this century")
}

/// Fields in the order of the type, as core writes them.
fn raw(data: &impl Serialize) -> Box<RawValue> {
    to_raw_value(data).expect("our types are JSON")
}

fn text(envelope: &Envelope) -> String {
    serde_json::to_string(envelope).expect("our types are JSON")
}
