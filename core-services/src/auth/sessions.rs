//! Logins: a session per login, refresh tokens that are used once, revocation.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::Utc;
use proto::{Code, UserId};
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};
use sqlx::{Executor, MySql, MySqlConnection, Row as _};
use uuid::Uuid;

use crate::{
    db::Db,
    error::{Result, refuse},
};

/// A session found good is not looked up again for this long: revocation takes effect within it.
const CACHE_TTL: Duration = Duration::from_secs(5);
/// Entries; when there are more, the stale ones go, and if none is, all go.
const CACHE_SIZE: usize = 10_000;

/// Sessions in MySQL, with a brief cache of those that are good. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    db: Db,
    refresh_ttl: Duration,
    good: Arc<Mutex<HashMap<String, Instant>>>,
}

/// A refresh token as the client gets it, and its session.
pub struct Login {
    pub session: String,
    pub refresh_token: String,
}

impl Sessions {
    pub fn new(db: Db, refresh_ttl: Duration) -> Self {
        Self { db, refresh_ttl, good: Arc::default() }
    }

    /// A new session of the user, in their transaction.
    pub async fn begin(&self, tx: &mut MySqlConnection, user: UserId) -> Result<Login> {
        let session = Uuid::now_v7().to_string();
        sqlx::query("INSERT INTO sessions (id, user_id, created_at) VALUES (?, ?, ?)")
            .bind(&session)
            .bind(user.0)
            .bind(Utc::now())
            .execute(&mut *tx)
            .await?;
        let refresh_token = self.issue(tx, &session).await?;
        Ok(Login { session, refresh_token })
    }

    /// Uses a refresh token up and gives the next. One that was used before revokes its session: somebody else has it.
    pub async fn refresh(&self, token: &str) -> Result<(UserId, Login)> {
        let hash = hash(token);
        let outcome = self
            .db
            .transact("use a refresh token", |tx| {
                let (hash, this) = (hash.clone(), self.clone());
                Box::pin(async move {
                    let row = sqlx::query(
                        "SELECT s.id, s.user_id, t.used_at IS NOT NULL, t.expires_at > UTC_TIMESTAMP(6) AND s.revoked_at IS NULL
                         FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.token_hash = ? FOR UPDATE",
                    )
                    .bind(&hash)
                    .fetch_optional(&mut *tx)
                    .await?;
                    let Some(row) = row else { return Ok(None) };
                    let session: String = row.get(0);
                    let (used, valid) = (row.get::<i64, _>(2) != 0, row.get::<i64, _>(3) != 0);
                    if used {
                        revoke(&mut *tx, &session).await?;
                    }
                    if used || !valid {
                        return Ok(None);
                    }
                    sqlx::query("UPDATE refresh_tokens SET used_at = UTC_TIMESTAMP(6) WHERE token_hash = ?")
                        .bind(&hash)
                        .execute(&mut *tx)
                        .await?;
                    let refresh_token = this.issue(tx, &session).await?;
                    Ok(Some((UserId(row.get(1)), Login { session, refresh_token })))
                })
            })
            .await?;
        match outcome {
            Some(refreshed) => Ok(refreshed),
            None => {
                refuse(Code::Unauthenticated, "the refresh token is unknown, used, expired or revoked; log in again")
            }
        }
    }

    /// Ends a session: its access tokens are refused within seconds, its refresh tokens at once.
    pub async fn revoke(&self, session: &str) -> Result<()> {
        revoke(&self.db, session).await?;
        self.cache().remove(session);
        Ok(())
    }

    pub async fn is_revoked(&self, session: &str) -> Result<bool> {
        let now = Instant::now();
        if self.cache().get(session).is_some_and(|seen| now.duration_since(*seen) < CACHE_TTL) {
            return Ok(false);
        }
        let good: Option<i64> = sqlx::query_scalar("SELECT 1 FROM sessions WHERE id = ? AND revoked_at IS NULL")
            .bind(session)
            .fetch_optional(&self.db)
            .await?;
        if good.is_some() {
            let mut cache = self.cache();
            if cache.len() >= CACHE_SIZE {
                cache.retain(|_, seen| now.duration_since(*seen) < CACHE_TTL);
                if cache.len() >= CACHE_SIZE {
                    cache.clear();
                }
            }
            cache.insert(session.to_owned(), now);
        }
        Ok(good.is_none())
    }

    async fn issue(&self, tx: &mut MySqlConnection, session: &str) -> Result<String> {
        let mut secret = [0u8; 32];
        rand::rng().fill_bytes(&mut secret);
        let token = URL_SAFE_NO_PAD.encode(secret);
        sqlx::query("INSERT INTO refresh_tokens (token_hash, session_id, expires_at) VALUES (?, ?, ?)")
            .bind(hash(&token))
            .bind(session)
            .bind(Utc::now() + self.refresh_ttl)
            .execute(tx)
            .await?;
        Ok(token)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn revoke(db: impl Executor<'_, Database = MySql>, session: &str) -> Result<()> {
    sqlx::query("UPDATE sessions SET revoked_at = UTC_TIMESTAMP(6) WHERE id = ? AND revoked_at IS NULL")
        .bind(session)
        .execute(db)
        .await?;
    Ok(())
}

fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
