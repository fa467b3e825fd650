//! socket-gateway: holds client connections. STOMP comes in and goes to core; entries of this gateway's Redis stream
//! come in and go to the clients that follow them.
//!
//! A message's way in: [`transport`] → [`stomp`] → [`session`] → [`upstream`]. A message's way out: [`inbox`] → [`hub`]
//! → [`session`]'s outgoing queue → [`transport`]. [`registration`] makes the rest of the system know this gateway.

pub mod app;
pub mod config;
pub mod disconnect;
pub mod hub;
pub mod inbox;
pub mod metrics;
pub mod refusal;
pub mod registration;
pub mod session;
pub mod stomp;
pub mod transport;
pub mod upstream;
pub mod websocket;
