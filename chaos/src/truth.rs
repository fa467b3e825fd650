//! What is stored when a run is over: `truth.ndjson`. Read from the engines themselves, not asked of the services; of those
//! only what they still hold.
//!
//! The consumers may still be behind, and gateways keep their interest in a conversation for a while; so lag and Redis
//! are looked at until they are clean or [`Sources::settle`] is over, and only then the database is read, in one
//! snapshot.

mod gauges;
mod lag;
mod left_over;
mod record;
mod stored;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};

pub use record::{Says, SaysMessage, TruthRecord};

use crate::history::{self, ClientRecord, Histories, RunRecord};

/// Between looks at what has to become clean.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Where a stack's engines are, and its gateways.
#[derive(Clone, Debug)]
pub struct Sources {
    pub mysql: String,
    pub redis: String,
    /// Of all keys: `redis.key_prefix` of the services.
    pub key_prefix: String,
    /// Brokers.
    pub kafka: String,
    /// The workers' consumer group, and its topics.
    pub group: String,
    pub topics: Vec<String>,
    /// Admin listeners.
    pub gateways: Vec<String>,
    /// How long lag and Redis may take to be clean after the run: longer than the gateways' linger.
    pub settle: Duration,
}

/// What a run was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub conversations: BTreeSet<i64>,
    pub users: BTreeSet<i64>,
}

impl Scope {
    /// Everything that the histories name.
    pub fn of(histories: &Histories) -> Self {
        let mut scope = Self::default();
        for at in &histories.run {
            match &at.record {
                RunRecord::Conversation { id, members, .. } => {
                    scope.conversations.insert(*id);
                    scope.users.extend(members);
                }
                RunRecord::Membership { conversation, user, .. } => {
                    scope.conversations.insert(*conversation);
                    scope.users.insert(*user);
                }
                _ => {}
            }
        }
        for client in &histories.clients {
            scope.users.insert(client.user);
            scope.conversations.extend(client.records.iter().filter_map(|at| match &at.record {
                ClientRecord::Message { conversation, .. }
                | ClientRecord::Resumed { conversation, .. }
                | ClientRecord::Send { conversation, .. } => Some(*conversation),
                _ => None,
            }));
        }
        scope
    }
}

/// What was stored when the run was over.
pub fn file(folder: &Path) -> PathBuf {
    folder.join("truth.ndjson")
}

/// Reads what was stored.
///
/// # Errors
/// The file is missing or has something else in it.
pub fn read(folder: &Path) -> Result<Vec<TruthRecord>> {
    let file = file(folder);
    let truth: Vec<TruthRecord> = history::read(&file)?;
    ensure!(matches!(truth.first(), Some(TruthRecord::Truth { .. })), "{} does not begin with `truth`", file.display());
    Ok(truth)
}

/// Looks into the engines for what a run's histories name, and writes it beside them. All clients are gone by now.
///
/// # Errors
/// The histories can't be read, an engine does not answer, or the file can't be written.
pub async fn collect(folder: &Path, sources: &Sources) -> Result<()> {
    let scope = Scope::of(&Histories::read(folder)?);
    let mut around = settled(sources, &scope).await?;
    let mut truth = stored::read(&sources.mysql, &scope).await.context("reading MySQL")?;
    truth.append(&mut around);
    write(&file(folder), &truth)
}

/// Lag and left-overs, once there are none, or as they were at the last look before time was up. Engines that have just
/// been killed may not answer every look; one has to succeed.
async fn settled(sources: &Sources, scope: &Scope) -> Result<Vec<TruthRecord>> {
    let deadline = Instant::now() + sources.settle;
    let is_clean = |record: &TruthRecord| matches!(record, TruthRecord::Lag { records: 0, .. });
    let mut seen = None;
    loop {
        let looked = look(sources, scope).await;
        if looked.is_ok() || seen.is_none() {
            seen = Some(looked);
        }
        let clean = matches!(&seen, Some(Ok(found)) if found.iter().all(is_clean));
        if (clean || Instant::now() >= deadline)
            && let Some(seen) = seen
        {
            return seen;
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn look(sources: &Sources, scope: &Scope) -> Result<Vec<TruthRecord>> {
    let mut found = lag::read(sources).await.context("reading the group's lag from Kafka")?;
    found.append(&mut left_over::read(sources, scope).await.context("reading Redis")?);
    found.append(&mut gauges::read(sources).await?);
    Ok(found)
}

fn write(file: &Path, truth: &[TruthRecord]) -> Result<()> {
    let failed = || format!("writing {}", file.display());
    let mut out = BufWriter::new(File::create(file).with_context(failed)?);
    for record in truth {
        serde_json::to_writer(&mut out, record).with_context(failed)?;
        out.write_all(b"\n").with_context(failed)?;
    }
    out.flush().with_context(failed)
}
