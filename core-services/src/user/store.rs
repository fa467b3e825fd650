//! Users in MySQL.

use proto::{EventType, UserId};
use serde_json::json;
use sqlx::{MySqlConnection, MySqlPool, Row as _, mysql::MySqlRow};

use super::User;
use crate::{
    error::Result,
    outbox::{self, Event},
};

/// Everybody is in this workspace.
const DEFAULT_WORKSPACE: i64 = 1;

const COLUMNS: &str = "id, display_username, display_name, display_email, created_at";

/// A user to insert: with the normalised names and the hash.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub user: User,
    pub email: String,
    pub username: String,
    pub password_hash: String,
}

fn from_row(row: &MySqlRow) -> User {
    User {
        id: UserId(row.get(0)),
        username: row.get(1),
        display_name: row.get(2),
        email: Some(row.get(3)),
        created_at: row.get(4),
    }
}

/// The user, the membership of the default workspace, and USER_CREATED.
pub async fn insert(tx: &mut MySqlConnection, new: &NewUser, epoch: i64) -> Result<()> {
    let user = &new.user;
    sqlx::query(
        "INSERT INTO users (id, email, username, display_email, display_username, display_name, password_hash, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(user.id.0)
    .bind(&new.email)
    .bind(&new.username)
    .bind(&user.email)
    .bind(&user.username)
    .bind(&user.display_name)
    .bind(&new.password_hash)
    .bind(user.created_at)
    .execute(&mut *tx)
    .await?;
    // One registration at a time finds out whether it is the first.
    sqlx::query("SELECT id FROM workspaces WHERE id = ? FOR UPDATE")
        .bind(DEFAULT_WORKSPACE)
        .fetch_one(&mut *tx)
        .await?;
    let first: Option<i64> = sqlx::query_scalar("SELECT user_id FROM workspace_members WHERE workspace_id = ? LIMIT 1")
        .bind(DEFAULT_WORKSPACE)
        .fetch_optional(&mut *tx)
        .await?;
    let role = if first.is_none() { "owner" } else { "member" };
    sqlx::query("INSERT INTO workspace_members (workspace_id, user_id, role, joined_at) VALUES (?, ?, ?, ?)")
        .bind(DEFAULT_WORKSPACE)
        .bind(user.id.0)
        .bind(role)
        .bind(user.created_at)
        .execute(&mut *tx)
        .await?;
    let data = json!({ "user_id": user.id, "workspace_id": DEFAULT_WORKSPACE.to_string(), "role": role });
    let created = Event::of_user(EventType::UserCreated, user.id, None, epoch, user.id, user.created_at, data);
    outbox::insert(tx, &[created]).await
}

/// By normalised e-mail or username, with the password's hash.
pub async fn by_login(db: &MySqlPool, login: &str) -> Result<Option<(User, String)>> {
    // One statement for each unique key: an OR over both reads the whole table.
    let query = format!(
        "SELECT {COLUMNS}, password_hash FROM users WHERE email = ?
         UNION SELECT {COLUMNS}, password_hash FROM users WHERE username = ? LIMIT 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(query)).bind(login).bind(login).fetch_optional(db).await?;
    Ok(row.map(|row| (from_row(&row), row.get(5))))
}

pub async fn by_id(db: &MySqlPool, id: UserId) -> Result<Option<User>> {
    let query = format!("SELECT {COLUMNS} FROM users WHERE id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(query)).bind(id.0).fetch_optional(db).await?;
    Ok(row.as_ref().map(from_row))
}

/// Users whose normalised name starts so, by name, behind `after`.
pub async fn by_prefix(db: &MySqlPool, prefix: &str, after: &str, limit: usize) -> Result<Vec<(String, User)>> {
    let like = format!("{}%", prefix.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
    let query = format!(
        "SELECT {COLUMNS}, username FROM users WHERE username LIKE ? AND username > ? ORDER BY username LIMIT ?"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(like).bind(after).bind(limit as i64);
    let rows = query.fetch_all(db).await?;
    Ok(rows.iter().map(|row| (row.get(5), User { email: None, ..from_row(row) })).collect())
}

pub async fn set_display_name(db: &MySqlPool, id: UserId, name: &str) -> Result<()> {
    sqlx::query("UPDATE users SET display_name = ? WHERE id = ?").bind(name).bind(id.0).execute(db).await?;
    Ok(())
}

/// Which of these users do not exist.
pub async fn missing(tx: &mut MySqlConnection, ids: &[UserId]) -> Result<Vec<UserId>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!("SELECT id FROM users WHERE id IN ({})", crate::db::placeholders(ids.len(), 1));
    let mut query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(query));
    for id in ids {
        query = query.bind(id.0);
    }
    let found = query.fetch_all(tx).await?;
    Ok(ids.iter().filter(|id| !found.contains(&id.0)).copied().collect())
}
