//! The event envelope: one JSON body for STOMP, Kafka and the event log.
//!
//! It is serialised once, in core, inside the transaction that stores it; everything behind the outbox passes the
//! bytes on unread. Readers ignore types and fields that they do not know.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{ConversationId, MessageId, UserId};

macro_rules! event_types {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The event types of this version.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventType { $($(#[$doc])* $variant,)* }

        impl EventType {
            pub const ALL: &'static [EventType] = &[$(EventType::$variant),*];

            /// The type as it stands on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(EventType::$variant => $text,)* }
            }

            /// The type of that text; `None` for one that this version does not know (pass it on unread).
            pub fn from_wire(text: &str) -> Option<Self> {
                match text { $($text => Some(EventType::$variant),)* _ => None }
            }
        }
    };
}

event_types! {
    Message = "MESSAGE",
    UserJoined = "USER_JOINED",
    UserLeft = "USER_LEFT",
    ConversationCreated = "CONVERSATION_CREATED",
    ConversationUpdated = "CONVERSATION_UPDATED",
    ConversationArchived = "CONVERSATION_ARCHIVED",
    ConversationUnarchived = "CONVERSATION_UNARCHIVED",
    /// On the user topic: this user is a member from `joined_seq` on.
    MembershipStarted = "MEMBERSHIP_STARTED",
    /// On the user topic: this user's membership ended with `left_seq`.
    MembershipEnded = "MEMBERSHIP_ENDED",
    UserCreated = "USER_CREATED",
    Typing = "TYPING",
    Connected = "CONNECTED",
    Disconnected = "DISCONNECTED",
    /// From the gateway: where delivery of a conversation starts.
    Resumed = "RESUMED",
    /// From the gateway: read presence, receipts and the like again.
    StateChanged = "STATE_CHANGED",
}

/// The envelope. `D` is the event's data, or [`RawValue`] for a reader that passes it on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope<D = Box<RawValue>> {
    #[serde(rename = "type")]
    pub event_type: String,
    pub event_id: String,
    pub epoch: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// Whose event it is, on the user and connection topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_seq: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<UserId>,
    #[serde(serialize_with = "rfc3339_micros")]
    pub at: DateTime<Utc>,
    pub data: D,
}

/// Times on the wire: RFC 3339, UTC, microseconds.
pub fn format_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn rfc3339_micros<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_time(*at))
}

/// Data of MESSAGE.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageData {
    pub message_id: MessageId,
    /// Counts the messages of the conversation, from 1.
    pub message_no: i64,
    pub kind: String,
    pub body: String,
    pub client_message_id: String,
    pub thread_root_id: Option<MessageId>,
    #[serde(default)]
    pub mentions: Vec<UserId>,
    #[serde(default)]
    pub attachments: Vec<serde_json::Value>,
    #[serde(default)]
    pub deleted: bool,
}

/// Data of USER_JOINED and USER_LEFT.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberData {
    pub user_id: UserId,
    pub role: String,
    /// `created`, `added`, `joined`, `left`, `removed`.
    pub reason: String,
}

/// Data of MEMBERSHIP_STARTED and MEMBERSHIP_ENDED.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MembershipData {
    pub conversation_id: ConversationId,
    pub kind: String,
    pub role: String,
    pub joined_seq: i64,
    /// Absent while the membership lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_seq: Option<i64>,
}

/// Data of TYPING.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TypingData {
    pub user_id: UserId,
    pub expires_in_ms: u64,
}

/// Where a RESUMED says that the replay comes from.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Nothing to replay.
    Live,
    /// The gateway's memory.
    Ring,
    /// The event log in MySQL.
    Log,
}

/// Data of RESUMED: delivery on this subscription and conversation goes on behind `after_seq`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResumedData {
    pub conversation_id: ConversationId,
    pub after_seq: i64,
    pub head: i64,
    pub epoch: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_seq: Option<i64>,
    /// False: events may be missing before `after_seq`; read the history.
    pub recovered: bool,
    /// True: nothing more will come of this conversation.
    pub ended: bool,
    pub tier: Tier,
    /// Ranges of seqs, ends included, that the user may not see and that do not come.
    pub skipped: Vec<[i64; 2]>,
}
