//! The fanout worker: Kafka in, Redis streams out.
//!
//! The way of a record: [`consumer`] polls it on a thread of its own → [`coordinator`] hands it to the executor of its
//! partition → [`partition`] takes what waits as one batch → [`audience`] reads who is interested → [`route`] plans the
//! writes (pure) → [`publish`] appends to the gateways' streams → [`watermark`] moves, and only then is the offset
//! stored. What can't be decoded goes to [`dead_letter`] first. Beside it run [`sweeper`], which forgets gateways whose
//! lease is gone, and [`redis_link`], which keeps the connection.
//!
//! Concurrency: one poll thread that alone touches the Kafka consumer, one task for each assigned partition, one
//! shared Redis connection. Order holds within a partition; partitions are independent.

pub mod admin;
pub mod app;
pub mod audience;
pub mod config;
pub mod consumer;
pub mod coordinator;
pub mod dead_letter;
pub mod kafka_log;
pub mod metrics;
pub mod partition;
pub mod polled;
pub mod publish;
pub mod redis_link;
pub mod route;
pub mod sweeper;
pub mod watermark;
