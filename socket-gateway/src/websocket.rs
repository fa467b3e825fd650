//! The WebSocket protocol without I/O: RFC 6455, and permessage-deflate (RFC 7692).
//!
//! [`mod@handshake`] checks a request and says what to answer; a [`Decoder`] turns a client's bytes into payload and
//! control frames; [`frame`] builds the server's. Payload is passed on as it comes: STOMP has frames of its own, which may
//! be spread over messages as they like, so no message is ever collected here.
//!
//! A library would do all of this but two things that decide what a delivery costs: a frame that is built once and shared
//! by all its receivers, and no buffers for a connection that is idle (`docs/decisions/0009-own-websocket.md`).

mod decoder;
mod deflate;
pub mod frame;
pub mod handshake;
mod utf8;

pub use decoder::{Control, Decoder, Fault, Limits, Step};
pub use deflate::{Deflate, compress};

/// Close codes of RFC 6455, section 7.4.1, that this server sends by itself.
pub mod close_code {
    pub const NORMAL: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    pub const INVALID_PAYLOAD: u16 = 1007;
    pub const TOO_BIG: u16 = 1009;
}

/// Codes that may stand in a close frame: those defined for it, and those left to libraries and applications.
pub fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
