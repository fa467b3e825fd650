//! The worker on a real Kafka and a real Redis: topics, consumer group and key prefix of each test's own.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod admin;
mod bed;
mod delivery;
mod gateway;
mod outage;
mod poison;
mod process;
mod proxy;
mod rebalance;
mod replay;
mod sweeper;
