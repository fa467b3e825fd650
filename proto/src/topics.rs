//! Kafka topics and record headers.

/// All sequenced events; key = conversation id; written by Debezium's EventRouter (`aggregatetype` = `message`).
pub const MESSAGE_EVENTS: &str = "chat.message.events";
/// What happens to a person: memberships, notifications; key = user id; EventRouter (`aggregatetype` = `user`).
pub const USER_EVENTS: &str = "chat.user.events";
/// CONNECTED, DISCONNECTED, PRESENCE; key = user id; written by core.
pub const CONNECTION_EVENTS: &str = "chat.connection.events";
/// Typing and receipts; key = conversation id; written by core, kept briefly.
pub const EPHEMERAL_EVENTS: &str = "chat.ephemeral.events";
/// Records that can't be routed; written by the fanout worker.
pub const DEAD_LETTERS: &str = "chat.fanout.dlq";
/// Rows inserted by hand to see that change capture streams; EventRouter (`aggregatetype` = `canary`).
pub const CANARY_EVENTS: &str = "chat.canary.events";

/// Partitions of every topic but the canary's. Another number means a new topic and a new epoch.
pub const PARTITIONS: i32 = 32;

/// `aggregatetype` values of the outbox.
pub mod aggregate {
    pub const MESSAGE: &str = "message";
    pub const USER: &str = "user";
    pub const CANARY: &str = "canary";
}

/// Record headers; the values are UTF-8 text, numbers in decimal; a column that is NULL is a header without value.
pub mod header {
    /// The event id (EventRouter's own).
    pub const ID: &str = "id";
    pub const EVENT_TYPE: &str = "eventType";
    pub const CONVERSATION_ID: &str = "conversation_id";
    pub const SEQ: &str = "seq";
    pub const EPOCH: &str = "epoch";
    pub const ACTOR_ID: &str = "actor_id";
    pub const SUBJECT_ID: &str = "subject_id";
    pub const TARGET_SEQ: &str = "target_seq";
    pub const USER_SEQ: &str = "user_seq";
    pub const TRACEPARENT: &str = "traceparent";

    /// Headers that the dead-letter topic adds to the source's.
    pub mod dlq {
        pub const TOPIC: &str = "dlq.topic";
        pub const PARTITION: &str = "dlq.partition";
        pub const OFFSET: &str = "dlq.offset";
        /// What was wrong, one stable word.
        pub const REASON: &str = "dlq.reason";
        /// What was wrong, for people.
        pub const ERROR: &str = "dlq.error";
        /// When, RFC 3339.
        pub const AT: &str = "dlq.at";
        /// On a letter that its topic took only in part: the parts of the record that are left out, with commas.
        pub const OMITTED: &str = "dlq.omitted";
        /// On a note, which has no value: the offset, in its partition, of the dead letter that was replayed.
        pub const REPLAYED_OFFSET: &str = "dlq.replayed.offset";
        /// On a note: where the record stands now, `topic[partition]@offset`.
        pub const REPLAYED_TO: &str = "dlq.replayed.to";
    }
}
