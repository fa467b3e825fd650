//! `core-services epoch show|raise`: the number of the history that this database holds.
//!
//! Whoever puts an older state of the database into its place (a backup, a replica that lacked the last transactions)
//! raises the epoch before the first core writes again: seqs are about to be given a second time, and the epoch is
//! what tells the second from the first. Every writing transaction reads it under a shared lock.
//!
//! The new epoch is the time in seconds, or one more than the old where that is greater. Counting on from the old one
//! is not enough: it comes out of the backup, which does not know the epochs that began after it was made.

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::{
    config::Config,
    db::Db,
    error::{Error, Refusal},
};

/// What the column holds, in characters.
const MAX_REASON: usize = 1024;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the epoch, those before it, and the cores that may be writing
    Show,
    /// Begin a new epoch, behind a restore and before the first core is started on it
    Raise {
        /// Why, e.g. "restored the backup of 2026-11-20"; kept with the epoch
        #[arg(long)]
        reason: String,
        /// The epoch that `show` prints; another one is refused, so that nothing is raised twice
        #[arg(long, value_name = "EPOCH")]
        from: i64,
        /// Although cores may be writing: what they wrote since the restore has seqs that were used before
        #[arg(long)]
        while_cores_write: bool,
    },
}

/// Runs a command to its end.
pub async fn run(command: Command, config: Config) -> anyhow::Result<()> {
    let db = Db::new(&config.mysql)?;
    match command {
        Command::Show => show(&db).await,
        Command::Raise { reason, from, while_cores_write } => {
            let length = reason.trim().chars().count();
            ensure!((1..=MAX_REASON).contains(&length), "--reason: expected 1 to {MAX_REASON} characters");
            raise(&db, reason.trim(), from, while_cores_write).await
        }
    }
}

async fn show(db: &Db) -> anyhow::Result<()> {
    let epochs = sqlx::query("SELECT epoch, began_at, reason FROM epochs ORDER BY epoch").fetch_all(db);
    let epochs = epochs.await.context("reading the epochs (an older database needs `core-services migrate` first)")?;
    for row in &epochs {
        let (epoch, began_at, reason): (i64, DateTime<Utc>, String) = (row.get(0), row.get(1), row.get(2));
        println!("{epoch:<12} since {}  {reason}", proto::event::format_time(began_at));
    }
    println!("the epoch is {}", crate::conversation::read::epoch(db).await.map_err(anyhow::Error::from)?);
    for core in cores(db).await? {
        println!("{core}");
    }
    Ok(())
}

async fn raise(db: &Db, reason: &str, from: i64, while_cores_write: bool) -> anyhow::Result<()> {
    let cores = cores(db).await?;
    if !cores.is_empty() && !while_cores_write {
        bail!("nothing was changed: {}. Stop all cores and wait until then; or see --help", cores.join(", "));
    }
    let raised = db
        .transact("raise the epoch", |tx| {
            let reason = reason.to_owned();
            Box::pin(async move {
                let row = sqlx::query(
                    "SELECT epoch, GREATEST(epoch + 1, CAST(UNIX_TIMESTAMP() AS SIGNED)) FROM cluster_state
                     WHERE id = 1 FOR UPDATE",
                )
                .fetch_one(&mut *tx)
                .await?;
                let (is, next): (i64, i64) = (row.get(0), row.get(1));
                if is != from {
                    let message = format!("nothing was changed: the epoch is {is}, not {from}");
                    return Err(Error::Refused(Refusal::new(proto::Code::Conflict, message)));
                }
                sqlx::query("UPDATE cluster_state SET epoch = ? WHERE id = 1").bind(next).execute(&mut *tx).await?;
                sqlx::query("INSERT INTO epochs (epoch, began_at, reason) VALUES (?, UTC_TIMESTAMP(6), ?)")
                    .bind(next)
                    .bind(&reason)
                    .execute(tx)
                    .await?;
                Ok(next)
            })
        })
        .await;
    match raised {
        Ok(next) => {
            tracing::info!(epoch = next, epoch.before = from, reason, "the epoch was raised");
            println!("the epoch is {next}, it was {from}");
            Ok(())
        }
        Err(error) => Err(anyhow::Error::from(error).context("raising the epoch")),
    }
}

/// Cores that may be writing: a node id is leased as long as its core runs, and for `ids.lease` behind it.
async fn cores(db: &Db) -> anyhow::Result<Vec<String>> {
    let leases =
        sqlx::query("SELECT node_id, expires_at FROM node_leases WHERE expires_at > UTC_TIMESTAMP(6) ORDER BY node_id");
    let leases = leases.fetch_all(db).await.context("reading the leases of cores")?;
    let core = |row: &sqlx::mysql::MySqlRow| {
        let (node, until): (u16, DateTime<Utc>) = (row.get(0), row.get(1));
        format!("a core may be writing: node id {node} is leased until {}", proto::event::format_time(until))
    };
    Ok(leases.iter().map(core).collect())
}
