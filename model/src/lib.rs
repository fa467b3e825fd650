//! The delivery protocol as a model that is checked exhaustively: every order of steps, every crash, for small sizes.
//!
//! A [`State`] is the whole system: MySQL, cores, the connector, Kafka, workers, Redis, gateways, clients. An
//! [`Action`] is one step of one of them that the others can't look into; `docs/model.md` has the table of which
//! function each stands for. A [`Setup`] says how large the system is, what may go wrong how often, and which seeded
//! bug is in. [`promise`] holds what must be true. Nothing here is random: [`check`] visits every reachable state.

pub mod action;
pub mod capture;
pub mod check;
pub mod client;
pub mod core;
pub mod database;
pub mod gateway;
pub mod lane;
mod narrate;
pub mod promise;
pub mod redis;
pub mod setup;
pub mod setups;
pub mod state;
pub mod worker;

pub use action::Action;
pub use setup::{Faults, SeededBug, Setup};
pub use state::State;
