//! What is stored when a run is over.

use serde::{Deserialize, Serialize};

/// A row, or what was found elsewhere. Conversations are those that the run's histories name, users their members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum TruthRecord {
    /// The first record.
    Truth {
        /// Of the installation.
        epoch: i64,
    },
    Conversation {
        id: i64,
        kind: String,
        last_seq: i64,
        message_no: i64,
    },
    /// A sequenced event of the log (the outbox).
    Event {
        conversation: i64,
        seq: i64,
        event_id: String,
        event_type: String,
        epoch: i64,
        /// Who joined or left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<i64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_seq: Option<i64>,
        /// [`digest`](crate::history::digest) of the payload.
        body: String,
        /// What the payload says; none when it is no envelope.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        says: Option<Says>,
    },
    Message {
        conversation: i64,
        seq: i64,
        id: i64,
        message_no: i64,
        sender: i64,
        client_message_id: String,
        /// Digest of the text.
        text: String,
        epoch: i64,
    },
    /// One interval of membership, ends included.
    Member {
        conversation: i64,
        user: i64,
        joined_seq: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left_seq: Option<i64>,
        joined_user_seq: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left_user_seq: Option<i64>,
    },
    User {
        id: i64,
        user_seq: i64,
    },
    /// An event of a user that has a `user_seq`.
    UserEvent {
        user: i64,
        user_seq: i64,
        event_type: String,
    },
    /// What the fanout group has not taken of a topic.
    Lag {
        topic: String,
        records: i64,
    },
    /// Something in Redis that belongs to a client or a gateway that is gone.
    LeftOver {
        what: String,
        key: String,
        detail: String,
    },
}

/// The parts of an envelope that are stored elsewhere too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Says {
    pub event_type: String,
    pub event_id: String,
    pub epoch: i64,
    pub conversation: i64,
    pub seq: i64,
    /// Of a `MESSAGE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<SaysMessage>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SaysMessage {
    pub id: i64,
    pub message_no: i64,
    pub client_message_id: String,
    /// Digest of the text.
    pub text: String,
}
