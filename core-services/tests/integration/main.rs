//! core-services as a process, on real MySQL, Kafka and Redis; each test has a database and a process of its own.
//!
//! The engines are those of `SWITCHBOARD_ENDPOINTS`, which `cargo xtask test` sets.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

mod accounts;
mod atomicity;
mod connections;
mod conversations;
mod epoch;
mod given_up;
mod harness;
mod import;
mod lifecycle;
mod locked_rows;
mod partitions;
mod proxy;
mod reads;
mod refusals;
mod sequence;
mod stream;
