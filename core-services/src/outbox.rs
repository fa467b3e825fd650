//! Rows of `message_producer_outbox`: what Debezium streams, and the event log.
//!
//! The envelope is serialised here, once; nothing behind this row parses it. [`maintenance`] looks after the table's
//! partitions.

pub mod maintenance;
pub mod past;
mod plan;

use chrono::{DateTime, Utc};
use proto::{ConversationId, Envelope, EventType, UserId, topics::aggregate};
use serde::Serialize;
use sqlx::MySqlConnection;
use uuid::Uuid;

use crate::{db::SqlText, error::Result};

/// One event, ready to be inserted in the transaction that makes it true.
#[derive(Clone, Debug)]
pub struct Event {
    id: String,
    aggregate_type: &'static str,
    aggregate_id: i64,
    event_type: EventType,
    payload: String,
    conversation_id: Option<i64>,
    seq: Option<i64>,
    epoch: i64,
    actor_id: Option<i64>,
    subject_id: Option<i64>,
    user_seq: Option<i64>,
    traceparent: Option<String>,
    at: DateTime<Utc>,
}

impl Event {
    /// A sequenced event of a conversation.
    pub fn of_conversation<D: Serialize>(
        event_type: EventType,
        conversation: ConversationId,
        seq: i64,
        epoch: i64,
        actor: UserId,
        at: DateTime<Utc>,
        data: D,
    ) -> Self {
        let envelope = envelope(event_type, epoch, actor, at, data);
        let envelope = Envelope { conversation_id: Some(conversation), seq: Some(seq), ..envelope };
        Self::new(event_type, aggregate::MESSAGE, conversation.0, envelope)
    }

    /// An event of a person; `user_seq` when it changes their memberships.
    pub fn of_user<D: Serialize>(
        event_type: EventType,
        user: UserId,
        user_seq: Option<i64>,
        epoch: i64,
        actor: UserId,
        at: DateTime<Utc>,
        data: D,
    ) -> Self {
        let envelope = envelope(event_type, epoch, actor, at, data);
        let envelope = Envelope { user_id: Some(user), user_seq, ..envelope };
        Self::new(event_type, aggregate::USER, user.0, envelope)
    }

    /// The row's columns say what the envelope says.
    fn new<D: Serialize>(
        event_type: EventType,
        aggregate_type: &'static str,
        aggregate_id: i64,
        envelope: Envelope<D>,
    ) -> Self {
        let payload = serde_json::to_string(&envelope).expect("an envelope has text keys only, so it serialises");
        Self {
            id: envelope.event_id,
            aggregate_type,
            aggregate_id,
            event_type,
            payload,
            conversation_id: envelope.conversation_id.map(|id| id.0),
            seq: envelope.seq,
            epoch: envelope.epoch,
            actor_id: envelope.actor_id.map(|id| id.0),
            subject_id: envelope.user_id.map(|id| id.0),
            user_seq: envelope.user_seq,
            traceparent: None,
            at: envelope.at,
        }
    }

    /// Who joined or left, and the `user_seq` that it took.
    pub fn about(mut self, subject: UserId, user_seq: i64) -> Self {
        self.subject_id = Some(subject.0);
        self.user_seq = Some(user_seq);
        self
    }

    /// The W3C trace that caused the event.
    pub fn traced(mut self, traceparent: Option<String>) -> Self {
        self.traceparent = traceparent;
        self
    }
}

/// An envelope with a fresh id, of nobody and no conversation yet.
pub fn envelope<D>(event_type: EventType, epoch: i64, actor: UserId, at: DateTime<Utc>, data: D) -> Envelope<D> {
    Envelope {
        event_type: event_type.as_str().to_owned(),
        event_id: Uuid::now_v7().to_string(),
        epoch,
        conversation_id: None,
        seq: None,
        user_id: None,
        user_seq: None,
        actor_id: Some(actor),
        at,
        data,
    }
}

/// Inserts events in one statement.
pub async fn insert(tx: &mut MySqlConnection, events: &[Event]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut sql = SqlText::default();
    insert_text(&mut sql, events);
    sql.execute(tx).await?;
    Ok(())
}

/// The statement that inserts these events, of which there is at least one.
pub fn insert_text(sql: &mut SqlText, events: &[Event]) {
    sql.sql(
        "INSERT INTO message_producer_outbox (id, aggregatetype, aggregateid, type, payload, conversation_id, seq, \
         epoch, actor_id, subject_id, user_seq, traceparent, created_at) VALUES ",
    );
    sql.list(events, |sql, event| {
        sql.sql("(").text(&event.id).sql(",").text(event.aggregate_type).sql(",'").int(event.aggregate_id).sql("',");
        sql.text(event.event_type.as_str()).sql(",").text(&event.payload).sql(",").opt_int(event.conversation_id);
        sql.sql(",").opt_int(event.seq).sql(",").int(event.epoch).sql(",").opt_int(event.actor_id);
        sql.sql(",").opt_int(event.subject_id).sql(",").opt_int(event.user_seq);
        sql.sql(",").opt_text(event.traceparent.as_deref()).sql(",").time(event.at).sql(")");
    });
}
