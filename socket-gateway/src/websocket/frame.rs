//! Frames that this server sends: never masked, never fragmented (RFC 6455, section 5.2).

use bytes::Bytes;

/// The meaning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    pub(super) fn from_wire(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    pub(super) fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

/// A control frame's payload, at most (RFC 6455, section 5.5).
pub const MAX_CONTROL: usize = 125;

const FIN: u8 = 0x80;
/// Set on the first frame of a compressed message (RFC 7692, section 7.2.3.1).
const RSV1: u8 = 0x40;

/// One text message of these parts.
pub fn text(parts: &[&str]) -> Bytes {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut out = with_header(FIN | Opcode::Text as u8, len);
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    out.into()
}

/// One text message that was compressed.
pub fn compressed_text(payload: &[u8]) -> Bytes {
    let mut out = with_header(FIN | RSV1 | Opcode::Text as u8, payload.len());
    out.extend_from_slice(payload);
    out.into()
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Bytes {
    control(Opcode::Pong, &[payload])
}

/// A close frame; the reason is cut where it is too long.
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL - 2)];
    control(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()])
}

/// The answer to a close frame without a code.
pub fn empty_close() -> Bytes {
    control(Opcode::Close, &[])
}

fn control(opcode: Opcode, parts: &[&[u8]]) -> Bytes {
    let mut out = with_header(FIN | opcode as u8, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.into()
}

/// The header, with room for exactly the payload: what is shared must not hold unused memory.
#[expect(clippy::cast_possible_truncation, reason = "each arm has checked the range")]
fn with_header(first: u8, len: usize) -> Vec<u8> {
    let mut out;
    match len {
        0..=125 => {
            out = Vec::with_capacity(2 + len);
            out.extend_from_slice(&[first, len as u8]);
        }
        126..=0xffff => {
            out = Vec::with_capacity(4 + len);
            out.extend_from_slice(&[first, 126]);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out = Vec::with_capacity(10 + len);
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (0xffff, 4), (0x1_0000, 10)] {
            let text = "x".repeat(len);
            assert_eq!(super::text(&[&text]).len(), header + len);
        }
        assert_eq!(&text(&["a", "bc"])[..], b"\x81\x03abc");
        assert_eq!(&pong(b"hi")[..], b"\x8a\x02hi");
        assert_eq!(&close(1000, "bye")[..], b"\x88\x05\x03\xe8bye");
        assert_eq!(close(1000, &"ä".repeat(100)).len(), 2 + 2 + 122);
    }
}
