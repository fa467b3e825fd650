//! Kafka, as far as core writes to it: the topics, and unsequenced events.

pub mod producer;
pub mod topics;
