//! core-services: the truth. Accounts, conversations, messages and the outbox in MySQL, connections in Redis, behind
//! REST and gRPC on one listener.
//!
//! A message: [`grpc::messages`] (or [`rest::messages`]) → [`message::validate`] → [`message::writer`] →
//! [`message::batch`] in one transaction with [`outbox`] → the answer.

pub mod app;
pub mod auth;
pub mod config;
pub mod connection;
pub mod conversation;
pub mod db;
pub mod epoch;
pub mod error;
pub mod grpc;
pub mod import;
pub mod kafka;
pub mod message;
pub mod metrics;
pub mod node_lease;
pub mod outbox;
pub mod rest;
pub mod server;
pub mod snowflake;
pub mod user;

/// The time as it is stored and sent: microseconds.
pub fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_micros(chassis::now_us()).expect("the clock is within chrono's years")
}
