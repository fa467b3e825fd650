//! How a STOMP frame looks on each transport. It is built once for all sessions that share it: nothing is added to it
//! when it is written.

use bytes::Bytes;

use crate::websocket::{self, Deflate, frame};

/// What one session's frames are wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A WebSocket text message for each frame.
    WebSocket,
    /// The same, compressed from `min` bytes on.
    Deflate { deflate: Deflate, min: usize },
}

impl Encoding {
    /// One STOMP frame, or a heart-beat, of these parts.
    pub fn encode(self, parts: &[&str]) -> Bytes {
        match self {
            Encoding::Deflate { deflate, min } if parts.iter().map(|part| part.len()).sum::<usize>() >= min => {
                websocket::compress(deflate, parts)
            }
            Encoding::WebSocket | Encoding::Deflate { .. } => frame::text(parts),
        }
    }

    /// The last that is sent.
    pub fn close(self, code: u16, reason: &str) -> Bytes {
        frame::close(code, reason)
    }
}

#[cfg(test)]
pub mod tests {
    /// The text of a [`super::Encoding::WebSocket`] frame.
    pub fn text(frame: &[u8]) -> &str {
        let header = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        std::str::from_utf8(&frame[header..]).unwrap()
    }
}
