//! Delivery and read positions: cumulative, never backwards, written in batches.
//!
//! A sender's own message moves their read position; those come through a bounded queue and may be dropped under load
//! (the next one moves it as far). Positions that clients report are written before they are acknowledged.

use std::{collections::HashMap, time::Duration};

use proto::{ConversationId, UserId};
use sqlx::{MySql, QueryBuilder};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{db::Db, error::Result};

/// Senders' positions that wait.
const QUEUE: usize = 8192;
/// Rows of one statement.
const BATCH: usize = 256;
/// How long senders' positions are collected before they are written.
const LINGER: Duration = Duration::from_millis(200);

/// A position to be raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub delivered_seq: i64,
    pub read_seq: i64,
}

impl Position {
    fn raise(&mut self, other: Position) {
        self.delivered_seq = self.delivered_seq.max(other.delivered_seq);
        self.read_seq = self.read_seq.max(other.read_seq);
    }
}

/// Positions by whose and where they are, each raised to the highest heard of.
pub type Positions = HashMap<(UserId, ConversationId), Position>;

/// Adds a position to others.
pub fn raise(positions: &mut Positions, user: UserId, conversation: ConversationId, position: Position) {
    positions.entry((user, conversation)).or_default().raise(position);
}

/// The queue of senders' own positions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acks {
    sent: mpsc::Sender<(UserId, ConversationId, i64)>,
}

impl Acks {
    /// Starts the task that writes them.
    pub fn start(lifecycle: &chassis::Lifecycle, db: Db) -> Self {
        let (sent, queue) = mpsc::channel(QUEUE);
        lifecycle.spawn("senders' positions", write_sent(db, queue, lifecycle.draining()));
        Self { sent }
    }

    /// The sender has read up to their own message.
    pub fn sent(&self, user: UserId, conversation: ConversationId, seq: i64) {
        // Full: the next message of the same sender moves the position as far.
        let _ = self.sent.try_send((user, conversation, seq));
    }
}

async fn write_sent(db: Db, mut queue: mpsc::Receiver<(UserId, ConversationId, i64)>, draining: CancellationToken) {
    let mut waiting = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        let mut positions = Positions::new();
        for (user, conversation, seq) in waiting.drain(..) {
            raise(&mut positions, user, conversation, Position { delivered_seq: seq, read_seq: seq });
        }
        if let Err(error) = store(&db, &positions).await {
            debug!(%error, "senders' positions were not written");
        }
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            () = draining.cancelled() => {}
        }
    }
}

/// Writes positions; none moves backwards.
pub async fn store(db: &Db, positions: &Positions) -> Result<()> {
    let mut rows: Vec<_> = positions.iter().collect();
    // In one order everywhere, so that two statements never deadlock.
    rows.sort_unstable_by_key(|(key, _)| **key);
    for chunk in rows.chunks(BATCH) {
        let now = crate::now();
        let mut query = QueryBuilder::<MySql>::new(
            "INSERT INTO message_acks (user_id, conversation_id, delivered_seq, read_seq, updated_at) ",
        );
        query.push_values(chunk, |mut row, ((user, conversation), position)| {
            row.push_bind(user.0)
                .push_bind(conversation.0)
                .push_bind(position.delivered_seq)
                .push_bind(position.read_seq)
                .push_bind(now);
        });
        query.push(
            " ON DUPLICATE KEY UPDATE delivered_seq = GREATEST(delivered_seq, VALUES(delivered_seq)), \
             read_seq = GREATEST(read_seq, VALUES(read_seq)), updated_at = VALUES(updated_at)",
        );
        query.build().execute(db).await?;
    }
    Ok(())
}
