//! One measured stretch of sending at a fixed rate.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Direct, Engine};
use crate::processes::{self, Usage};

/// A message that goes out later than this bears the time at which it was due.
const LATE: u64 = 2_000_000;
/// Messages that are written before the sockets are looked at again.
const BURST: usize = 32;
/// From the reading of the processes to the first message.
const LEAD: Duration = Duration::from_millis(20);
/// The end does not wait for more when nothing came for so long.
const QUIET: Duration = Duration::from_secs(1);

/// Who sends.
pub enum Sender {
    /// Clients that do not subscribe, in turn, into room 0.
    Publishers { first: usize, count: usize },
    /// The rooms in turn, and in each its members in turn.
    Members,
    /// The gateways' streams themselves.
    Direct(Direct),
}

/// What one process used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessUse {
    pub name: String,
    pub cpu_ms: u64,
    pub rss_kib: u64,
}

/// What one window has shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Window {
    /// Messages a second that were asked for.
    pub rate: f64,
    /// How long was sent, and how long the processes were watched: until all had come.
    pub time_s: f64,
    pub watched_s: f64,
    pub sent: u64,
    /// Sent by the time that was asked for.
    pub sent_in_time: u64,
    /// Deliveries that are due for what was sent.
    pub expected: u64,
    pub delivered: u64,
    /// Delivered while messages were sent, a second.
    pub deliveries_per_s: f64,
    pub bytes: u64,
    pub bytes_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// Of RECEIPTs, where they were asked for.
    pub receipt_p50_ms: Option<f64>,
    pub receipt_p99_ms: Option<f64>,
    /// Connections that ended, and ERRORs.
    pub closed: u64,
    pub errors: u64,
    /// Bytes of one read of the generator: how much came at once.
    pub bytes_per_read: f64,
    /// The most that a message went out late.
    pub late_ms: f64,
    /// Deliveries that were due and not there, 10 s after the start and at the end of the sending.
    pub outstanding_at_10_s: Option<u64>,
    pub outstanding_at_end: u64,
    pub processes: Vec<ProcessUse>,
    /// Cores that were busy with something else.
    pub other_cores: f64,
}

impl Window {
    /// All that was asked for went out and arrived, in good time.
    pub fn held(&self) -> bool {
        let wanted = self.rate * self.time_s;
        self.delivered > 0
            && self.p99_ms <= 500.0
            && self.delivered as f64 >= 0.99 * self.expected as f64
            && self.sent_in_time as f64 >= 0.95 * wanted
            && self.closed == 0
    }

    /// Microseconds of CPU of the processes whose names start so.
    pub fn cpu_us(&self, prefix: &str) -> f64 {
        self.processes.iter().filter(|used| used.name.starts_with(prefix)).map(|used| used.cpu_ms as f64 * 1000.0).sum()
    }

    /// Microseconds of CPU of what the clients are connected to.
    pub fn server_us(&self) -> f64 {
        self.processes.iter().filter(|used| is_server(&used.name)).map(|used| used.cpu_ms as f64 * 1000.0).sum()
    }

    /// Microseconds of CPU of all of the stack.
    pub fn stack_cpu_us(&self) -> f64 {
        self.cpu_us("") - self.cpu_us(processes::GENERATOR)
    }
}

/// A schedule that is being sent.
struct Schedule {
    from: Instant,
    gap: Duration,
    total: usize,
    sent: usize,
    late_ns: u64,
}

impl Schedule {
    fn due(&self, k: usize) -> Instant {
        self.from + self.gap.mul_f64(k as f64)
    }
}

impl Engine {
    /// Sends `rate` messages a second for `time`, then waits for what is under way, `drain` at most. A line of
    /// `progress` each second.
    pub fn window(
        &mut self,
        sender: &mut Sender,
        rate: f64,
        time: Duration,
        drain: Duration,
        progress: &dyn Fn(&str),
    ) -> Result<Window> {
        let (before, busy_before) = (self.clients.usage(), processes::machine_cpu_ms());
        let watched = Instant::now();
        let counted = self.clients.counts;
        self.clients.latency.reset();
        self.clients.receipts.reset();
        self.clients.window_from = self.clients.now();

        let gap = Duration::from_secs_f64(1.0 / rate);
        let total = (time.as_secs_f64() * rate).round() as usize;
        let mut schedule = Schedule { from: Instant::now() + LEAD, gap, total, sent: 0, late_ns: 0 };
        let end = schedule.from + time;
        let members = self.clients.readers() as u64;
        let outstanding = |engine: &Self| {
            let counts = engine.clients.counts;
            ((counts.sent - counted.sent) * members).saturating_sub(counts.delivered - counted.delivered)
        };
        let (mut second, mut outstanding_at_10_s) = (1, None);
        loop {
            self.publish(sender, &mut schedule)?;
            let now = Instant::now();
            let next_second = schedule.from + Duration::from_secs(second);
            if now >= next_second {
                if second == 10 {
                    outstanding_at_10_s = Some(outstanding(self));
                }
                let counts = self.clients.counts;
                progress(&format!(
                    "{second:4} s  sent {:8}  delivered {:10}  outstanding {}",
                    counts.sent - counted.sent,
                    counts.delivered - counted.delivered,
                    outstanding(self)
                ));
                second += 1;
            }
            if now >= end {
                break;
            }
            let next = if schedule.sent < total { schedule.due(schedule.sent) } else { end };
            self.turn(next.min(end).min(next_second).saturating_duration_since(Instant::now()))?;
        }
        let in_time = self.clients.counts;
        let (outstanding_at_end, time) = (outstanding(self), schedule.from.elapsed());
        self.drain(sender, drain, |engine| outstanding(engine) == 0)?;

        let after = self.clients.usage();
        let watched = watched.elapsed();
        let counts = self.clients.counts;
        let processes = used(&before, &after);
        let busy_ms = processes::machine_cpu_ms().zip(busy_before).map_or(0, |(after, before)| after - before);
        let known_ms: u64 = processes.iter().map(|used| used.cpu_ms).sum();
        let (time_s, watched_s) = (time.as_secs_f64(), watched.as_secs_f64());
        let bytes = counts.bytes - counted.bytes;
        let sent = counts.sent - counted.sent;
        let latency = &self.clients.latency;
        let receipts = Some(&self.clients.receipts).filter(|receipts| !receipts.is_empty());
        Ok(Window {
            rate,
            time_s,
            watched_s,
            sent,
            sent_in_time: in_time.sent - counted.sent,
            expected: sent * members,
            delivered: latency.len(),
            deliveries_per_s: (in_time.delivered - counted.delivered) as f64 / time_s,
            bytes,
            bytes_per_s: (in_time.bytes - counted.bytes) as f64 / time_s,
            p50_ms: quantile_ms(latency, 0.5),
            p99_ms: quantile_ms(latency, 0.99),
            p999_ms: quantile_ms(latency, 0.999),
            max_ms: latency.max() as f64 / 1000.0,
            receipt_p50_ms: receipts.map(|receipts| quantile_ms(receipts, 0.5)),
            receipt_p99_ms: receipts.map(|receipts| quantile_ms(receipts, 0.99)),
            closed: counts.closed - counted.closed,
            errors: counts.errors - counted.errors,
            bytes_per_read: bytes as f64 / (counts.reads - counted.reads).max(1) as f64,
            late_ms: schedule.late_ns as f64 / 1e6,
            outstanding_at_10_s,
            outstanding_at_end,
            processes,
            other_cores: (busy_ms as f64 - known_ms as f64).max(0.0) / 1000.0 / watched_s,
        })
    }

    /// Sends what is due now, a burst at most.
    fn publish(&mut self, sender: &mut Sender, schedule: &mut Schedule) -> Result<()> {
        for _ in 0..BURST {
            let k = schedule.sent;
            if k >= schedule.total {
                break;
            }
            let now = Instant::now();
            let Some(late) = now.checked_duration_since(schedule.due(k)) else { break };
            let late = late.as_nanos() as u64;
            schedule.late_ns = schedule.late_ns.max(late);
            let stamp = self.clients.now() - if late > LATE { late } else { 0 };
            match sender {
                Sender::Publishers { first, count } => self.clients.send(*first + k % *count, 0, stamp),
                Sender::Members => {
                    let (rooms, members) = (self.clients.scene.rooms.len(), self.clients.scene.members);
                    let room = k % rooms;
                    self.clients.send(room * members + k / rooms % members, room, stamp);
                }
                Sender::Direct(direct) => {
                    self.clients.counts.sent += 1;
                    direct.send(stamp, self.clients.scene.size)?;
                }
            }
            schedule.sent += 1;
        }
        if let Sender::Direct(direct) = sender {
            direct.pump()?;
        }
        Ok(())
    }

    /// Turns until `done`, until nothing has come for a while, or until the time is over.
    pub fn drain(&mut self, sender: &mut Sender, time: Duration, done: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + time;
        let (mut last, mut came) = (self.clients.counts.delivered, Instant::now());
        while Instant::now() < end && came.elapsed() < QUIET && !done(self) {
            if let Sender::Direct(direct) = sender {
                direct.pump()?;
            }
            self.turn(Duration::from_millis(5))?;
            if self.clients.counts.delivered != last {
                (last, came) = (self.clients.counts.delivered, Instant::now());
            }
        }
        Ok(())
    }
}

/// Whether clients are connected to that process.
pub fn is_server(name: &str) -> bool {
    name.starts_with("socket-gateway") || name == crate::bench::peer::NAME
}

pub fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

/// What each process used between two readings; one that was restarted meanwhile is left out.
pub fn used(before: &[Usage], after: &[Usage]) -> Vec<ProcessUse> {
    let of = |after: &Usage| {
        let before = before.iter().find(|before| before.name == after.name)?;
        let cpu_ms = after.cpu_ms.checked_sub(before.cpu_ms)?;
        Some(ProcessUse { name: after.name.clone(), cpu_ms, rss_kib: after.rss_kib })
    };
    after.iter().filter_map(of).collect()
}
