//! A stranger in the workers' consumer group: each time it joins and leaves, partitions move twice. It never commits
//! an offset, so what it was given is read again by the worker that gets it back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};

use super::Effect;

/// The workers' group.
pub const GROUP: &str = "fanout";
/// What it reads.
pub const TOPICS: [&str; 3] = ["chat.message.events", "chat.user.events", "chat.ephemeral.events"];
/// For the group to give it something.
const ASSIGNED_LIMIT: Duration = Duration::from_secs(5);
/// For it to give everything back.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);
/// How long it stays, in ms.
const STAY: std::ops::Range<u64> = 50..1000;

/// Joins and leaves until `length` is over; it has left when this returns.
pub async fn storm(brokers: &str, length: Duration, seed: u64) -> Result<Effect> {
    let brokers = brokers.to_owned();
    let (visits, given) = tokio::task::spawn_blocking(move || visit(&brokers, length, seed)).await??;
    let detail = format!("joined and left {visits} times, {given} partitions moved to it");
    Ok(Effect { took_effect: given > 0, detail })
}

fn visit(brokers: &str, length: Duration, seed: u64) -> Result<(u32, usize)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let began = Instant::now();
    let (mut visits, mut given) = (0, 0);
    while began.elapsed() < length {
        let stranger: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", GROUP)
            .set("client.id", "stranger")
            // The group's.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .create()
            .context("making a consumer")?;
        stranger.subscribe(&TOPICS)?;
        let joined = Instant::now();
        let mut assigned = 0;
        while assigned == 0 && joined.elapsed() < ASSIGNED_LIMIT {
            let _ = stranger.poll(POLL);
            assigned = stranger.assignment()?.count();
        }
        let stay = Duration::from_millis(rng.random_range(STAY));
        let settled = Instant::now();
        while settled.elapsed() < stay {
            let _ = stranger.poll(POLL);
        }
        visits += 1;
        given += assigned;
        // Leaves the group, before it closes: a close that meets a rebalance may have no end (librdkafka 2.3).
        stranger.unsubscribe();
        let asked = Instant::now();
        while stranger.assignment()?.count() > 0 && asked.elapsed() < LEAVE_LIMIT {
            let _ = stranger.poll(POLL);
        }
        drop(stranger);
    }
    Ok((visits, given))
}
