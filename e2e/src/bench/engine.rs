//! The generator: one thread, one `epoll`, thousands of connections.
//!
//! It shares the machine with what it measures, so it does little: it reads into one buffer for all connections, looks
//! at frames where they lie, and takes of a MESSAGE the stamp alone. [`Engine::turn`] is one round of the loop; a
//! [`window`](Engine::window) sends on a fixed schedule while it turns. Everything happens in the caller's thread.

mod clients;
mod counts;
mod dialect;
mod direct;
mod window;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mio::{Events, Poll};

pub use self::{
    clients::{Clients, PER_ADDRESS},
    dialect::Dialect,
    direct::Direct,
    window::{ProcessUse, Sender, Window, is_server, quantile_ms, used},
};
use crate::{endpoints::Process, processes::Usage};

/// Events of one `epoll_wait`.
const EVENTS: usize = 1024;
/// The longest wait of one turn.
const TURN: Duration = Duration::from_millis(100);
/// Connecting is given up after so many refusals, or twice as many as there are clients.
const MOST_RETRIES: u64 = 500;
/// While many connect, a line of progress this often.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Who connects where. Client `n` is user `n` and subscribes to room `n / members`; numbers above all rooms' members
/// only publish.
#[derive(Clone, Debug)]
pub struct Scene {
    pub dialect: Dialect,
    pub gateways: Vec<SocketAddr>,
    /// Conversations.
    pub rooms: Vec<i64>,
    /// Of each room.
    pub members: usize,
    /// Access tokens, by user.
    pub tokens: Vec<String>,
    /// In both directions; none when it is `None`.
    pub heart_beat: Option<Duration>,
    /// Text of a message, in bytes.
    pub size: usize,
    /// Whether a SEND asks for a receipt.
    pub receipts: bool,
    /// Whose CPU time and memory are read.
    pub processes: Vec<Process>,
}

impl Scene {
    pub fn subscribers(&self) -> usize {
        self.rooms.len() * self.members
    }
}

/// What connecting took.
#[derive(Clone, Debug)]
pub struct Connected {
    pub took: Duration,
    /// Set-ups that failed and were tried again.
    pub retries: u64,
    /// From connect() to the RECEIPT, microseconds.
    pub latency: hdrhistogram::Histogram<u64>,
    pub before: Vec<Usage>,
    pub after: Vec<Usage>,
}

/// See the module.
pub struct Engine {
    poll: Poll,
    events: Events,
    pub clients: Clients,
}

impl Engine {
    pub fn new(scene: Scene) -> Result<Self> {
        let poll = Poll::new().context("making an epoll")?;
        let registry = poll.registry().try_clone().context("sharing an epoll")?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS), clients: Clients::new(scene, registry) })
    }

    /// Waits for events, `wait` at most, and handles them.
    pub fn turn(&mut self, wait: Duration) -> Result<()> {
        self.clients.begin_more()?;
        self.clients.beat();
        match self.poll.poll(&mut self.events, Some(wait.min(TURN))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome.context("waiting for events")?,
        }
        for event in &self.events {
            self.clients.handle(event);
        }
        Ok(())
    }

    /// Turns for so long.
    pub fn idle(&mut self, time: Duration) -> Result<()> {
        self.until(time, |_| false).map(|_| ())
    }

    /// Turns until `done` or until the time is over; says which.
    pub fn until(&mut self, time: Duration, done: impl Fn(&Clients) -> bool) -> Result<bool> {
        let end = Instant::now() + time;
        loop {
            if done(&self.clients) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.turn(left.min(Duration::from_millis(20)))?;
        }
    }

    /// Connects clients `0..count` that are not connected, so many at the same time, and waits until all are
    /// subscribed.
    ///
    /// # Errors
    /// Not all are within the limit; says what the gateways answered.
    pub fn connect(
        &mut self,
        count: usize,
        concurrently: usize,
        limit: Duration,
        progress: impl Fn(&str),
    ) -> Result<Connected> {
        let before = self.clients.usage();
        let (from, counted) = (Instant::now(), self.clients.counts);
        self.clients.open(count, concurrently);
        let mut said = from;
        while self.clients.ready() < count && from.elapsed() < limit {
            self.turn(TURN)?;
            let refused = self.clients.counts.retries - counted.retries;
            if refused > MOST_RETRIES.max(2 * count as u64) {
                break;
            }
            if said.elapsed() > SAY_EVERY {
                said = Instant::now();
                progress(&format!("{} of {count} subscribed", self.clients.ready()));
            }
        }
        let took = from.elapsed();
        ensure!(
            self.clients.ready() == count,
            "{} of {count} clients were subscribed after {:.0} s. {}",
            self.clients.ready(),
            took.as_secs_f64(),
            self.clients.complaints()
        );
        let retries = self.clients.counts.retries - counted.retries;
        let latency = self.clients.setup.clone();
        self.clients.setup.reset();
        Ok(Connected { took, retries, latency, before, after: self.clients.usage() })
    }
}
