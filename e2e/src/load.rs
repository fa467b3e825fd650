//! The load generator: many users in many conversations, messages on a fixed schedule, and a verdict on what came.
//!
//! The schedule is open: message `k` is due at `start + k / rate`, whatever happened to those before, and latency is
//! told from the due time too, so that a stalled system can't hide its stall by slowing the generator down. Sending,
//! receiving and judging happen in one process, with one monotonic clock.

mod clock;
mod crowd;
mod report;
mod tally;
mod user;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::report::Report;
use self::{clock::Clock, crowd::Crowd, tally::Tally};
use crate::{
    endpoints::Endpoints,
    hops::Stamps,
    kafka,
    processes::{self, Usage},
    rest::Rest,
};

/// The fanout workers' consumer group.
const GROUP: &str = "fanout";
/// Between the last preparation and the first message.
const LEAD: Duration = Duration::from_millis(500);
/// How often the end looks whether all has come.
const POLL: Duration = Duration::from_millis(50);
/// How long the workers get to store their last offsets before the lag is told.
const LAG_DEADLINE: Duration = Duration::from_secs(8);

/// What a user subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subscribe {
    /// `/topic/conversations/{id}` for each conversation
    Topic,
    /// `/user/queue/events`
    Queue,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub users: usize,
    pub rooms: usize,
    pub rooms_per_user: usize,
    /// Messages a second.
    pub rate: f64,
    pub time: Duration,
    /// Text of a message, in bytes.
    pub size: usize,
    /// How many gateways are used at most.
    pub gateways: usize,
    pub subscribe: Subscribe,
    /// How long to wait at the end for what is under way.
    pub drain: Duration,
}

impl Plan {
    fn validate(&self) -> Result<()> {
        ensure!(self.rooms > 0 && self.users >= self.rooms, "--users must be at least --rooms, and that at least 1");
        ensure!(
            (1..=self.rooms).contains(&self.rooms_per_user),
            "--rooms-per-user must be from 1 to --rooms ({})",
            self.rooms
        );
        ensure!(self.rate > 0.0 && self.rate.is_finite(), "--rate must be above 0");
        ensure!(self.messages() > 0, "--rate times --time gives no message");
        Ok(())
    }

    /// How many messages the schedule has.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "validated to be above 0; saturates")]
    pub fn messages(&self) -> usize {
        (self.rate * self.time.as_secs_f64()) as usize
    }

    /// When message `k` is due, from the start.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 messages")]
    fn due(&self, k: usize) -> Duration {
        Duration::from_secs_f64(k as f64 / self.rate)
    }

    /// The rooms of a user, by number: spread so that each room's members sit on different gateways.
    fn rooms_of(&self, user: usize) -> Vec<usize> {
        let step = self.rooms / self.rooms_per_user;
        (0..self.rooms_per_user).map(|nth| (user + nth * step) % self.rooms).collect()
    }

    /// The members of a room, by number.
    fn members_of(&self, room: usize) -> Vec<usize> {
        (0..self.users).filter(|user| self.rooms_of(*user).contains(&room)).collect()
    }
}

/// Sets up, sends, waits, judges. `progress` gets a line for each step and each second.
pub async fn run(endpoints: &Endpoints, plan: &Plan, progress: impl Fn(&str)) -> Result<Report> {
    plan.validate()?;
    let rest = Rest::new(&endpoints.core);
    progress(&format!("{} users in {} conversations", plan.users, plan.rooms));
    let crowd = Arc::new(Crowd::gather(endpoints, &rest, plan).await?);

    let tally = Arc::new(Tally::new(plan.messages()));
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    progress(&format!("connecting to {} gateways", crowd.gateways.len()));
    let mut users = user::connect_all(&crowd, plan).await?;

    let before = usage(endpoints);
    let clock = Clock::starting_in(LEAD);
    let started = Instant::from_std(clock.start());
    let mut readers = Vec::new();
    for user in users.drain(..) {
        let (writer, reader) = user.into_tasks(&crowd, plan, &clock, &tally);
        tasks.spawn(writer);
        let stop = stop.clone();
        readers.push(tasks.spawn(async move { reader.run(stop).await }));
    }
    tasks.close();

    watch(plan, &tally, started, &progress).await;
    let cpu = report::Cpu { before, after: usage(endpoints), took: started.elapsed() };
    let lag = settled_lag(endpoints).await;
    stop.cancel();
    let mut arrivals = Vec::new();
    for reader in readers {
        arrivals.extend(reader.await?);
    }
    tasks.wait().await;
    let stamps = Stamps::read(&endpoints.core_admin()?, &endpoints.gateway_admin()?, None).await?;
    Ok(Report::build(plan, &crowd, &clock, &tally, arrivals, &stamps, &cpu, lag))
}

/// What all processes have used so far, this one last.
fn usage(endpoints: &Endpoints) -> Vec<Usage> {
    let mut usage = processes::read(&endpoints.processes);
    usage.extend(processes::own(processes::GENERATOR));
    usage
}

/// One line a second until all has come, or until the wait at the end is over.
async fn watch(plan: &Plan, tally: &Tally, started: Instant, progress: &impl Fn(&str)) {
    let give_up = started + plan.time + plan.drain;
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut polls = interval(POLL);
    while Instant::now() < give_up && !tally.is_complete() {
        tokio::select! {
            _ = polls.tick() => {}
            _ = seconds.tick() => {
                if let Some(at) = Instant::now().checked_duration_since(started).filter(|at| !at.is_zero()) {
                    let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
                    progress(&format!(
                        "{:4} s  sent {:6}  acknowledged {:6}  refused {}  delivered {:7} of {:7}",
                        at.as_secs(), count(&tally.sent), count(&tally.acknowledged), count(&tally.refused),
                        count(&tally.delivered), count(&tally.expected),
                    ));
                }
            }
        }
    }
}

/// The group's lag once it has stopped falling to 0, or after the deadline; `None` when Kafka does not tell.
async fn settled_lag(endpoints: &Endpoints) -> Option<i64> {
    let deadline = Instant::now() + LAG_DEADLINE;
    let mut polls = interval(Duration::from_millis(500));
    loop {
        polls.tick().await;
        let lag = kafka::lag(&endpoints.kafka, GROUP, proto::topics::MESSAGE_EVENTS).await.ok();
        if lag == Some(0) || Instant::now() >= deadline {
            return lag;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_have_equally_many_members_from_different_gateways() {
        let plan = Plan {
            users: 200,
            rooms: 50,
            rooms_per_user: 2,
            rate: 100.0,
            time: Duration::from_secs(60),
            size: 128,
            gateways: 3,
            subscribe: Subscribe::Topic,
            drain: Duration::from_secs(1),
        };
        plan.validate().unwrap();
        assert_eq!(plan.messages(), 6000);
        for room in 0..50 {
            let members = plan.members_of(room);
            assert_eq!(members.len(), 8);
            let gateways: std::collections::BTreeSet<_> = members.iter().map(|user| user % 3).collect();
            assert_eq!(gateways.len(), 3, "room {room}");
        }
    }
}
