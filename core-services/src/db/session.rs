//! A session of its own for somebody who runs one transaction after the other: what waits is read, decided and written
//! in two round trips.
//!
//! The pool would add a third to each transaction (it pings a session that comes back). A session whose transaction did
//! not end as it should is closed, which rolls back.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, Either, Executor as _, MySqlConnection, mysql::MySqlRow};
use tokio::time::timeout;
use tracing::debug;

use super::{Db, SqlText};
use crate::error::{Error, Result};

/// After a rest this long a session is asked whether it is still there: that costs a round trip.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// Opened when it is first used, and again when it was lost.
#[derive(Debug)]
pub struct Session {
    db: Db,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    connection: MySqlConnection,
    used: Instant,
}

/// The rows of one statement.
pub type Rows = Vec<MySqlRow>;

impl Session {
    pub(super) fn new(db: Db) -> Self {
        Self { db, open: None }
    }

    /// One transaction: `read` runs, `decide` is given the rows of each of its statements, and what it wants written
    /// is written and committed; with nothing to write the transaction ends there.
    ///
    /// Both texts go to the server whole, the second with the COMMIT. So a process that ends after the second went out
    /// may leave a transaction that commits: whole, and unanswered, as one that ends between COMMIT and its answer.
    /// The server stops at the first statement that fails, so it never gets to the COMMIT behind it.
    ///
    /// # Errors
    /// Nothing was written, unless the session was lost, or its answer took too long, at the COMMIT.
    pub async fn transact<T>(
        &mut self,
        read: &SqlText,
        decide: impl FnOnce(Vec<Rows>) -> Result<(T, SqlText)>,
    ) -> Result<T> {
        // Without a limit a connection that is silent, but not closed, would hold its writer for ever.
        let limit = self.db.response_timeout;
        match timeout(limit, self.transact_unbounded(read, decide)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "MySQL did not answer in time");
                Err(Error::Database(sqlx::Error::Io(late)))
            }
        }
    }

    async fn transact_unbounded<T>(
        &mut self,
        read: &SqlText,
        decide: impl FnOnce(Vec<Rows>) -> Result<(T, SqlText)>,
    ) -> Result<T> {
        // Out of its place until the transaction has ended: whatever interrupts it closes the session.
        let mut connection = self.take().await?;
        match transact(&mut connection, read, decide).await {
            Ok(value) => {
                self.open = Some(Open { connection, used: Instant::now() });
                Ok(value)
            }
            Err(error) => {
                if matches!(&error, Error::Database(sqlx::Error::Database(_)) | Error::Refused(_)) {
                    match run(&mut connection, "ROLLBACK".to_owned()).await {
                        Ok(_) => self.open = Some(Open { connection, used: Instant::now() }),
                        Err(rollback) => debug!(error = %rollback, "the rollback failed; the session is closed"),
                    }
                }
                Err(error)
            }
        }
    }

    async fn take(&mut self) -> Result<MySqlConnection> {
        if let Some(Open { mut connection, used }) = self.open.take() {
            let rested = used.elapsed();
            // The server may be about to close it.
            let fresh = rested < self.db.session_timeout / 2;
            if fresh && (rested < ASK_AFTER || connection.ping().await.is_ok()) {
                return Ok(connection);
            }
        }
        Ok(self.db.connect().await?)
    }
}

async fn transact<T>(
    connection: &mut MySqlConnection,
    read: &SqlText,
    decide: impl FnOnce(Vec<Rows>) -> Result<(T, SqlText)>,
) -> Result<T> {
    let mut sets = run(connection, format!("BEGIN;{}", read.0)).await?;
    if sets.is_empty() {
        return Err(Error::Internal(anyhow!("BEGIN had no answer")));
    }
    sets.remove(0);
    let (value, write) = decide(sets)?;
    let end = if write.is_empty() { "ROLLBACK".to_owned() } else { write.into_string() + ";COMMIT" };
    run(connection, end).await?;
    Ok(value)
}

/// The rows of each statement of `sql`; none for those that answer none.
async fn run(connection: &mut MySqlConnection, sql: String) -> Result<Vec<Rows>, sqlx::Error> {
    let mut answers = connection.fetch_many(sqlx::raw_sql(AssertSqlSafe(sql)));
    let (mut sets, mut rows) = (Vec::new(), Rows::new());
    while let Some(answer) = answers.try_next().await? {
        match answer {
            Either::Right(row) => rows.push(row),
            Either::Left(_) => sets.push(std::mem::take(&mut rows)),
        }
    }
    Ok(sets)
}
