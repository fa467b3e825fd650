//! The records of one client.

use serde::{Deserialize, Serialize};

/// How far a client had got in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub conversation: i64,
    pub seq: i64,
    pub epoch: i64,
}

/// What a client resumes with: the headers of one SUBSCRIBE, or all `/app/resume` before it added up. It resumes from
/// what it was given on this subscription, and names every conversation of it that has not ended: a client that claims to
/// have more can't be judged, and what one that keeps something back misses is counted as lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// One for each conversation. (Not a map: serde can't read numbers as keys inside of a tagged record.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cursors: Vec<Cursor>,
    /// Only on `/user/queue/events`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_seq: Option<i64>,
}

/// What a client did or saw. A session is one connection; a client numbers its sessions from 1. A *subscription* is
/// named by the client, and has the same name in each session that goes on with it: what came on that name over all
/// sessions is one stream for each conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum ClientRecord {
    /// The first record of each file.
    Client { name: String, user: i64 },

    /// CONNECTED was read.
    Connected { session: u32, gateway: String },
    /// The connection is gone, or is not listened to from here on. `why` is for people: `asked`, `cut`, a close code.
    Disconnected { session: u32, why: String },

    /// A SUBSCRIBE is about to be sent.
    Subscribed {
        session: u32,
        subscription: String,
        /// The conversation of `/topic/conversations/{id}`; none on `/user/queue/events`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        conversation: Option<i64>,
        /// None: it starts at the head, whatever this name was given before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Resume>,
    },
    /// The RECEIPT of the SUBSCRIBE was read.
    Attached { session: u32, subscription: String },
    /// An UNSUBSCRIBE is about to be sent; or the subscription is over without it.
    Unsubscribed {
        session: u32,
        subscription: String,
        /// `subscription_ended` was read: the membership is over, and all of it must have come.
        #[serde(default)]
        taken_away: bool,
    },

    /// A RESUMED event was read. The fields are the event's.
    Resumed {
        session: u32,
        subscription: String,
        conversation: i64,
        after_seq: i64,
        head: i64,
        epoch: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_seq: Option<i64>,
        recovered: bool,
        ended: bool,
        tier: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skipped: Vec<(i64, i64)>,
    },
    /// A sequenced event was read (not only of type `MESSAGE`). Events without `seq` are not written down.
    Message {
        session: u32,
        subscription: String,
        conversation: i64,
        seq: i64,
        /// Of the header, not of the body.
        epoch: i64,
        event_type: String,
        event_id: String,
        /// [`digest`](super::digest) of the frame's body as it came.
        body: String,
    },

    /// A SEND of a message is about to be sent. Sent again, it is written again. Each text is sent under one
    /// `client_message_id` only, and each has another text, so that a message that was stored under a name of
    /// somebody else's choice is found.
    Send {
        session: u32,
        conversation: i64,
        client_message_id: String,
        /// [`digest`](super::digest) of the message's text (not of the frame's body).
        text: String,
    },
    /// The RECEIPT of a SEND was read.
    Acknowledged { session: u32, conversation: i64, client_message_id: String, seq: i64, message_id: i64, epoch: i64 },
    /// A SEND was refused.
    Refused { session: u32, conversation: i64, client_message_id: String, code: String },
    /// The connection went before the SEND was answered.
    Unanswered { session: u32, conversation: i64, client_message_id: String },
}
