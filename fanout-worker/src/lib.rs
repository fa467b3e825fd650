//! The fanout worker: Kafka in, Redis streams out.

pub mod config;
pub mod polled;
pub mod route;
pub mod watermark;
