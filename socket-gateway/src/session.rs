//! A client's session, from CONNECT to the close.
//!
//! [`Machine`] is the protocol: frames, answers and times in, [`Output`]s out, no I/O. [`mod@serve`] is the task that moves
//! the bytes: one for each connection, which owns the WebSocket, the decoder and the machine. What other tasks have for
//! the client goes into its [`Outgoing`] queue and never waits for it.

mod acks;
mod destination;
mod frames;
mod lane;
mod machine;
mod outgoing;
mod rate;
mod request;
mod serve;
mod subscriptions;
mod transactions;

#[cfg(test)]
pub use lane::{Lane, Submission};
pub use lane::{Retry, Run};
pub use machine::{Input, Machine, Output, Settings, Verified};
#[cfg(test)]
pub use outgoing::tests as outgoing_tests;
pub use outgoing::{Class, Event, Outgoing, Pulled, Pushed, Reserved, Sink, Unflushed, Waiter};
pub use serve::{Services, Users, serve};
pub use transactions::Limits as HeldLimits;
