//! Sessions of the pool, each lent for one statement or one transaction.
//!
//! A request is given up at any moment: its client goes, its deadline is over. What was sent to MySQL by then is done all
//! the same. A session with a BEGIN on its way has a transaction that nobody knows of (sqlx counts it from the answer on):
//! the next one's statements would run inside, hold its locks, and be undone with it. One with an answer on its way would
//! give it to the next. So a session goes back to the pool only when everything that was sent on it is answered, and is
//! closed otherwise, which also rolls back.

use std::{
    future::Future,
    io,
    ops::{Deref, DerefMut},
    time::Duration,
};

use futures_util::{
    TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Execute, Executor, MySql, MySqlConnection, SqlStr,
    mysql::{MySqlQueryResult, MySqlRow, MySqlStatement, MySqlTypeInfo},
    pool::PoolConnection,
};
use tokio::time::timeout;

use super::Db;

/// A session that is closed, unless it is given back; and how long the pool may take for that.
#[derive(Debug)]
pub(super) struct Lease(Option<PoolConnection<MySql>>, Duration);

impl Lease {
    pub(super) fn new(session: PoolConnection<MySql>, limit: Duration) -> Self {
        Self(Some(session), limit)
    }

    /// Everything is answered: the next one may have it.
    pub(super) fn give_back(mut self) {
        if let Some(mut session) = self.0.take() {
            // The pool asks it whether it is still there, without a limit of its own.
            tokio::spawn(timeout(self.1, session.return_to_pool()));
        }
    }

    /// Gives it back if the statement whose outcome this is was answered.
    fn after<T>(self, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if matches!(outcome, Ok(_) | Err(sqlx::Error::Database(_) | sqlx::Error::RowNotFound)) {
            self.give_back();
        }
        outcome
    }
}

impl Deref for Lease {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Not through the pool: that would wait for answers, and keep a place of it for as long.
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// The answer, or an error when it takes too long: a connection can be silent without being closed.
async fn in_time<T>(limit: Duration, answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))
}

pub(super) fn late() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "MySQL did not answer in time"))
}

/// One statement outside a transaction, on a session of the pool.
impl<'c> Executor<'c> for &'c Db {
    type Database = MySql;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<MySqlQueryResult, MySqlRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, MySql>,
    {
        // All of it is read before any of it is given: who takes the first rows only would leave the others under way.
        let answers = async move {
            let mut session = self.lease().await?;
            let answers = in_time(self.response_timeout, session.fetch_many(query).try_collect::<Vec<_>>()).await;
            let answers = session.after(answers)?;
            Ok::<_, sqlx::Error>(stream::iter(answers.into_iter().map(Ok)))
        };
        Box::pin(stream::once(answers).try_flatten())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<MySqlRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, MySql>,
    {
        Box::pin(async move {
            let mut session = self.lease().await?;
            let answer = in_time(self.response_timeout, session.fetch_optional(query)).await;
            session.after(answer)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [MySqlTypeInfo],
    ) -> BoxFuture<'e, Result<MySqlStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let mut session = self.lease().await?;
            let answer = in_time(self.response_timeout, session.prepare_with(sql, parameters)).await;
            session.after(answer)
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<MySql>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let mut session = self.lease().await?;
            let answer = in_time(self.response_timeout, session.describe(sql)).await;
            session.after(answer)
        })
    }
}
