//! What must hold for any bytes, as functions that panic where it does not. The fuzz targets beside this call them with
//! what libFuzzer makes up; `socket-gateway/tests/fuzz_corpus.rs` includes this file and calls them with the corpus.
//!
//! An input begins with a few bytes that choose version, limits, and how the rest is cut; the rest is what a client
//! sends, so that seeds can be written and findings read without tools.

mod client_frame;
pub mod handshake;
mod pieces;
pub mod session;
pub mod sockjs_framing;
pub mod stomp_decoder;
pub mod websocket;

/// One target: its name, which is that of its corpus's folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 5] = [
    ("handshake", handshake::run),
    ("session", session::run),
    ("sockjs_framing", sockjs_framing::run),
    ("stomp_decoder", stomp_decoder::run),
    ("websocket", websocket::run),
];
