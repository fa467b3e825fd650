//! Users in MySQL.

use proto::{EventType, UserId};
use serde_json::json;
use sqlx::{MySql, MySqlConnection, QueryBuilder, Row as _, mysql::MySqlRow};

use super::User;
use crate::{
    db::{Db, placeholders},
    error::Result,
    outbox::{self, Event},
};

/// Everybody is in this workspace.
pub const DEFAULT_WORKSPACE: i64 = 1;

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

/// The users, their memberships of the default workspace, and USER_CREATED.
pub async fn insert(tx: &mut MySqlConnection, new: &[NewUser], epoch: i64) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<MySql>::new(
        "INSERT INTO users (id, email, username, display_email, display_username, display_name, password_hash, created_at) ",
    );
    query.push_values(new, |mut row, new| {
        let user = &new.user;
        row.push_bind(user.id.0)
            .push_bind(&new.email)
            .push_bind(&new.username)
            .push_bind(&user.email)
            .push_bind(&user.username)
            .push_bind(&user.display_name)
            .push_bind(&new.password_hash)
            .push_bind(user.created_at);
    });
    query.build().execute(&mut *tx).await?;
    // One registration at a time finds out whether it is the first.
    sqlx::query("SELECT id FROM workspaces WHERE id = ? FOR UPDATE")
        .bind(DEFAULT_WORKSPACE)
        .fetch_one(&mut *tx)
        .await?;
    let first: Option<i64> = sqlx::query_scalar("SELECT user_id FROM workspace_members WHERE workspace_id = ? LIMIT 1")
        .bind(DEFAULT_WORKSPACE)
        .fetch_optional(&mut *tx)
        .await?;
    let role = |place: usize| if first.is_none() && place == 0 { "owner" } else { "member" };
    let mut query =
        QueryBuilder::<MySql>::new("INSERT INTO workspace_members (workspace_id, user_id, role, joined_at) ");
    query.push_values(new.iter().enumerate(), |mut row, (place, new)| {
        row.push_bind(DEFAULT_WORKSPACE).push_bind(new.user.id.0).push_bind(role(place)).push_bind(new.user.created_at);
    });
    query.build().execute(&mut *tx).await?;
    let created = new.iter().enumerate().map(|(place, new)| {
        let (id, at) = (new.user.id, new.user.created_at);
        let data = json!({ "user_id": id, "workspace_id": DEFAULT_WORKSPACE.to_string(), "role": role(place) });
        Event::of_user(EventType::UserCreated, id, None, epoch, id, at, data)
    });
    outbox::insert(tx, &created.collect::<Vec<_>>()).await
}

/// The ids of these normalised usernames; nobody's are left out.
pub async fn ids_by_username(db: &Db, names: &[String]) -> Result<Vec<(String, UserId)>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!("SELECT username, id FROM users WHERE username IN ({})", placeholders(names.len(), 1));
    let mut query = sqlx::query(sqlx::AssertSqlSafe(query));
    for name in names {
        query = query.bind(name);
    }
    let rows = query.fetch_all(db).await?;
    Ok(rows.iter().map(|row| (row.get(0), UserId(row.get(1)))).collect())
}

/// By normalised e-mail or username, with the password's hash.
pub async fn by_login(db: &Db, login: &str) -> Result<Option<(User, String)>> {
    // One statement for each unique key: an OR over both reads the whole table.
    let query = format!(
        "SELECT {COLUMNS}, password_hash FROM users WHERE email = ?
         UNION SELECT {COLUMNS}, password_hash FROM users WHERE username = ? LIMIT 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(query)).bind(login).bind(login).fetch_optional(db).await?;
    Ok(row.map(|row| (from_row(&row), row.get(5))))
}

pub async fn by_id(db: &Db, id: UserId) -> Result<Option<User>> {
    let query = format!("SELECT {COLUMNS} FROM users WHERE id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(query)).bind(id.0).fetch_optional(db).await?;
    Ok(row.as_ref().map(from_row))
}

/// Users whose normalised name starts so, by name, behind `after`.
pub async fn by_prefix(db: &Db, prefix: &str, after: &str, limit: usize) -> Result<Vec<(String, User)>> {
    let like = format!("{}%", prefix.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
    let query = format!(
        "SELECT {COLUMNS}, username FROM users WHERE username LIKE ? AND username > ? ORDER BY username LIMIT ?"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(like).bind(after).bind(limit as i64);
    let rows = query.fetch_all(db).await?;
    Ok(rows.iter().map(|row| (row.get(5), User { email: None, ..from_row(row) })).collect())
}

pub async fn set_display_name(db: &Db, id: UserId, name: &str) -> Result<()> {
    sqlx::query("UPDATE users SET display_name = ? WHERE id = ?").bind(name).bind(id.0).execute(db).await?;
    Ok(())
}

/// Which of these users do not exist.
pub async fn missing(tx: &mut MySqlConnection, ids: &[UserId]) -> Result<Vec<UserId>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!("SELECT id FROM users WHERE id IN ({})", placeholders(ids.len(), 1));
    let mut query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(query));
    for id in ids {
        query = query.bind(id.0);
    }
    let found = query.fetch_all(tx).await?;
    Ok(ids.iter().filter(|id| !found.contains(&id.0)).copied().collect())
}
