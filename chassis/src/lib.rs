//! The skeleton that every Switchboard process has; it knows nothing of chat.
//!
//! [`run()`] reads the command line and the configuration, starts logging and the runtime, and calls the service's own
//! `serve` with a [`Process`]: lifecycle (two-stage shutdown), readiness (which dependency is missing), and the admin
//! listener. Beside it stand what services of this system share: token verification, service tokens, back-off.

pub mod admin;
pub mod backoff;
pub mod config;
pub mod hops;
pub mod http;
pub mod jwt;
pub mod lifecycle;
pub mod readiness;
mod renewal;
mod run;
pub mod secret;
pub mod seeded;
pub mod service_token;
pub mod telemetry;

pub use backoff::Backoff;
pub use config::Validate;
pub use lifecycle::Lifecycle;
pub use readiness::{Dependency, Readiness};
pub use run::{Process, Spec, run, run_command};
pub use secret::Secret;

/// The machine's clock, microseconds since the Unix epoch.
pub fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
