//! Reads of conversations: plain ones for people, locking ones for whatever attaches or compares.
//!
//! MySQL hands a transaction to binlog readers before its commit is visible to other sessions. A read that decides
//! where live delivery begins therefore waits for the conversation's row lock (`FOR SHARE`): who gets it sees every
//! commit of that conversation that was routed before. `FORCE INDEX (PRIMARY)`: a small table would be scanned, and the
//! rows of others waited for.
//!
//! Somebody may hold a row for seconds. So what is free is read first, and the rest row by row (see [`locked`]): a row
//! that stays locked is said to be, and costs only those who ask for it.

mod locked;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use chassis::seeded::{self, Bug};
use proto::{ConversationId, UserId};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Row as _};
use tokio::time::Instant;

use self::locked::each_alone;
pub use self::users::{Ended, Membership, UserState, user_states};
use super::{
    Conversation, Kind,
    store::{COLUMNS, from_row, not_found},
    visibility::{Interval, Range, visible},
};
use crate::{
    db::{Db, placeholders},
    error::{Refusal, Result, is_deadlock},
    message::{self, Message},
};

/// Rows of one statement with an IN list.
const CHUNK: usize = 500;

/// What becomes of rows that a transaction holds just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Waited for, all together; no wait begins later than this.
    Until(Instant),
    /// Not waited for. What does not exist is said to be locked, too: only a read that waits can tell them apart.
    Skip,
}

impl Held {
    /// Waited for, as long as one call may (see [`locked::WAIT`]).
    pub fn wait() -> Self {
        Self::Until(Instant::now() + locked::WAIT)
    }
}

/// What a locking read found.
#[derive(Clone, Debug)]
pub enum Found<T> {
    Row(T),
    Nothing,
    /// Somebody holds the row.
    Locked,
}

impl<T> Found<T> {
    /// The row, if there is one; refuses one that is locked, as what may be tried again.
    pub fn unlocked(self) -> Result<Option<T>> {
        match self {
            Found::Row(row) => Ok(Some(row)),
            Found::Nothing => Ok(None),
            Found::Locked => Err(busy().into()),
        }
    }
}

/// Why a row that somebody holds is not read.
pub fn busy() -> Refusal {
    Refusal::unavailable("a change is under way there; try again")
}

/// Rows of locking reads by id, and the ids that are locked. What does not exist is in neither.
#[derive(Debug, Default)]
pub struct Numbers {
    pub of: BTreeMap<i64, i64>,
    pub locked: BTreeSet<i64>,
}

impl Numbers {
    /// Refuses when any is locked.
    pub fn unlocked(self) -> Result<BTreeMap<i64, i64>> {
        if self.locked.is_empty() { Ok(self.of) } else { Err(busy().into()) }
    }
}

/// What somebody may see of a conversation, and its head, read together under the lock.
#[derive(Clone, Debug)]
pub struct Access {
    pub kind: Kind,
    pub head: i64,
    pub memberships: Vec<Interval>,
}

impl Access {
    pub fn visible(&self) -> Vec<Range> {
        visible(self.kind, &self.memberships)
    }
}

/// A row of the event log.
#[derive(Clone, Debug)]
pub struct LoggedEvent {
    pub event_id: String,
    pub event_type: String,
    pub seq: i64,
    pub epoch: i64,
    pub actor_id: Option<i64>,
    pub subject_id: Option<i64>,
    pub target_seq: Option<i64>,
    pub user_seq: Option<i64>,
    pub payload: String,
}

/// A conversation in somebody's list.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    pub conversation: Conversation,
    pub role: String,
    pub unread_count: i64,
    /// The last message that they may see.
    pub last_message: Option<Message>,
}

/// The epoch of now.
pub async fn epoch(db: &Db) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT epoch FROM cluster_state WHERE id = 1").fetch_one(db).await?)
}

/// Access of a person by a plain read, for requests of people; refuses a conversation that does not exist.
pub async fn access_of(db: &Db, user: UserId, conversation: ConversationId) -> Result<Access> {
    match access_plain(db, &[(user, conversation)]).await?.pop().flatten() {
        Some(access) => Ok(access),
        None => not_found(conversation),
    }
}

/// Access of each pair by plain reads; `None` where there is no such conversation. The head may be a moment old.
pub async fn access_plain(db: &Db, pairs: &[(UserId, ConversationId)]) -> Result<Vec<Option<Access>>> {
    let mut found = Rows::new();
    for chunk in pairs.chunks(CHUNK) {
        let ids: Vec<i64> = chunk.iter().map(|(_, conversation)| conversation.0).collect();
        let of_chunk: Vec<(i64, i64)> = chunk.iter().map(|(user, conversation)| (conversation.0, user.0)).collect();
        read_access(db, &ids, &of_chunk, Lock::None, &mut found).await?;
    }
    Ok(pick(&found, pairs))
}

/// Access of each pair by locking reads.
pub async fn access(db: &Db, pairs: &[(UserId, ConversationId)], held: Held) -> Result<Vec<Found<Access>>> {
    let mut of_conversation: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    for (user, conversation) in pairs {
        of_conversation.entry(conversation.0).or_default().push((conversation.0, user.0));
    }
    let ids: Vec<i64> = of_conversation.keys().copied().collect();
    let mut found = Rows::new();
    for chunk in ids.chunks(CHUNK) {
        let of_chunk: Vec<(i64, i64)> = chunk.iter().flat_map(|id| &of_conversation[id]).copied().collect();
        read_access(db, chunk, &of_chunk, Lock::ShareSkipLocked, &mut found).await?;
    }
    // Locked by a writer just now, or not there.
    let missed: Vec<i64> = ids.into_iter().filter(|id| !found.contains_key(id)).collect();
    let locked = match held {
        Held::Skip => missed.into_iter().collect(),
        Held::Until(until) => {
            let alone = |id: i64, lock: Lock| {
                let own = &of_conversation[&id];
                async move {
                    let mut found = Rows::new();
                    read_access(db, &[id], own, lock, &mut found).await?;
                    Ok(found)
                }
            };
            let (rows, locked) = each_alone(db, missed, until, alone).await?;
            found.extend(rows.into_iter().flatten());
            locked
        }
    };
    let accesses = pick(&found, pairs).into_iter().zip(pairs);
    Ok(accesses
        .map(|(access, (_, conversation))| match access {
            Some(access) => Found::Row(access),
            None if locked.contains(&conversation.0) => Found::Locked,
            None => Found::Nothing,
        })
        .collect())
}

fn pick(found: &Rows, pairs: &[(UserId, ConversationId)]) -> Vec<Option<Access>> {
    let one = |(user, conversation): &(UserId, ConversationId)| {
        let (kind, head, memberships) = found.get(&conversation.0)?;
        let memberships = memberships.get(&user.0).cloned().unwrap_or_default();
        Some(Access { kind: *kind, head: *head, memberships })
    };
    pairs.iter().map(one).collect()
}

/// How a conversation's row is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    None,
    /// Waits for writers, for so long.
    Share(Duration),
    /// Fails when a writer holds one.
    ShareNoWait,
    /// Leaves out what a writer holds.
    ShareSkipLocked,
}

impl Lock {
    fn clause(self) -> &'static str {
        match self {
            Lock::None => "",
            _ if seeded::on(Bug::PlainRead) => "",
            Lock::Share(_) => "FOR SHARE",
            Lock::ShareNoWait => "FOR SHARE NOWAIT",
            Lock::ShareSkipLocked => "FOR SHARE SKIP LOCKED",
        }
    }

    /// Behind SELECT: the server's own limit is in whole seconds, and for all statements of a session.
    fn hint(self) -> String {
        match self {
            Lock::Share(wait) => format!("/*+ MAX_EXECUTION_TIME({}) */", wait.as_millis()),
            _ => String::new(),
        }
    }
}

/// By conversation: kind, head, and intervals of each user.
type Rows = HashMap<i64, (Kind, i64, HashMap<i64, Vec<Interval>>)>;

/// Heads, under the lock if any, and the memberships of `pairs` (conversation, user) before it is given back.
async fn read_access(db: &Db, ids: &[i64], pairs: &[(i64, i64)], lock: Lock, found: &mut Rows) -> Result<()> {
    let heads = format!(
        "SELECT {} id, kind, last_seq FROM conversations FORCE INDEX (PRIMARY) WHERE id IN ({}) ORDER BY id {}",
        lock.hint(),
        placeholders(ids.len(), 1),
        lock.clause()
    );
    let members = format!(
        "SELECT conversation_id, user_id, joined_seq, left_seq FROM conversation_members
         WHERE (conversation_id, user_id) IN ({}) ORDER BY conversation_id, user_id, joined_seq",
        placeholders(pairs.len(), 2)
    );
    let (ids, pairs) = (ids.to_vec(), pairs.to_vec());
    let (heads, members) = db
        // What waited in vain is not tried again here: the caller has a limit for all.
        .transact_again_if(is_deadlock, "read access", |tx| {
            let (ids, pairs, heads, members) = (ids.clone(), pairs.clone(), heads.clone(), members.clone());
            Box::pin(async move {
                let mut heads = sqlx::query(AssertSqlSafe(heads));
                for id in &ids {
                    heads = heads.bind(*id);
                }
                let heads = heads.fetch_all(&mut *tx).await?;
                let mut members = sqlx::query(AssertSqlSafe(members));
                for (conversation, user) in &pairs {
                    members = members.bind(*conversation).bind(*user);
                }
                Ok((heads, members.fetch_all(tx).await?))
            })
        })
        .await?;
    for row in &heads {
        let kind = Kind::parse(row.get(1))?;
        // Pairs of one conversation may be in several chunks.
        found.entry(row.get(0)).or_insert_with(|| (kind, row.get(2), HashMap::new()));
    }
    for row in &members {
        if let Some((_, _, of_user)) = found.get_mut(&row.get::<i64, _>(0)) {
            let interval = Interval { joined_seq: row.get(2), left_seq: row.get(3) };
            of_user.entry(row.get(1)).or_default().push(interval);
        }
    }
    Ok(())
}

/// Heads by locking reads.
pub async fn heads(db: &Db, ids: &[ConversationId], held: Held) -> Result<Numbers> {
    numbers(db, "last_seq FROM conversations", ids.iter().map(|id| id.0), held).await
}

/// A number of each row by locking reads: `what` names column and table.
async fn numbers(db: &Db, what: &str, ids: impl Iterator<Item = i64>, held: Held) -> Result<Numbers> {
    let ids: Vec<i64> = ids.collect::<BTreeSet<i64>>().into_iter().collect();
    let mut of = BTreeMap::new();
    for chunk in ids.chunks(CHUNK) {
        of.extend(read_numbers(db, what, chunk, Lock::ShareSkipLocked).await?);
    }
    let missed: Vec<i64> = ids.into_iter().filter(|id| !of.contains_key(id)).collect();
    let locked = match held {
        Held::Skip => missed.into_iter().collect(),
        Held::Until(until) => {
            let alone = |id: i64, lock: Lock| async move { read_numbers(db, what, &[id], lock).await };
            let (rows, locked) = each_alone(db, missed, until, alone).await?;
            of.extend(rows.into_iter().flatten());
            locked
        }
    };
    Ok(Numbers { of, locked })
}

/// A statement on its own is a transaction: the lock ends with it.
async fn read_numbers(db: &Db, what: &str, ids: &[i64], lock: Lock) -> Result<Vec<(i64, i64)>> {
    let query = format!(
        "SELECT {} id, {what} FORCE INDEX (PRIMARY) WHERE id IN ({}) ORDER BY id {}",
        lock.hint(),
        placeholders(ids.len(), 1),
        lock.clause()
    );
    let mut query = sqlx::query(AssertSqlSafe(query));
    for id in ids {
        query = query.bind(*id);
    }
    Ok(query.fetch_all(db).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Events with `after < seq <= up_to`, in order, at most `limit`.
pub async fn events(
    db: &Db,
    conversation: ConversationId,
    after: i64,
    up_to: i64,
    limit: usize,
) -> Result<Vec<LoggedEvent>> {
    let rows = sqlx::query(
        "SELECT id, type, seq, epoch, actor_id, subject_id, target_seq, user_seq, payload FROM message_producer_outbox
         WHERE conversation_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
    )
    .bind(conversation.0)
    .bind(after)
    .bind(up_to)
    .bind(limit as i64)
    .fetch_all(db)
    .await?;
    Ok(rows
        .iter()
        .map(|row| LoggedEvent {
            event_id: row.get(0),
            event_type: row.get(1),
            seq: row.get(2),
            epoch: row.get(3),
            actor_id: row.get(4),
            subject_id: row.get(5),
            target_seq: row.get(6),
            user_seq: row.get(7),
            payload: row.get(8),
        })
        .collect())
}

/// A conversation for one of its members.
pub async fn one(db: &Db, user: UserId, id: ConversationId) -> Result<Conversation> {
    let query = format!("SELECT {COLUMNS} FROM conversations c WHERE c.id = ?");
    let row = sqlx::query(AssertSqlSafe(query)).bind(id.0).fetch_optional(db).await?;
    let Some(conversation) = row.as_ref().map(from_row).transpose()? else { return not_found(id) };
    // A public channel is everybody's to look at before they join.
    if conversation.visibility != super::Visibility::Public {
        require_member(db, user, id).await?;
    }
    Ok(conversation)
}

/// Refuses who is not a member now. A plain read: for requests of people, not for what attaches.
pub async fn require_member(db: &Db, user: UserId, id: ConversationId) -> Result<()> {
    let member: Option<i64> = sqlx::query_scalar(
        "SELECT joined_seq FROM conversation_members WHERE conversation_id = ? AND user_id = ? AND left_seq IS NULL",
    )
    .bind(id.0)
    .bind(user.0)
    .fetch_optional(db)
    .await?;
    if member.is_some() {
        return Ok(());
    }
    let exists: Option<i64> =
        sqlx::query_scalar("SELECT id FROM conversations WHERE id = ?").bind(id.0).fetch_optional(db).await?;
    if exists.is_none() {
        return not_found(id);
    }
    Err(Refusal::new(proto::Code::NotAMember, format!("you are not a member of {id}")).into())
}

/// The members of now, by user id behind `after`: id and role.
pub async fn members(db: &Db, id: ConversationId, after: i64, limit: usize) -> Result<Vec<(UserId, String)>> {
    let rows = sqlx::query(
        "SELECT user_id, role FROM conversation_members
         WHERE conversation_id = ? AND left_seq IS NULL AND user_id > ? ORDER BY user_id LIMIT ?",
    )
    .bind(id.0)
    .bind(after)
    .bind(limit as i64)
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(|row| (UserId(row.get(0)), row.get(1))).collect())
}

/// The conversations of a member by id behind `after`. Unread is the head's `message_no` minus that at the read
/// position (at least the join), so an edit or a reaction never raises it.
pub async fn mine(db: &Db, user: UserId, after: i64, limit: usize) -> Result<Vec<Listed>> {
    let query = format!(
        "SELECT {COLUMNS}, m.role,
            c.message_no - COALESCE((SELECT r.message_no FROM messages r WHERE r.conversation_id = c.id
                AND r.seq <= GREATEST(m.joined_seq, COALESCE(a.read_seq, 0)) ORDER BY r.seq DESC LIMIT 1), 0),
            (SELECT MAX(l.seq) FROM messages l WHERE l.conversation_id = c.id
                AND l.seq >= IF(c.kind = 'channel', 1, m.joined_seq))
         FROM conversation_members m JOIN conversations c ON c.id = m.conversation_id
         LEFT JOIN message_acks a ON a.user_id = m.user_id AND a.conversation_id = m.conversation_id
         WHERE m.user_id = ? AND m.left_seq IS NULL AND c.id > ? ORDER BY c.id LIMIT ?"
    );
    let rows = sqlx::query(AssertSqlSafe(query)).bind(user.0).bind(after).bind(limit as i64).fetch_all(db).await?;
    let last: Vec<(i64, i64)> =
        rows.iter().filter_map(|row| Some((row.get(0), row.get::<Option<i64>, _>(12)?))).collect();
    let mut last = message::store::by_seq(db, &last).await?;
    rows.iter()
        .map(|row| {
            let conversation = from_row(row)?;
            let last_message = last.remove(&conversation.id);
            Ok(Listed { conversation, role: row.get(10), unread_count: row.get(11), last_message })
        })
        .collect()
}
