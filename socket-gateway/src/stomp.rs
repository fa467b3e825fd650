//! STOMP 1.0, 1.1 and 1.2 without I/O: bytes to frames, frames to typed commands, answers to bytes.
//!
//! The way of the data: a WebSocket message's bytes go into a buffer, [`Decoder::decode`] takes whole [`Frame`]s out of
//! it, [`Command::parse`] turns a frame into what the session understands; nothing behind it sees a header map.
//! [`Writer`] builds the frames that go out. See the specifications at stomp.github.io.

mod command;
mod decoder;
mod escape;
mod frame;
mod version;
mod writer;

pub use command::{Ack, AckMode, AckOf, Command, CommandError, Connect, Send, Subscribe, Transaction};
pub use decoder::{DecodeError, Decoder, Limits, Malformed};
pub use frame::{Frame, Headers, Verb};
pub use version::Version;
pub use writer::{HEART_BEAT, Writer};
