//! Debezium's raw change envelope, as its connectors write it without a transforming step
//! (JsonConverter with `schemas.enable=false`): `before`, `after`, `source`, `op`, `ts_ms`.
//! See the Debezium reference, "MySQL connector: data change events".

use serde::{Deserialize, Serialize};

/// What happened to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    #[serde(rename = "c")]
    Create,
    #[serde(rename = "u")]
    Update,
    #[serde(rename = "d")]
    Delete,
    /// A snapshot's read.
    #[serde(rename = "r")]
    Read,
    #[serde(rename = "t")]
    Truncate,
    /// A message of the connector itself.
    #[serde(rename = "m")]
    Message,
}

/// One change of a row of type `T`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change<T> {
    /// The row before; absent for an insert.
    pub before: Option<T>,
    /// The row after; absent for a delete.
    pub after: Option<T>,
    pub source: Source,
    pub op: Op,
    /// When the connector processed the change, milliseconds since the Unix epoch.
    pub ts_ms: Option<i64>,
    /// The same in microseconds.
    #[serde(default)]
    pub ts_us: Option<i64>,
}

/// Where the change stands in the source. Fields that this version does not know are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub version: String,
    pub connector: String,
    pub name: String,
    /// When the change was made in the database, milliseconds since the Unix epoch.
    pub ts_ms: i64,
    /// The same in microseconds.
    #[serde(default)]
    pub ts_us: Option<i64>,
    /// `"false"`, or a word of a snapshot; text in Debezium 3, a boolean in older versions.
    #[serde(default)]
    pub snapshot: serde_json::Value,
    pub db: String,
    #[serde(default)]
    pub table: Option<String>,
    #[serde(default)]
    pub server_id: i64,
    #[serde(default)]
    pub gtid: Option<String>,
    /// The binlog's file, the position in it, and the row within that event.
    pub file: String,
    pub pos: i64,
    pub row: i32,
}

/// The key of a change of `message_producer_outbox`: its primary key. The record behind a delete has this key and no
/// value (a tombstone).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxKey {
    pub id: String,
    /// Microseconds since the Unix epoch.
    pub created_at: i64,
}

/// A row of `message_producer_outbox`. `created_at` is microseconds since the Unix epoch (`io.debezium.time.MicroTimestamp`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    pub id: String,
    pub aggregatetype: String,
    pub aggregateid: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub payload: String,
    pub conversation_id: Option<i64>,
    pub seq: Option<i64>,
    pub epoch: i64,
    pub actor_id: Option<i64>,
    pub subject_id: Option<i64>,
    pub target_seq: Option<i64>,
    pub user_seq: Option<i64>,
    pub traceparent: Option<String>,
    pub tracingspancontext: Option<String>,
    pub created_at: i64,
}
