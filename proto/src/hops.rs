//! Time stamps of a message's way, as each process remembers the latest of them in memory (`GET /hops` on its admin
//! listener). All clocks are the machine's; microseconds since the Unix epoch unless the name says otherwise.

use serde::{Deserialize, Serialize};

/// Core's part: from the request to the commit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct CommitHop {
    pub conversation_id: i64,
    pub seq: i64,
    /// The request was decoded.
    pub received_us: i64,
    /// COMMIT was answered.
    pub committed_us: i64,
}

/// The receiving gateway's part, with the stamps that the entry brought along.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct DeliveryHop {
    pub conversation_id: i64,
    pub seq: i64,
    /// The broker appended the record, in milliseconds.
    pub kafka_ms: i64,
    /// The worker took the record.
    pub worker_us: i64,
    /// Redis took the entry (its id), in milliseconds.
    pub redis_ms: i64,
    /// The gateway read the entry.
    pub read_us: i64,
    /// The frame was handed to the subscribers' queues.
    pub queued_us: i64,
}

/// The answer of `GET /hops`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hops<T> {
    pub items: Vec<T>,
}
