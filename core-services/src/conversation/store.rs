//! Conversations and memberships in MySQL: writes, under the conversation's row lock.

use proto::{Code, ConversationId, UserId, WorkspaceId};
use sqlx::{AssertSqlSafe, MySql, MySqlConnection, QueryBuilder, Row as _, mysql::MySqlRow};

use super::{Conversation, Kind, Visibility};
use crate::{
    db::{Db, placeholders},
    error::{Result, refuse},
};

pub(super) const COLUMNS: &str = "c.id, c.workspace_id, c.kind, c.visibility, c.name, c.created_by, c.created_at, \
     c.archived_at IS NOT NULL, c.last_seq, c.message_no";

pub(super) fn from_row(row: &MySqlRow) -> Result<Conversation> {
    Ok(Conversation {
        id: ConversationId(row.get(0)),
        workspace_id: WorkspaceId(row.get(1)),
        kind: Kind::parse(row.get(2))?,
        visibility: visibility(row.get(3)),
        name: row.get(4),
        created_by: UserId(row.get(5)),
        created_at: row.get(6),
        archived: row.get::<i64, _>(7) != 0,
        last_seq: row.get(8),
        message_no: row.get(9),
    })
}

/// What is not public is private: an unknown text opens nothing.
fn visibility(text: &str) -> Visibility {
    if text == Visibility::Public.as_str() { Visibility::Public } else { Visibility::Private }
}

/// A conversation whose row this transaction has locked.
#[derive(Clone, Debug)]
pub struct Locked {
    pub id: ConversationId,
    pub kind: Kind,
    pub visibility: Visibility,
    archived: bool,
}

impl Locked {
    /// Waits for the row lock; refuses what does not exist.
    pub async fn take(tx: &mut MySqlConnection, id: ConversationId) -> Result<Self> {
        let row =
            sqlx::query("SELECT kind, visibility, archived_at IS NOT NULL FROM conversations WHERE id = ? FOR UPDATE")
                .bind(id.0)
                .fetch_optional(tx)
                .await?;
        let Some(row) = row else { return not_found(id) };
        Ok(Self {
            id,
            kind: Kind::parse(row.get(0))?,
            visibility: visibility(row.get(1)),
            archived: row.get::<i64, _>(2) != 0,
        })
    }

    pub fn require_open(&self) -> Result<()> {
        if self.archived { refuse(Code::Forbidden, "the conversation is archived") } else { Ok(()) }
    }

    /// The role of a member; others are refused.
    pub async fn require_member(&self, tx: &mut MySqlConnection, user: UserId) -> Result<String> {
        match open_membership(tx, self.id, user).await? {
            Some((_, role)) => Ok(role),
            None => refuse(Code::NotAMember, format!("you are not a member of {}", self.id)),
        }
    }

    /// Takes the next `n` seqs; the first of them.
    pub async fn take_seqs(&self, tx: &mut MySqlConnection, n: usize) -> Result<i64> {
        let n = n as i64;
        let taken = sqlx::query("UPDATE conversations SET last_seq = LAST_INSERT_ID(last_seq + ?) WHERE id = ?")
            .bind(n)
            .bind(self.id.0)
            .execute(tx)
            .await?;
        Ok(taken.last_insert_id() as i64 - n + 1)
    }
}

pub(super) fn not_found<T>(id: ConversationId) -> Result<T> {
    refuse(Code::NotFound, format!("there is no conversation {id}"))
}

pub(super) async fn insert(tx: &mut MySqlConnection, conversation: &Conversation, dm_pair: Option<&str>) -> Result<()> {
    sqlx::query(
        "INSERT INTO conversations (id, workspace_id, kind, visibility, name, dm_pair, created_by, created_at, last_seq)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(conversation.id.0)
    .bind(conversation.workspace_id.0)
    .bind(conversation.kind.as_str())
    .bind(conversation.visibility.as_str())
    .bind(&conversation.name)
    .bind(dm_pair)
    .bind(conversation.created_by.0)
    .bind(conversation.created_at)
    .bind(conversation.last_seq)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn by_dm_pair(db: &Db, workspace: WorkspaceId, pair: &str) -> Result<Option<Conversation>> {
    let query = format!("SELECT {COLUMNS} FROM conversations c WHERE workspace_id = ? AND dm_pair = ?");
    let row = sqlx::query(AssertSqlSafe(query)).bind(workspace.0).bind(pair).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// The first conversation of this kind and name that the person made.
pub async fn made_by(db: &Db, creator: UserId, kind: Kind, name: &str) -> Result<Option<ConversationId>> {
    let id: Option<i64> = sqlx::query_scalar(
        "SELECT id FROM conversations WHERE created_by = ? AND kind = ? AND name = ? COLLATE utf8mb4_0900_bin
         ORDER BY id LIMIT 1",
    )
    .bind(creator.0)
    .bind(kind.as_str())
    .bind(name)
    .fetch_optional(db)
    .await?;
    Ok(id.map(ConversationId))
}

/// A membership to insert.
pub(super) struct NewMember {
    pub user: UserId,
    pub joined_seq: i64,
    pub user_seq: i64,
    pub role: &'static str,
}

pub(super) async fn insert_members(tx: &mut MySqlConnection, id: ConversationId, members: &[NewMember]) -> Result<()> {
    let mut query = QueryBuilder::<MySql>::new(
        "INSERT INTO conversation_members (conversation_id, user_id, joined_seq, joined_user_seq, role) ",
    );
    query.push_values(members, |mut row, member| {
        row.push_bind(id.0)
            .push_bind(member.user.0)
            .push_bind(member.joined_seq)
            .push_bind(member.user_seq)
            .push_bind(member.role);
    });
    query.build().execute(tx).await?;
    Ok(())
}

/// First seq and role of the membership that is open.
pub(super) async fn open_membership(
    tx: &mut MySqlConnection,
    id: ConversationId,
    user: UserId,
) -> Result<Option<(i64, String)>> {
    let row = sqlx::query(
        "SELECT joined_seq, role FROM conversation_members WHERE conversation_id = ? AND user_id = ? AND left_seq IS NULL",
    )
    .bind(id.0)
    .bind(user.0)
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Which of these users are members.
pub(super) async fn open_members(
    tx: &mut MySqlConnection,
    id: ConversationId,
    users: &[UserId],
) -> Result<Vec<UserId>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!(
        "SELECT user_id FROM conversation_members WHERE conversation_id = ? AND left_seq IS NULL AND user_id IN ({})",
        placeholders(users.len(), 1)
    );
    let mut query = sqlx::query_scalar(AssertSqlSafe(query)).bind(id.0);
    for user in users {
        query = query.bind(user.0);
    }
    let members: Vec<i64> = query.fetch_all(tx).await?;
    Ok(members.into_iter().map(UserId).collect())
}

pub(super) async fn member_count(tx: &mut MySqlConnection, id: ConversationId) -> Result<usize> {
    let count: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM conversation_members WHERE conversation_id = ? AND left_seq IS NULL")
            .bind(id.0)
            .fetch_one(tx)
            .await?;
    Ok(usize::try_from(count).unwrap_or_default())
}

pub(super) async fn close_membership(
    tx: &mut MySqlConnection,
    id: ConversationId,
    user: UserId,
    joined_seq: i64,
    left_seq: i64,
    user_seq: i64,
) -> Result<()> {
    sqlx::query(
        "UPDATE conversation_members SET left_seq = ?, left_user_seq = ?
         WHERE conversation_id = ? AND user_id = ? AND joined_seq = ?",
    )
    .bind(left_seq)
    .bind(user_seq)
    .bind(id.0)
    .bind(user.0)
    .bind(joined_seq)
    .execute(tx)
    .await?;
    Ok(())
}

/// Locks the users' rows in id order and raises each `user_seq` by one; the new values, in id order.
pub(super) async fn take_user_seqs(tx: &mut MySqlConnection, users: &[UserId]) -> Result<Vec<(UserId, i64)>> {
    let ids = placeholders(users.len(), 1);
    let lock =
        format!("SELECT id, user_seq + 1 FROM users FORCE INDEX (PRIMARY) WHERE id IN ({ids}) ORDER BY id FOR UPDATE");
    let mut lock = sqlx::query(AssertSqlSafe(lock));
    let raise = format!("UPDATE users FORCE INDEX (PRIMARY) SET user_seq = user_seq + 1 WHERE id IN ({ids})");
    let mut raise = sqlx::query(AssertSqlSafe(raise));
    for user in users {
        lock = lock.bind(user.0);
        raise = raise.bind(user.0);
    }
    let rows = lock.fetch_all(&mut *tx).await?;
    raise.execute(tx).await?;
    Ok(rows.iter().map(|row| (UserId(row.get(0)), row.get(1))).collect())
}
