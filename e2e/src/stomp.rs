//! A STOMP 1.2 client over WebSocket, written from the specification for tests and tools.

mod client;
mod connection;
mod frame;

pub use client::{Client, Receipt, Refusal};
pub use connection::{Closed, Connected, Incoming, Options, Reader, Writer, connect, connect_as, connect_raw};
pub use frame::{Decoder, Frame, FrameError};
