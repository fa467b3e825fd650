//! What a server speaks: our STOMP, or the JSON protocol of Centrifugo, so that both can be measured alike.

use std::{fmt, io::Write as _};

use crate::bench::wire::{self, Stamps};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Stomp,
    Centrifugo,
}

/// One frame of the server, as far as this generator tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// CONNECT was accepted.
    Connected,
    /// SUBSCRIBE is confirmed, or a SEND.
    Receipt,
    /// Something that may bear a stamp.
    Message,
    /// Wants to hear that we are there.
    Ping,
    Refused,
}

/// A message to send.
pub struct Outgoing {
    pub room: i64,
    pub stamp: u64,
    pub size: usize,
    pub receipt: bool,
    /// Unique in this run.
    pub id: (usize, u64),
}

impl Dialect {
    pub fn path(self) -> &'static str {
        match self {
            Self::Stomp => "/ws",
            Self::Centrifugo => "/connection/websocket",
        }
    }

    pub fn subprotocol(self) -> Option<&'static str> {
        (self == Self::Stomp).then_some("v12.stomp")
    }

    pub fn put_connect(self, out: &mut Vec<u8>, token: &str, beat_ms: u128) {
        match self {
            Self::Stomp => put(
                out,
                format_args!(
                    "CONNECT\naccept-version:1.2\nhost:switchboard\nheart-beat:{beat_ms},{beat_ms}\nAuthorization:Bearer {token}\n\n\0"
                ),
            ),
            Self::Centrifugo => put(out, format_args!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#)),
        }
    }

    pub fn put_subscribe(self, out: &mut Vec<u8>, room: i64) {
        match self {
            Self::Stomp => put(
                out,
                format_args!(
                    "SUBSCRIBE\nid:0\ndestination:/topic/conversations/{room}\nack:auto\nreceipt:subscribed\n\n\0"
                ),
            ),
            Self::Centrifugo => put(out, format_args!(r#"{{"id":2,"subscribe":{{"channel":"room:{room}"}}}}"#)),
        }
    }

    pub fn put_message(self, out: &mut Vec<u8>, message: &Outgoing) {
        let Outgoing { room, stamp, size, receipt, id: (number, k) } = *message;
        match self {
            Self::Stomp => {
                put(
                    out,
                    format_args!(
                        "SEND\ndestination:/app/conversations/{room}/messages\ncontent-type:application/json\n"
                    ),
                );
                if receipt {
                    put(out, format_args!("receipt:{stamp}\n"));
                }
                put(out, format_args!("\n{{\"client_message_id\":\"{stamp:x}-{number:x}-{k:x}\",\"body\":\""));
            }
            Self::Centrifugo => put(
                out,
                format_args!(
                    r#"{{"id":{},"publish":{{"channel":"room:{room}","data":{{"id":"{stamp:x}-{number:x}-{k:x}","content":""#,
                    k + 10
                ),
            ),
        }
        wire::put_stamp(out, stamp);
        out.resize(out.len() + size.saturating_sub(Stamps::LEN), b'x');
        out.extend_from_slice(if self == Self::Stomp { b"\"}\0" } else { b"\"}}}" });
    }

    /// Takes the next frame off a WebSocket message; `None` at its end. None of ours bears a NUL in its body.
    pub fn next<'a>(self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let blank = |byte: &&u8| matches!(byte, b'\n' | b'\r');
        let skipped = bytes.iter().take_while(blank).count();
        let rest = &bytes[skipped..];
        if rest.is_empty() {
            return None;
        }
        let end = if self == Self::Stomp { 0 } else { b'\n' };
        let len = memchr::memchr(end, rest).unwrap_or(rest.len());
        *bytes = rest.get(len + 1..).unwrap_or_default();
        Some(&rest[..len])
    }

    pub fn understand(self, frame: &[u8]) -> Said {
        match self {
            Self::Stomp => match frame.first() {
                Some(b'M') => Said::Message,
                Some(b'R') => Said::Receipt,
                Some(b'C') => Said::Connected,
                _ => Said::Refused,
            },
            Self::Centrifugo if frame == b"{}" => Said::Ping,
            Self::Centrifugo if frame.starts_with(br#"{"push""#) => Said::Message,
            Self::Centrifugo if memchr::memmem::find(frame, br#""error""#).is_some() => Said::Refused,
            Self::Centrifugo if frame.starts_with(br#"{"id":1,"#) => Said::Connected,
            Self::Centrifugo => Said::Receipt,
        }
    }
}

fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(dialect: Dialect, mut bytes: &[u8]) -> Vec<Said> {
        std::iter::from_fn(|| dialect.next(&mut bytes)).map(|frame| dialect.understand(frame)).collect()
    }

    #[test]
    fn several_frames_of_one_message_are_told_apart() {
        let stomp = b"\nMESSAGE\n\n{}\0\nRECEIPT\nreceipt-id:1\n\n\0CONNECTED\n\n\0\nERROR\n\n\0\n";
        assert_eq!(all(Dialect::Stomp, stomp), [Said::Message, Said::Receipt, Said::Connected, Said::Refused]);
        let centrifugo = b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{}}\n{}\n{\"push\":{\"pub\":{\"error\":1}}}\n{\"id\":9,\"error\":{}}";
        let said = [Said::Connected, Said::Receipt, Said::Ping, Said::Message, Said::Refused];
        assert_eq!(all(Dialect::Centrifugo, centrifugo), said);
    }

    #[test]
    fn a_message_bears_its_stamp_and_has_its_size() {
        for dialect in [Dialect::Stomp, Dialect::Centrifugo] {
            let mut out = Vec::new();
            dialect.put_message(&mut out, &Outgoing { room: 7, stamp: 99, size: 128, receipt: true, id: (1, 2) });
            assert_eq!(Stamps::new().read(&out), Some(99));
            let text = String::from_utf8(out).unwrap();
            let content = text.rsplit("\":\"").next().unwrap();
            assert_eq!(content.find('"'), Some(128), "{text}");
        }
    }
}
