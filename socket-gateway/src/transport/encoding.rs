//! How a STOMP frame looks on each transport. It is built once for all sessions that share it: nothing is added to it
//! when it is written.

use bytes::Bytes;

use super::sockjs::{framing, json};
use crate::websocket::{self, Deflate, frame};

/// What one session's frames are wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A WebSocket text message for each frame.
    WebSocket,
    /// The same, compressed from `min` bytes on.
    Deflate { deflate: Deflate, min: usize },
    /// A SockJS frame `a["…"]` in a WebSocket text message, compressed from so many bytes on if at all.
    SockJsWebSocket { deflate: Option<(Deflate, usize)> },
    /// A JSON string: requests of SockJS that receive put many into one `a[…]`.
    SockJs,
}

impl Encoding {
    /// One STOMP frame, or a heart-beat, of these parts.
    pub fn encode(self, parts: &[&str]) -> Bytes {
        match self {
            Encoding::WebSocket => frame::text(parts),
            Encoding::Deflate { deflate, min } => message(Some((deflate, min)), parts),
            Encoding::SockJsWebSocket { deflate } => message(deflate, &["a[", &json_string(parts), "]"]),
            Encoding::SockJs => json_string(parts).into(),
        }
    }

    /// The first that is sent, where the transport wants one.
    pub fn open(self) -> Option<Bytes> {
        matches!(self, Encoding::SockJsWebSocket { .. }).then(|| frame::text(&[framing::OPEN]))
    }

    /// A heart-beat of the transport itself, where a session sends them.
    pub fn heartbeat(self) -> Option<Bytes> {
        matches!(self, Encoding::SockJsWebSocket { .. }).then(|| frame::text(&[framing::HEARTBEAT]))
    }

    /// The last that is sent.
    pub fn close(self, code: u16, reason: &str) -> Bytes {
        let close = frame::close(code, reason);
        match self {
            Encoding::WebSocket | Encoding::Deflate { .. } => close,
            Encoding::SockJsWebSocket { .. } => {
                let ours = frame::text(&[&framing::close(code, reason)]);
                [ours, close].concat().into()
            }
            Encoding::SockJs => framing::close(code, reason).into(),
        }
    }
}

/// One WebSocket message.
fn message(deflate: Option<(Deflate, usize)>, parts: &[&str]) -> Bytes {
    match deflate {
        Some((deflate, min)) if parts.iter().map(|part| part.len()).sum::<usize>() >= min => {
            websocket::compress(deflate, parts)
        }
        _ => frame::text(parts),
    }
}

fn json_string(parts: &[&str]) -> String {
    // Room for the line ends of a head that become two bytes.
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut json = String::with_capacity(len + len / 8 + 16);
    json::quote(parts, &mut json);
    json
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The text of a [`super::Encoding::WebSocket`] frame.
    pub fn text(frame: &[u8]) -> &str {
        let header = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        std::str::from_utf8(&frame[header..]).unwrap()
    }

    #[test]
    fn sockjs_wraps_a_stomp_frame_in_json() {
        let parts = ["MESSAGE\n", "a:1\n\n", "{\"x\":1}\0"];
        let json = r#""MESSAGE\na:1\n\n{\"x\":1}\u0000""#;
        assert_eq!(Encoding::SockJs.encode(&parts), json);
        let websocket = Encoding::SockJsWebSocket { deflate: None };
        assert_eq!(text(&websocket.encode(&parts)), format!("a[{json}]"));
        assert_eq!(text(&websocket.open().unwrap()), "o");
        assert_eq!(text(&websocket.heartbeat().unwrap()), "h");
        assert_eq!(Encoding::SockJs.open(), None);
    }

    #[test]
    fn the_close_frame_of_sockjs_comes_before_the_one_of_the_websocket() {
        let last = Encoding::SockJsWebSocket { deflate: None }.close(4400, "protocol_error");
        let ours = frame::text(&[r#"c[4400,"protocol_error"]"#]);
        assert_eq!(last.strip_prefix(&ours[..]), Some(&frame::close(4400, "protocol_error")[..]));
    }
}
