//! The durable path at its limit: messages through `StreamCreateMessages` or STOMP, many streams, pipelined, paced or
//! as fast as they are answered; what each process of the stack spent on them.
//!
//! The schedule of a paced run is open: latency counts from when a message was due. Subscribers are raw-byte clients
//! that look for the tag of a message and nothing else, so that the generator takes little of the machine it shares.

mod capture;
mod crowd;
mod report;
mod sender;
mod subscriber;
mod tally;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{capture::Connector, crowd::Crowd, report::Reading, tally::Tally};
use crate::endpoints::Endpoints;

/// How messages go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// `StreamCreateMessages` of the cores
    Grpc,
    /// SEND on the subscribers' own sessions; needs `--subscribe`
    Stomp,
}

/// What to do.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// Conversations
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub rooms: usize,
    /// Members of each, nobody in two
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub members: usize,
    #[arg(long, value_enum, default_value = "grpc")]
    pub via: Via,
    /// Streams to each core
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub streams: usize,
    /// Messages of one stream that are not answered yet, at most
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub in_flight: usize,
    /// Messages a second over all streams; 0: as fast as they are answered
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub rate: f64,
    /// Sent before anything counts: just-in-time compilers and buffer pools
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub warm_up: Duration,
    /// How long to measure
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    pub time: Duration,
    /// Text of each message, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Every member is connected to a gateway and subscribed
    #[arg(long)]
    pub subscribe: bool,
    /// Pauses the connector meanwhile, and prints how fast it catches up
    #[arg(long)]
    pub pause_connector: bool,
    /// How long to wait for what is under way when the sending ends
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
}

impl Plan {
    fn validate(&self) -> Result<()> {
        ensure!(self.rooms > 0 && self.members > 0, "--rooms and --members must be at least 1");
        ensure!(self.streams > 0 && self.in_flight > 0, "--streams and --in-flight must be at least 1");
        ensure!(self.rate >= 0.0 && self.rate.is_finite(), "--rate must be a number from 0");
        ensure!(!self.time.is_zero(), "--time must be above 0");
        ensure!(self.via == Via::Grpc || self.subscribe, "--via stomp needs --subscribe");
        ensure!(self.via == Via::Grpc || self.rate > 0.0, "--via stomp needs a --rate");
        Ok(())
    }
}

/// Runs it and prints what came out.
pub async fn run(endpoints: &Endpoints, plan: &Plan) -> Result<()> {
    plan.validate()?;
    println!("{} conversations of {}", plan.rooms, plan.members);
    let crowd = Arc::new(Crowd::gather(endpoints, plan).await?);
    let tally = Arc::new(Tally::default());
    let mut subscribers = JoinSet::new();
    let mut sessions = Vec::new();
    if plan.subscribe {
        println!("{} subscribers at {} gateways", crowd.people.len(), endpoints.gateways.len());
        sessions = subscriber::connect_all(endpoints, &crowd, &tally, &mut subscribers).await?;
    }
    let capture = capture::Stream::open(endpoints).await?;
    let connector = Connector::of(endpoints);
    if plan.pause_connector {
        connector.pause().await?;
        println!("the connector is paused");
    }

    let begun = Instant::now();
    let measured_from = begun + plan.warm_up;
    let until = measured_from + plan.time;
    tally.measure_from(measured_from);
    let mut senders = JoinSet::new();
    match plan.via {
        Via::Grpc => sender::grpc(endpoints, plan, &crowd, &tally, (begun, until), &mut senders).await?,
        Via::Stomp => sender::stomp(plan, &crowd, &tally, (begun, until), sessions, &mut senders),
    }
    tokio::time::sleep_until(measured_from).await;
    let before = Reading::take(endpoints, &tally).await?;
    let lag_early = watch(plan, &tally, &capture, measured_from, until).await;
    let after = Reading::take(endpoints, &tally).await?;
    let lag_late = tally.undelivered(plan.members * usize::from(plan.subscribe));
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    report::print(plan, &tally, &before, &after);
    if plan.subscribe {
        println!("  deliveries outstanding at second 10: {lag_early}, at the end: {lag_late}");
        drain(plan, &tally).await?;
    }
    if plan.pause_connector {
        let waiting = tally.created.load(Ordering::Relaxed);
        connector.resume().await?;
        capture.catch_up(waiting, plan.drain * 4).await?;
    }
    subscribers.shutdown().await;
    Ok(())
}

/// A line a second; what was outstanding ten seconds in.
async fn watch(plan: &Plan, tally: &Tally, capture: &capture::Stream, from: Instant, until: Instant) -> usize {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let per_message = plan.members * usize::from(plan.subscribe);
    let mut early = 0;
    let mut last = 0;
    while Instant::now() < until {
        seconds.tick().await;
        let created = tally.created.load(Ordering::Relaxed);
        let second = from.elapsed().as_secs();
        let outstanding = tally.undelivered(per_message);
        if second == 10 {
            early = outstanding;
        }
        println!(
            "{second:4} s  created {created:8} (+{:5})  refused {}  delivered {:8}  outstanding {outstanding:7}",
            created - last,
            tally.refused.load(Ordering::Relaxed),
            tally.delivered.load(Ordering::Relaxed),
        );
        last = created;
    }
    let _ = capture;
    early
}

/// Waits until everything that was created has been delivered.
async fn drain(plan: &Plan, tally: &Tally) -> Result<()> {
    let begun = Instant::now();
    let mut looks = interval(Duration::from_millis(10));
    while tally.undelivered(plan.members) > 0 {
        ensure!(begun.elapsed() < plan.drain, "{} deliveries did not come", tally.undelivered(plan.members));
        looks.tick().await;
    }
    println!("  all delivered {:.2} s after the last was sent", begun.elapsed().as_secs_f64());
    Ok(())
}
