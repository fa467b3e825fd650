//! The outbox's partitions: made ahead, and dropped when their rows have left the window that resuming goes back to.
//!
//! Every core looks; a named lock of the server lets one of them act. A statement on the table waits for its metadata
//! lock for `lock_timeout` only, because writers queue up behind it; it is tried again with the next look. A partition
//! is dropped only when everybody who reads the change stream is past it ([`past`]); else its events would be lost to
//! whoever is not. What is old is told by the server's clock: a core whose own is days ahead must not drop what the others
//! have just written.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    past,
    plan::{CATCH_ALL, Partition, Plan, plan},
};
use crate::{config, db::Db, metrics::Metrics, now};

/// After a failure, before the next look.
const RETRY: Duration = Duration::from_secs(60);
/// What a look may take beside its waiting for consumers.
const STATEMENTS: Duration = Duration::from_secs(60);
/// A core's clock that differs from the server's by more is told of.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// What looks after the partitions of one database.
pub struct Maintenance {
    pub db: Db,
    pub kafka: config::Kafka,
    pub config: config::Partitions,
    pub metrics: Metrics,
}

/// What was done, or would be, and what was put off.
#[derive(Debug, Default)]
pub struct Done {
    pub plan: Plan,
    /// Why partitions that are old enough are still there.
    pub postponed: Option<anyhow::Error>,
    /// Another core is at it.
    pub elsewhere: bool,
}

impl Maintenance {
    /// Looks now and at every interval.
    pub async fn run(self, draining: CancellationToken) {
        loop {
            let looked = tokio::select! {
                looked = in_time(self.limit(), self.look(false)) => looked,
                // Whatever it waits for: its session is closed, and another core, or the next start, goes on.
                () = draining.cancelled() => return,
            };
            let wait = match looked {
                Ok(done) => {
                    if let Some(reason) = done.postponed {
                        self.metrics.outbox_drops_postponed.inc();
                        warn!("old partitions of the outbox stay for now: {reason:#}");
                    }
                    self.config.interval
                }
                Err(error) => {
                    self.metrics.outbox_failures.inc();
                    warn!("the partitions of the outbox could not be looked after: {error:#}");
                    RETRY.min(self.config.interval)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = draining.cancelled() => return,
            }
        }
    }

    /// Looks once, and does what is to be done unless it is a `dry_run`.
    pub async fn look(&self, dry_run: bool) -> Result<Done> {
        // Of its own: the pool's sessions are ended by the server while this one waits for consumers.
        let mut session = self.db.detached().await.context("connecting to MySQL")?;
        let done = self.look_by(&mut session, dry_run).await;
        // Ends the named lock too, whatever became of the rest.
        let closed = session.close().await;
        let done = done?;
        closed.context("closing the session")?;
        Ok(done)
    }

    /// How long a look of a running core may take, and its session be silent.
    fn limit(&self) -> Duration {
        self.config.guard_timeout * 2 + STATEMENTS
    }

    /// [`Maintenance::look`] on this session.
    pub async fn look_by(&self, session: &mut MySqlConnection, dry_run: bool) -> Result<Done> {
        let now = server_time(session).await?;
        let wanted = self.wanted(session, now).await?;
        if wanted.is_empty() || dry_run {
            return Ok(Done { plan: wanted, ..Done::default() });
        }
        let (lock_wait, session_wait) = (self.config.lock_timeout.as_secs(), self.limit().as_secs());
        let settings = format!("SET SESSION lock_wait_timeout = {lock_wait}, wait_timeout = {session_wait}");
        sqlx::query(AssertSqlSafe(settings)).execute(&mut *session).await?;
        let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(CONCAT(DATABASE(), '.partitions'), 0)")
            .fetch_one(&mut *session)
            .await?;
        if locked != Some(1) {
            return Ok(Done { elsewhere: true, ..Done::default() });
        }
        // The one that had the lock before may have done it.
        let plan = self.wanted(session, now).await?;
        self.make(session, &plan.make).await?;
        let mut done = Done { plan, ..Done::default() };
        if !done.plan.drop.is_empty() {
            match past::consumers(session, &self.kafka, &self.config).await {
                Ok(()) => self.drop(session, &done.plan.drop).await?,
                Err(reason) => {
                    done.plan.drop.clear();
                    done.postponed = Some(reason);
                }
            }
        }
        self.wanted(session, now).await?;
        Ok(done)
    }

    /// What is to be done, by the partitions as they are; tells the metrics of them.
    async fn wanted(&self, session: &mut MySqlConnection, now: DateTime<Utc>) -> Result<Plan> {
        let partitions = partitions(session).await?;
        let newest = partitions.iter().filter_map(|partition| partition.before).max();
        let used = format!("SELECT EXISTS (SELECT 1 FROM message_producer_outbox PARTITION ({CATCH_ALL}))");
        let used: i64 = sqlx::query_scalar(AssertSqlSafe(used)).fetch_one(session).await?;
        self.metrics.outbox_partitions.set(partitions.len() as i64);
        self.metrics.outbox_catch_all_used.set(used);
        self.metrics.outbox_ahead_seconds.set(newest.map_or(0, |bound| (bound - now).num_seconds()));
        Ok(plan(&partitions, now, &self.config))
    }

    async fn make(&self, session: &mut MySqlConnection, new: &[Partition]) -> Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        let catch_all = Partition { name: CATCH_ALL.to_owned(), before: None };
        let definitions: Vec<String> = new.iter().chain([&catch_all]).map(Partition::definition).collect();
        let definitions = definitions.join(", ");
        let sql = format!("ALTER TABLE message_producer_outbox REORGANIZE PARTITION {CATCH_ALL} INTO ({definitions})");
        sqlx::query(AssertSqlSafe(sql)).execute(session).await.context("making partitions")?;
        self.metrics.outbox_partitions_made.inc_by(new.len() as u64);
        let names: Vec<&str> = new.iter().map(|partition| partition.name.as_str()).collect();
        info!(partitions = names.join(" "), "made partitions of the outbox");
        Ok(())
    }

    async fn drop(&self, session: &mut MySqlConnection, old: &[Partition]) -> Result<()> {
        for Partition { name, .. } in old {
            let sql = format!("ALTER TABLE message_producer_outbox DROP PARTITION {name}");
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *session).await.with_context(|| format!("dropping {name}"))?;
            self.metrics.outbox_partitions_dropped.inc();
            info!(
                partition = name,
                "dropped a partition of the outbox: its events are older than the retention window"
            );
        }
        Ok(())
    }

    /// `core-services partitions`: looks once and says what it did.
    pub async fn command(&self, dry_run: bool) -> Result<()> {
        let done = self.look(dry_run).await?;
        let (made, dropped) = if dry_run { ("to be made", "to be dropped") } else { ("made", "dropped") };
        for partition in &done.plan.make {
            println!("{made}: {}", partition.name);
        }
        for partition in &done.plan.drop {
            println!("{dropped}: {}", partition.name);
        }
        match (&done.postponed, done.elsewhere) {
            (Some(reason), _) => println!("old partitions stay for now: {reason:#}"),
            (None, true) => println!("another core is at it"),
            (None, false) if done.plan.is_empty() => println!("nothing is to be done"),
            _ => {}
        }
        Ok(())
    }
}

/// The outcome of a look, or an error when it takes too long: a connection can be silent without being closed. The look
/// is given up then, and its session closed.
async fn in_time(limit: Duration, look: impl Future<Output = Result<Done>>) -> Result<Done> {
    let late = |_| anyhow!("given up after {limit:?}: MySQL or Kafka did not answer");
    tokio::time::timeout(limit, look).await.map_err(late)?
}

/// The time by the server's clock.
async fn server_time(session: &mut MySqlConnection) -> Result<DateTime<Utc>> {
    let time = sqlx::query_scalar("SELECT UTC_TIMESTAMP(6)").fetch_one(session).await;
    let time: DateTime<Utc> = time.context("asking MySQL for the time")?;
    let ahead = now() - time;
    if ahead.abs().to_std().is_ok_and(|apart| apart > CLOCK_MARGIN) {
        warn!(
            clock.ahead_ms = ahead.num_milliseconds(),
            "this core's clock and MySQL's differ: rows are stamped by the one, partitions made and dropped by the other"
        );
    }
    Ok(time)
}

async fn partitions(session: &mut MySqlConnection) -> Result<Vec<Partition>> {
    let rows = sqlx::query(
        "SELECT PARTITION_NAME, PARTITION_DESCRIPTION FROM information_schema.PARTITIONS
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'message_producer_outbox' ORDER BY PARTITION_ORDINAL_POSITION",
    );
    let rows = rows.fetch_all(session).await.context("reading the partitions of the outbox")?;
    rows.iter()
        .map(|row| {
            // The server's own tables have their texts as bytes.
            let text = |column| row.try_get_unchecked::<String, _>(column);
            let (name, description) = (text(0)?, text(1)?);
            Partition::parse(name.clone(), &description)
                .with_context(|| format!("the partition {name} has the bound {description}, which is no time"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_look_that_nobody_answers_is_given_up() {
        let error = in_time(Duration::from_millis(10), pending()).await.unwrap_err();
        assert!(error.to_string().contains("given up after 10ms"), "{error}");
        assert!(in_time(Duration::from_secs(60), ready(Ok(Done::default()))).await.is_ok());
    }
}
