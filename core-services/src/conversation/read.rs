//! Reads of conversations: plain ones for people, locking ones for whatever attaches or compares.
//!
//! MySQL hands a transaction to binlog readers before its commit is visible to other sessions. A read that decides
//! where live delivery begins therefore waits for the conversation's row lock (`FOR SHARE`): who gets it sees every
//! commit of that conversation that was routed before. `FORCE INDEX (PRIMARY)`: a small table would be scanned, and the
//! rows of others waited for.

use std::collections::{BTreeSet, HashMap};

use chassis::seeded::{self, Bug};
use proto::{ConversationId, UserId};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Row as _, mysql::MySqlRow};

use super::{
    Conversation, Kind,
    store::{COLUMNS, from_row, not_found},
    visibility::{Interval, Range, visible},
};
use crate::{
    db::{Db, placeholders},
    error::{Refusal, Result},
    message::{self, Message},
};

/// Rows of one statement with an IN list.
const CHUNK: usize = 500;

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

/// A person's memberships.
#[derive(Clone, Debug)]
pub struct UserState {
    pub user: UserId,
    pub user_seq: i64,
    pub memberships: Vec<Membership>,
    /// That began behind the `user_seq` which the asker knows, and are over.
    pub ended: Vec<Ended>,
}

#[derive(Clone, Debug)]
pub struct Membership {
    pub conversation: ConversationId,
    pub kind: Kind,
    pub role: String,
    pub joined_seq: i64,
    pub joined_user_seq: i64,
    pub head: i64,
    pub read_seq: i64,
}

/// A membership of the past, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub conversation: ConversationId,
    pub joined_seq: i64,
    pub joined_user_seq: i64,
    pub left_seq: i64,
    pub left_user_seq: i64,
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
    let mut found = Found::new();
    for chunk in pairs.chunks(CHUNK) {
        let ids: Vec<i64> = chunk.iter().map(|(_, conversation)| conversation.0).collect();
        let of_chunk: Vec<(i64, i64)> = chunk.iter().map(|(user, conversation)| (conversation.0, user.0)).collect();
        read_access(db, &ids, &of_chunk, Lock::None, &mut found).await?;
    }
    Ok(pick(&found, pairs))
}

/// Access of each pair by locking reads; `None` where there is no such conversation.
pub async fn access(db: &Db, pairs: &[(UserId, ConversationId)]) -> Result<Vec<Option<Access>>> {
    let ids: BTreeSet<i64> = pairs.iter().map(|(_, conversation)| conversation.0).collect();
    let ids: Vec<i64> = ids.into_iter().collect();
    let mut found = Found::new();
    for chunk in ids.chunks(CHUNK) {
        let of_chunk: Vec<(i64, i64)> = pairs
            .iter()
            .filter(|(_, conversation)| chunk.binary_search(&conversation.0).is_ok())
            .map(|(user, conversation)| (conversation.0, user.0))
            .collect();
        read_access(db, chunk, &of_chunk, Lock::ShareSkipLocked, &mut found).await?;
        for id in chunk {
            // Locked by a writer just now, or not there: asked alone, and waited for.
            if !found.contains_key(id) {
                let own: Vec<_> = of_chunk.iter().filter(|(conversation, _)| conversation == id).copied().collect();
                read_access(db, &[*id], &own, Lock::Share, &mut found).await?;
            }
        }
    }
    Ok(pick(&found, pairs))
}

fn pick(found: &Found, pairs: &[(UserId, ConversationId)]) -> Vec<Option<Access>> {
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
    /// Waits for writers.
    Share,
    /// Leaves out what a writer holds.
    ShareSkipLocked,
}

impl Lock {
    fn clause(self) -> &'static str {
        match self {
            Lock::None => "",
            _ if seeded::on(Bug::PlainRead) => "",
            Lock::Share => "FOR SHARE",
            Lock::ShareSkipLocked => "FOR SHARE SKIP LOCKED",
        }
    }
}

type Found = HashMap<i64, (Kind, i64, HashMap<i64, Vec<Interval>>)>;

/// Heads, under the lock if any, and the memberships of `pairs` (conversation, user) before it is given back.
async fn read_access(db: &Db, ids: &[i64], pairs: &[(i64, i64)], lock: Lock, found: &mut Found) -> Result<()> {
    let heads = format!(
        "SELECT id, kind, last_seq FROM conversations FORCE INDEX (PRIMARY) WHERE id IN ({}) ORDER BY id {}",
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
        .transact("read access", |tx| {
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

/// Heads by locking reads; conversations that do not exist are left out.
pub async fn heads(db: &Db, ids: &[ConversationId]) -> Result<Vec<(ConversationId, i64)>> {
    let ids: BTreeSet<i64> = ids.iter().map(|id| id.0).collect();
    let ids: Vec<i64> = ids.into_iter().collect();
    let mut heads = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let start = heads.len();
        read_heads(db, chunk, Lock::ShareSkipLocked, &mut heads).await?;
        let got: BTreeSet<i64> = heads[start..].iter().map(|(id, _)| id.0).collect();
        for id in chunk.iter().filter(|id| !got.contains(id)) {
            read_heads(db, &[*id], Lock::Share, &mut heads).await?;
        }
    }
    Ok(heads)
}

/// A statement on its own is a transaction: the lock ends with it.
async fn read_heads(db: &Db, ids: &[i64], lock: Lock, heads: &mut Vec<(ConversationId, i64)>) -> Result<()> {
    let query = format!(
        "SELECT id, last_seq FROM conversations FORCE INDEX (PRIMARY) WHERE id IN ({}) ORDER BY id {}",
        placeholders(ids.len(), 1),
        lock.clause()
    );
    let mut query = sqlx::query(AssertSqlSafe(query));
    for id in ids {
        query = query.bind(*id);
    }
    let rows = query.fetch_all(db).await?;
    heads.extend(rows.iter().map(|row| (ConversationId(row.get(0)), row.get::<i64, _>(1))));
    Ok(())
}

/// Each user's `user_seq` under a shared lock of its own, the memberships after it, the heads after those. So the
/// memberships are at least as new as the `user_seq`. Users who do not exist are left out. `known`: who wants the
/// memberships that have come and gone since that `user_seq` too.
pub async fn user_states(db: &Db, users: &[UserId], known: &HashMap<UserId, i64>) -> Result<Vec<UserState>> {
    let mut states = Vec::with_capacity(users.len());
    for chunk in users.chunks(CHUNK) {
        let marks = placeholders(chunk.len(), 1);
        let seqs = format!(
            "SELECT id, user_seq FROM users FORCE INDEX (PRIMARY) WHERE id IN ({marks}) ORDER BY id {}",
            Lock::Share.clause()
        );
        let members = format!(
            "SELECT m.user_id, m.conversation_id, c.kind, m.role, m.joined_seq, m.joined_user_seq, COALESCE(a.read_seq, 0)
             FROM conversation_members m JOIN conversations c ON c.id = m.conversation_id
             LEFT JOIN message_acks a ON a.user_id = m.user_id AND a.conversation_id = m.conversation_id
             WHERE m.user_id IN ({marks}) AND m.left_seq IS NULL ORDER BY m.user_id, m.conversation_id"
        );
        let (mut seqs, mut members) = (sqlx::query(AssertSqlSafe(seqs)), sqlx::query(AssertSqlSafe(members)));
        for user in chunk {
            seqs = seqs.bind(user.0);
            members = members.bind(user.0);
        }
        let seqs = seqs.fetch_all(db).await?;
        let members = members.fetch_all(db).await?;
        // Behind the others: what ends in between is in both, and not in neither.
        let mut ended = ended_since(db, &seqs, known).await?;
        let conversations: Vec<_> = members.iter().map(|row| ConversationId(row.get(1))).collect();
        let heads: HashMap<_, _> = heads(db, &conversations).await?.into_iter().collect();
        let mut of_user: HashMap<i64, Vec<Membership>> = HashMap::new();
        for row in &members {
            let conversation = ConversationId(row.get(1));
            let Some(head) = heads.get(&conversation) else { continue };
            of_user.entry(row.get(0)).or_default().push(Membership {
                conversation,
                kind: Kind::parse(row.get(2))?,
                role: row.get(3),
                joined_seq: row.get(4),
                joined_user_seq: row.get(5),
                head: *head,
                read_seq: row.get(6),
            });
        }
        states.extend(seqs.iter().map(|row| UserState {
            user: UserId(row.get(0)),
            user_seq: row.get(1),
            memberships: of_user.remove(&row.get::<i64, _>(0)).unwrap_or_default(),
            ended: ended.remove(&row.get::<i64, _>(0)).unwrap_or_default(),
        }));
    }
    Ok(states)
}

/// By user; `seqs` are rows of id and `user_seq`: who has the known one has nothing to be read.
async fn ended_since(db: &Db, seqs: &[MySqlRow], known: &HashMap<UserId, i64>) -> Result<HashMap<i64, Vec<Ended>>> {
    let behind = seqs.iter().filter_map(|row| {
        let (user, user_seq): (i64, i64) = (row.get(0), row.get(1));
        let known = *known.get(&UserId(user))?;
        (known < user_seq).then_some((user, known))
    });
    let behind: Vec<(i64, i64)> = behind.collect();
    let mut of_user: HashMap<i64, Vec<Ended>> = HashMap::new();
    if behind.is_empty() {
        return Ok(of_user);
    }
    let users = vec!["(user_id = ? AND joined_user_seq > ?)"; behind.len()].join(" OR ");
    let ended = format!(
        "SELECT user_id, conversation_id, joined_seq, joined_user_seq, left_seq, left_user_seq
         FROM conversation_members WHERE left_seq IS NOT NULL AND ({users}) ORDER BY user_id, joined_user_seq"
    );
    let mut ended = sqlx::query(AssertSqlSafe(ended));
    for (user, known) in behind {
        ended = ended.bind(user).bind(known);
    }
    for row in ended.fetch_all(db).await? {
        of_user.entry(row.get(0)).or_default().push(Ended {
            conversation: ConversationId(row.get(1)),
            joined_seq: row.get(2),
            joined_user_seq: row.get(3),
            left_seq: row.get(4),
            left_user_seq: row.get(5),
        });
    }
    Ok(of_user)
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
