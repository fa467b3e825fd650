//! core-services as a process, on real MySQL, Kafka and Redis; each test has a database and a process of its own.
//!
//! The engines are those of `SWITCHBOARD_ENDPOINTS`, which `cargo xtask test` sets.

mod atomicity;
mod harness;
mod sequence;
