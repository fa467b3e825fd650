//! What is done to the stack, and how long it takes until delivery is normal again.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    crowd::LOOK,
    ledger::{Ledger, Message, Rule, arrivals, delays},
};
use crate::stack::Stack;

/// What a supervisor takes to notice that a process has ended.
const SUPERVISOR: Duration = Duration::from_millis(200);
/// After the process is ready again: what comes to light only then belongs to it.
const WATCHED: Duration = Duration::from_secs(3);
/// From SIGKILL to the end of a process, and from SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(40);
/// After this, delivery counts as not normal again.
const NORMAL_LIMIT: Duration = Duration::from_secs(120);

/// Where figures come from.
#[derive(Clone, Copy, Debug)]
pub struct Bench<'a> {
    pub stack: &'a Stack,
    pub ledger: &'a Ledger,
    pub rule: Rule,
}

/// One kill. All times are from it.
#[derive(Clone, Debug)]
pub struct Kill {
    /// When the new process was started, and when it was ready.
    pub started: Duration,
    pub ready: Duration,
    /// When delivery was normal again; `None` within the limit.
    pub normal: Option<Duration>,
    /// The longest that a message took meanwhile.
    pub slowest: Duration,
}

/// Debezium, stopped and started again.
#[derive(Clone, Debug)]
pub struct Stopped {
    pub away: Duration,
    /// Acknowledged a second while it was away.
    pub acknowledged_per_s: f64,
    /// Messages that waited when it was started.
    pub backlog: usize,
    /// From its start until the first of them was with everybody, until all were, and until delivery was normal again;
    /// `None` within the limit.
    pub first: Duration,
    pub all: Duration,
    pub normal: Option<Duration>,
}

impl Bench<'_> {
    /// Watches for so long without doing anything: what messages take when nothing is wrong, in µs.
    pub async fn undisturbed(&self, time: Duration) -> Result<Vec<u64>> {
        let first = self.ledger.len();
        sleep(time).await;
        let end = self.ledger.len();
        self.until_all_have(first, end).await?;
        Ok(delays(&self.ledger.messages(first, end)))
    }

    /// Kills a process, starts it again, and watches until delivery is normal again. `back` is given the time of the kill
    /// and says since when something else is as it should be, which belongs to it.
    pub async fn kill(&self, name: &str, back: impl Fn(u64) -> Option<u64>) -> Result<Kill> {
        let process = self.stack.running(name)?;
        let first = self.ledger.first_open();
        let (killed, began) = (self.ledger.now(), Instant::now());
        process.signal(Signal::SIGKILL)?;
        process.ended(END_LIMIT).await?;
        sleep_until(began + SUPERVISOR).await;
        let started = began.elapsed();
        self.stack.restart(name).await?;
        let ready = began.elapsed();
        let normal = loop {
            if let Some(back) = back(killed) {
                let watched = back.max(killed + micros(ready)) + micros(WATCHED);
                if let Some(normal) = self.ledger.normal_again(first, killed, watched, self.rule) {
                    break Some(Duration::from_micros(normal.max(back) - killed));
                }
            }
            if began.elapsed() > NORMAL_LIMIT {
                break None;
            }
            sleep(LOOK).await;
        };
        let messages = self.ledger.messages(first, self.ledger.len());
        let slowest = delays(&messages).into_iter().max().unwrap_or_default();
        Ok(Kill { started, ready, normal, slowest: Duration::from_micros(slowest) })
    }

    /// Stops Connect for `time`.
    pub async fn stop_debezium(&self, time: Duration) -> Result<Stopped> {
        const CONNECT: &str = "connect";
        let process = self.stack.running(CONNECT)?;
        let first = self.ledger.first_open();
        process.signal(Signal::SIGTERM)?;
        process.ended(END_LIMIT).await?;
        let (began, before) = (Instant::now(), self.ledger.totals().acknowledged);
        sleep(time).await;
        let (away, acknowledged) = (began.elapsed(), self.ledger.totals().acknowledged - before);
        let (first_open, end) = (self.ledger.first_open(), self.ledger.len());
        let started = self.ledger.now();
        self.stack.restart(CONNECT).await?;
        let ready = self.ledger.now();
        self.until_all_have(first_open, end).await?;
        let waited: Vec<Message> = self
            .ledger
            .messages(first_open, end)
            .into_iter()
            .filter(|message| message.arrived() > Some(started))
            .collect();
        let (first_there, all_there) = arrivals(&waited).context("nothing waited while Debezium was stopped")?;
        let limit = Instant::now() + NORMAL_LIMIT;
        let normal = loop {
            let watched = ready + micros(WATCHED);
            if let Some(normal) = self.ledger.normal_again(first, started, watched, self.rule) {
                break Some(normal);
            }
            if Instant::now() > limit {
                break None;
            }
            sleep(LOOK).await;
        };
        let since = |time: u64| Duration::from_micros(time.saturating_sub(started));
        Ok(Stopped {
            away,
            acknowledged_per_s: acknowledged as f64 / away.as_secs_f64(),
            backlog: waited.len(),
            first: since(first_there),
            all: since(all_there),
            normal: normal.map(since),
        })
    }

    /// Waits until every one of these messages is with everybody.
    pub async fn until_all_have(&self, first: usize, end: usize) -> Result<()> {
        let began = Instant::now();
        while first < end && arrivals(&self.ledger.messages(first, end)).is_none() {
            anyhow::ensure!(began.elapsed() < NORMAL_LIMIT, "not everything has come within {NORMAL_LIMIT:?}");
            sleep(LOOK * 5).await;
        }
        Ok(())
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}
