//! Messages in MySQL.

use std::collections::HashMap;

use proto::{ConversationId, MessageId, UserId};
use sqlx::{AssertSqlSafe, Row as _, mysql::MySqlRow};

use super::{Committed, Message, NewMessage};
use crate::{
    conversation::visibility::Range,
    db::{Db, SqlText, placeholders},
    error::Result,
};

const COLUMNS: &str = "conversation_id, seq, id, message_no, sender_id, kind, body, client_message_id, \
     thread_root_id, created_at, deleted_at IS NOT NULL";

fn from_row(row: &MySqlRow) -> Message {
    Message {
        conversation_id: ConversationId(row.get(0)),
        seq: row.get(1),
        id: MessageId(row.get(2)),
        message_no: row.get(3),
        sender_id: UserId(row.get(4)),
        kind: row.get(5),
        body: row.get(6),
        client_message_id: row.get(7),
        thread_root_id: row.get::<Option<i64>, _>(8).map(MessageId),
        created_at: row.get(9),
        deleted: row.get::<i64, _>(10) != 0,
    }
}

/// Inserts messages in one statement.
pub(super) fn insert(sql: &mut SqlText, rows: &[(&NewMessage, Committed)]) {
    sql.sql(
        "INSERT INTO messages (conversation_id, seq, id, message_no, sender_id, kind, body, thread_root_id, \
         client_message_id, request_hash, epoch, created_at) VALUES ",
    );
    sql.list(rows, |sql, (message, committed)| {
        sql.sql("(").int(message.conversation.0).sql(",").int(committed.seq).sql(",").int(committed.id.0);
        sql.sql(",").int(committed.message_no).sql(",").int(message.sender.0).sql(",").text(message.kind);
        sql.sql(",").text(&message.body).sql(",").opt_int(message.thread_root.map(|id| id.0));
        sql.sql(",").text(&message.client_message_id).sql(",").bytes(&message.request_hash);
        sql.sql(",").int(committed.epoch).sql(",").time(committed.created_at).sql(")");
    });
}

/// Messages of (conversation, seq), by conversation: one each.
pub async fn by_seq(db: &Db, places: &[(i64, i64)]) -> Result<HashMap<ConversationId, Message>> {
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let query =
        format!("SELECT {COLUMNS} FROM messages WHERE (conversation_id, seq) IN ({})", placeholders(places.len(), 2));
    let mut query = sqlx::query(AssertSqlSafe(query));
    for (conversation, seq) in places {
        query = query.bind(*conversation).bind(*seq);
    }
    let rows = query.fetch_all(db).await?;
    Ok(rows.iter().map(from_row).map(|message| (message.conversation_id, message)).collect())
}

/// The seq of a message.
pub async fn seq_of(db: &Db, conversation: ConversationId, id: MessageId) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar("SELECT seq FROM messages WHERE conversation_id = ? AND id = ?")
        .bind(conversation.0)
        .bind(id.0)
        .fetch_optional(db)
        .await?)
}

/// Which way history is read from a seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The newest that are older.
    Before,
    /// The oldest that are newer.
    After,
}

/// At most `limit` messages on one side of `from` (not included) within the ranges, in ascending order.
pub async fn history(
    db: &Db,
    conversation: ConversationId,
    visible: &[Range],
    from: i64,
    direction: Direction,
    limit: usize,
) -> Result<Vec<Message>> {
    if visible.is_empty() {
        return Ok(Vec::new());
    }
    let ranges = vec!["seq BETWEEN ? AND ?"; visible.len()].join(" OR ");
    let (side, order) = match direction {
        Direction::Before => ("seq < ?", "DESC"),
        Direction::After => ("seq > ?", "ASC"),
    };
    let query = format!(
        "SELECT {COLUMNS} FROM messages WHERE conversation_id = ? AND {side} AND ({ranges}) ORDER BY seq {order} LIMIT ?"
    );
    let mut query = sqlx::query(AssertSqlSafe(query)).bind(conversation.0).bind(from);
    for range in visible {
        query = query.bind(range.from).bind(range.to.unwrap_or(i64::MAX));
    }
    let rows = query.bind(limit as i64).fetch_all(db).await?;
    let mut messages: Vec<Message> = rows.iter().map(from_row).collect();
    if direction == Direction::Before {
        messages.reverse();
    }
    Ok(messages)
}
