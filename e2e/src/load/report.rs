//! What a run has shown.

use std::{fmt, sync::atomic::Ordering, time::Duration};

use serde::Serialize;

use super::{
    Plan,
    clock::Clock,
    crowd::Crowd,
    tally::Tally,
    user::{Arrival, What},
};
use crate::{
    history::{History, Verdict},
    hops::{self, Stamps},
    percentiles::Percentiles,
    processes::Usage,
    table,
};

/// The result of a run. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    pub sent: usize,
    pub acknowledged: usize,
    pub refused: usize,
    /// Deliveries that the acknowledged messages promise.
    pub expected: usize,
    pub delivered: usize,
    pub lost: usize,
    pub duplicates: usize,
    pub out_of_order: usize,
    pub gaps: usize,
    pub wrong: usize,
    /// The first complaints, for people.
    pub complaints: Vec<String>,
    /// SEND written -> MESSAGE read.
    pub latency: Percentiles,
    /// Due by the schedule -> MESSAGE read.
    pub latency_from_schedule: Percentiles,
    /// SEND written -> RECEIPT read.
    pub receipt: Percentiles,
    /// The hops, over the deliveries whose stamps the processes still remember.
    pub hops: Vec<Hop>,
    pub processes: Vec<ProcessUse>,
    /// Records that the fanout workers have not stored; `null` when Kafka did not tell.
    pub consumer_lag: Option<i64>,
    #[serde(skip)]
    verdict: Verdict,
}

#[derive(Debug, Serialize)]
pub struct Hop {
    pub name: &'static str,
    pub times: Percentiles,
}

/// What one process used during the run.
#[derive(Debug, Serialize)]
pub struct ProcessUse {
    pub name: String,
    /// CPU microseconds for each acknowledged message.
    pub cpu_us_per_message: u64,
    /// Share of one core, in percent.
    pub cpu_percent: u64,
    pub rss_mib: u64,
}

/// Readings of the processes around a run.
#[derive(Debug)]
pub struct Cpu {
    pub before: Vec<Usage>,
    pub after: Vec<Usage>,
    pub took: Duration,
}

impl Report {
    #[expect(clippy::too_many_arguments, reason = "everything that a run leaves behind, once")]
    pub(super) fn build(
        plan: &Plan,
        crowd: &Crowd,
        clock: &Clock,
        tally: &Tally,
        arrivals: Vec<Arrival>,
        stamps: &Stamps,
        cpu: &Cpu,
        consumer_lag: Option<i64>,
    ) -> Self {
        let verdict = judge(crowd, tally, &arrivals);
        let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        let acknowledged = count(&tally.acknowledged);
        let times = Times::measure(plan, crowd, clock, tally, &arrivals, stamps);
        let [mut latency, mut from_schedule, mut receipt] = times.whole;
        let named = hops::NAMES.into_iter().zip(times.hops);
        Self {
            sent: count(&tally.sent),
            acknowledged,
            refused: count(&tally.refused),
            expected: count(&tally.expected),
            delivered: count(&tally.delivered),
            lost: verdict.lost.len(),
            duplicates: verdict.duplicates.len(),
            out_of_order: verdict.disorder.len(),
            gaps: verdict.gaps.len(),
            wrong: verdict.wrong.len(),
            complaints: tally.complaints(),
            latency: Percentiles::of(&mut latency),
            latency_from_schedule: Percentiles::of(&mut from_schedule),
            receipt: Percentiles::of(&mut receipt),
            hops: named.map(|(name, mut times)| Hop { name, times: Percentiles::of(&mut times) }).collect(),
            processes: process_use(cpu, acknowledged),
            consumer_lag,
            verdict,
        }
    }

    /// All was sent, answered, and delivered as promised.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.complaints.is_empty() && self.acknowledged == self.sent && self.sent > 0
    }
}

fn judge(crowd: &Crowd, tally: &Tally, arrivals: &[Arrival]) -> Verdict {
    let mut history = History::default();
    for k in 0..tally.seqs.len() {
        let seq = tally.seqs[k].load(Ordering::Relaxed);
        if seq > 0 {
            history.acknowledged(crowd.rooms[crowd.turn(k).0].id, seq, &crowd.tag(k));
        }
    }
    for arrival in arrivals {
        let client = &crowd.sessions[arrival.user].username;
        match arrival.what {
            What::Opened { after } => history.opened(client, arrival.conversation, after),
            What::Event { seq, message, .. } => {
                let tag = message.map(|k| crowd.tag(k));
                history.received(client, arrival.conversation, seq, tag.as_deref());
            }
        }
    }
    history.verdict()
}

/// Samples in microseconds.
struct Times {
    /// End to end, from the schedule, to the RECEIPT.
    whole: [Vec<i64>; 3],
    hops: [Vec<i64>; 5],
}

impl Times {
    fn measure(
        plan: &Plan,
        crowd: &Crowd,
        clock: &Clock,
        tally: &Tally,
        arrivals: &[Arrival],
        stamps: &Stamps,
    ) -> Self {
        let mut times = Self { whole: Default::default(), hops: Default::default() };
        for arrival in arrivals {
            let What::Event { seq, message: Some(k), read_us } = arrival.what else { continue };
            let sent_us = tally.sent_us[k].load(Ordering::Relaxed);
            times.whole[0].push(read_us - sent_us);
            times.whole[1].push(read_us - clock.us(clock.start() + plan.due(k)));
            let gateway = crowd.gateway_of(arrival.user);
            if let Some(way) = stamps.way(arrival.conversation, seq, gateway, sent_us, read_us) {
                for (samples, took) in times.hops.iter_mut().zip(way) {
                    samples.push(took);
                }
            }
        }
        for (sent, acknowledged) in tally.sent_us.iter().zip(&tally.acknowledged_us) {
            let acknowledged = acknowledged.load(Ordering::Relaxed);
            if acknowledged > 0 {
                times.whole[2].push(acknowledged - sent.load(Ordering::Relaxed));
            }
        }
        times
    }
}

fn process_use(cpu: &Cpu, messages: usize) -> Vec<ProcessUse> {
    let messages = u64::try_from(messages.max(1)).unwrap_or(u64::MAX);
    let took_ms = u64::try_from(cpu.took.as_millis().max(1)).unwrap_or(u64::MAX);
    let used = |after: &Usage| {
        let before = cpu.before.iter().find(|before| before.name == after.name)?;
        // A process that was restarted meanwhile has used less than the one before.
        let used_ms = after.cpu_ms.checked_sub(before.cpu_ms)?;
        Some(ProcessUse {
            name: after.name.clone(),
            cpu_us_per_message: used_ms * 1000 / messages,
            cpu_percent: used_ms * 100 / took_ms,
            rss_mib: after.rss_kib / 1024,
        })
    };
    cpu.after.iter().filter_map(used).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "sent {}, acknowledged {}, refused {}; delivered {} of {}",
            self.sent, self.acknowledged, self.refused, self.delivered, self.expected
        )?;
        writeln!(f, "{}", self.verdict)?;
        for complaint in &self.complaints {
            writeln!(f, "  {complaint}")?;
        }
        writeln!(f)?;
        let row = |name: &str, times: &Percentiles| {
            let ms = |value: f64| format!("{value:.1}");
            let numbers = [ms(times.p50), ms(times.p90), ms(times.p99), ms(times.max), times.count.to_string()];
            std::iter::once(name.to_owned()).chain(numbers).collect::<Vec<_>>()
        };
        let mut rows = vec![row("SEND -> MESSAGE", &self.latency)];
        rows.extend(self.hops.iter().map(|hop| row(&format!("  {}", hop.name), &hop.times)));
        rows.push(row("due -> MESSAGE", &self.latency_from_schedule));
        rows.push(row("SEND -> RECEIPT", &self.receipt));
        writeln!(f, "{}", table::render(&["latency, ms", "p50", "p90", "p99", "max", "samples"], &rows))?;
        let rows: Vec<_> = self
            .processes
            .iter()
            .map(|used| {
                let numbers = [used.cpu_us_per_message, used.cpu_percent, used.rss_mib].map(|n| n.to_string());
                std::iter::once(used.name.clone()).chain(numbers).collect()
            })
            .collect();
        writeln!(f, "{}", table::render(&["process", "CPU us/message", "CPU %", "RSS MiB"], &rows))?;
        match self.consumer_lag {
            Some(lag) => writeln!(f, "consumer lag at the end: {lag} records"),
            None => writeln!(f, "consumer lag at the end: unknown"),
        }
    }
}
