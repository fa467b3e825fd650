//! How clients reach this gateway: the listener, the WebSocket, and how frames look on the wire of each transport.
//!
//! [`listener`] accepts connections and reads HTTP; [`upgrade`] lets those in that become WebSockets, [`sockjs`] is for
//! clients that have none. A session then reads through an [`Inlet`] and writes through its
//! [`crate::session::Outgoing`], whose frames were built by the [`Encoding`] of its transport.

mod encoding;
mod inlet;
pub mod listener;
pub mod sockjs;
pub mod upgrade;

pub use encoding::Encoding;
pub use inlet::{Inlet, Received};

#[cfg(test)]
pub use encoding::tests::text;
