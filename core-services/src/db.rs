//! The pool of MySQL sessions, the session settings that the promise depends on, and the one place where
//! transactions are retried.

mod lease;
mod session;
mod sql_text;

pub use session::{Rows, Session};
pub use sql_text::SqlText;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions as _, Connection as _, MySqlConnection, MySqlPool,
    migrate::{MigrateError, Migrator},
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tracing::debug;

use self::lease::Lease;
use crate::{
    config,
    error::{Error, Result, is_contention},
};

/// The migrations of `sql/`, in the binary.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../sql");

/// A transaction that lost a deadlock or a lock wait is tried this often in all.
pub(crate) const TRIES: u32 = 3;

/// Statements differ by the number of their rows; so many are kept prepared on each session. With the default 32 sessions
/// that is 4096 a core, of the 16382 that a server keeps by default (`max_prepared_stmt_count`).
const STATEMENT_CACHE: usize = 128;

/// One in so many sessions of the pool may wait for a row that is locked, where others can be answered meanwhile.
const SESSIONS_PER_LOCK_WAIT: u32 = 4;

/// The sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pool: MySqlPool,
    /// For sessions outside of the pool.
    options: MySqlConnectOptions,
    settings: Arc<str>,
    acquire_timeout: Duration,
    session_timeout: Duration,
    response_timeout: Duration,
    lock_waits: Arc<Semaphore>,
}

impl Db {
    /// Opens sessions lazily: nothing is connected yet.
    pub fn new(config: &config::MySql) -> anyhow::Result<Self> {
        let mut options: MySqlConnectOptions = config.url.parse().context("mysql.url")?;
        if let Some(file) = &config.password_file {
            options = options.password(chassis::Secret::from_file(file).context("mysql.password_file")?.expose());
        }
        // Statements may hold messages: they stay out of the log, slow or not.
        let options = options.statement_cache_capacity(STATEMENT_CACHE).ssl_mode(MySqlSslMode::Preferred);
        let options = options.disable_statement_logging();
        // A core that is paused must not hold rows for hours: the server ends a session that is silent for this long
        // inside a transaction. The pool closes idle sessions before.
        let wait_timeout = config.session_timeout.as_secs();
        let lock_wait = config.lock_wait_timeout.as_secs();
        // Text in statements is escaped by backslashes (see `sql_text`). Lists of keys are looked up by the index that they
        // are keys of: without the limit the optimiser tries each key on each index first, a quarter of a commit's CPU.
        let settings: Arc<str> = format!(
            "SET SESSION transaction_isolation = 'READ-COMMITTED', time_zone = '+00:00', \
             sql_mode = REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', ''), eq_range_index_dive_limit = 1, \
             wait_timeout = {wait_timeout}, innodb_lock_wait_timeout = {lock_wait}, lock_wait_timeout = {lock_wait}"
        )
        .into();
        let of_pool = Arc::clone(&settings);
        let pool = MySqlPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            .idle_timeout(config.session_timeout / 2)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    // One that rested may have been closed by the server; asking costs a round trip, so only then.
                    Ok(meta.idle_for < Duration::from_secs(1) || connection.ping().await.is_ok())
                })
            })
            .after_connect(move |connection, _| {
                let settings = Arc::clone(&of_pool);
                Box::pin(async move { set(connection, &settings).await })
            })
            .connect_lazy_with(options.clone());
        let lock_waits = (config.max_connections / SESSIONS_PER_LOCK_WAIT).max(1);
        let config::MySql { acquire_timeout, session_timeout, response_timeout, .. } = *config;
        let lock_waits = Arc::new(Semaphore::new(lock_waits as usize));
        Ok(Self { pool, options, settings, acquire_timeout, session_timeout, response_timeout, lock_waits })
    }

    /// A session outside of the pool, for somebody who runs one transaction after the other.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            set(&mut connection, &self.settings).await?;
            Ok(connection)
        };
        timeout(self.acquire_timeout, connect).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// A session of the pool.
    async fn lease(&self) -> Result<Lease, sqlx::Error> {
        Ok(Lease::new(self.pool.acquire().await?, self.response_timeout))
    }

    /// Leave to wait for a row that is locked: those who do must not take all sessions from those who needn't.
    pub async fn lock_wait(&self) -> SemaphorePermit<'_> {
        self.lock_waits.acquire().await.expect("it is never closed")
    }

    /// A session that is nobody's but the caller's.
    pub async fn detached(&self) -> Result<MySqlConnection, sqlx::Error> {
        Ok(self.pool.acquire().await?.detach())
    }

    /// Applies what is missing of `sql/`. Several cores may do so at once: one waits for the other.
    pub async fn migrate(&self) -> std::result::Result<(), MigrateError> {
        MIGRATIONS.run(&self.pool).await
    }

    /// Runs `work` in a transaction and commits. After a deadlock or a lock wait timeout everything is rolled back
    /// (1205 by itself undoes one statement only) and `work` runs again, a few times.
    ///
    /// `work` holds nothing but SQL; its `name` is for the log.
    pub async fn transact<T, F>(&self, name: &'static str, work: F) -> Result<T>
    where
        T: Send,
        F: for<'c> FnMut(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T>> + Send,
    {
        self.transact_again_if(is_contention, name, work).await
    }

    /// [`Db::transact`] with another choice of the errors after which it is tried again.
    pub async fn transact_again_if<T, F>(
        &self,
        again: fn(&sqlx::Error) -> bool,
        name: &'static str,
        mut work: F,
    ) -> Result<T>
    where
        T: Send,
        F: for<'c> FnMut(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T>> + Send,
    {
        let mut tried = 0;
        loop {
            tried += 1;
            let outcome = self.transact_once(&mut work).await;
            match outcome {
                Err(Error::Database(error)) if again(&error) && tried < TRIES => {
                    debug!(transaction = name, tried, %error, "rolled back, trying again");
                }
                outcome => return outcome,
            }
        }
    }

    async fn transact_once<T, F>(&self, work: &mut F) -> Result<T>
    where
        F: for<'c> FnMut(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T>> + Send,
    {
        let mut session = self.lease().await?;
        // No longer than the server leaves a silent session its locks.
        let Ok((outcome, is_over)) = timeout(self.session_timeout, transact_on(&mut session, work)).await else {
            return Err(lease::late().into());
        };
        if is_over {
            session.give_back();
        }
        outcome
    }
}

/// Also says whether the session has no transaction any more, for sure.
async fn transact_on<T, F>(session: &mut MySqlConnection, work: &mut F) -> (Result<T>, bool)
where
    F: for<'c> FnMut(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T>> + Send,
{
    let mut transaction = match session.begin().await {
        Ok(transaction) => transaction,
        Err(error) => return (Err(error.into()), false),
    };
    match work(&mut transaction).await {
        Ok(value) => match transaction.commit().await {
            Ok(()) => (Ok(value), true),
            Err(error) => (Err(error.into()), false),
        },
        Err(error) => {
            let rolled_back = transaction.rollback().await;
            if let Err(rollback) = &rolled_back {
                debug!(error = %rollback, "the rollback failed; the session is closed");
            }
            (Err(error), rolled_back.is_ok())
        }
    }
}

async fn set(connection: &mut MySqlConnection, settings: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(settings.to_owned())).execute(connection).await?;
    Ok(())
}

/// The epoch, under a shared lock: it can't be raised until this transaction ends.
pub async fn lock_epoch(connection: &mut MySqlConnection) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT epoch FROM cluster_state WHERE id = 1 FOR SHARE").fetch_one(connection).await?)
}

/// `?, ?, …` for an IN list of `n`, or rows of it when `columns` is above 1: `(?, ?), (?, ?)`.
pub fn placeholders(n: usize, columns: usize) -> String {
    let row = match columns {
        1 => "?".to_owned(),
        _ => format!("({})", vec!["?"; columns].join(", ")),
    };
    vec![row.as_str(); n].join(", ")
}
