//! As much of RFC 6455 and STOMP as a client needs that shall cost little: frames are read where they lie, and
//! written into one buffer.

use std::io::Write as _;

use anyhow::{Result, bail, ensure};
use memchr::memmem;

/// Opcodes (RFC 6455 section 11.8).
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// In front of the digits of a stamp, inside a message's text.
const MARK: &[u8] = b"~T=";
/// Digits of a stamp: nanoseconds of the generator's clock.
const DIGITS: usize = 19;
/// The key of the handshake; the answer to it is not checked.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// An answer to the upgrade that is longer is none.
const MAX_HANDSHAKE: usize = 16 * 1024;

/// A whole WebSocket frame at the beginning of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    /// Not the last frame of its message, or not the first.
    pub is_fragment: bool,
    pub payload: &'a [u8],
    /// Bytes of the buffer that it takes.
    pub len: usize,
}

/// Reads the frame at the beginning; `None` while it is incomplete.
pub fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (head, size): (usize, usize) = match second & 127 {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        size => (2, usize::from(size)),
    };
    let len = head.checked_add(size)?;
    let payload = bytes.get(head..len)?;
    Some(Frame { opcode: first & 15, is_fragment: first & 128 == 0 || first & 15 == 0, payload, len })
}

/// Appends one masked frame; `fill` writes its payload.
pub fn put(out: &mut Vec<u8>, opcode: u8, mask: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    // The longest head of a client's short frames: two bytes, two of length, the mask. Moved up when it is shorter.
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    fill(out);
    let size = out.len() - start - 8;
    assert!(size <= usize::from(u16::MAX), "this generator writes frames of up to 64 KiB");
    let mask = mask.to_ne_bytes();
    for (at, byte) in out[start + 8..].iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
    out[start] = 128 | opcode;
    match u8::try_from(size) {
        Ok(short) if short < 126 => {
            out[start + 1] = 128 | short;
            out[start + 2..start + 6].copy_from_slice(&mask);
            out.drain(start + 6..start + 8);
        }
        _ => {
            out[start + 1] = 128 | 126;
            out[start + 2..start + 4].copy_from_slice(&u16::try_from(size).unwrap_or(u16::MAX).to_be_bytes());
            out[start + 4..start + 8].copy_from_slice(&mask);
        }
    }
}

/// Appends the request for the upgrade.
pub fn put_upgrade(out: &mut Vec<u8>, host: &str, path: &str, subprotocol: Option<&str>) {
    let mut put = |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("a Vec takes all");
    put(format_args!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"));
    put(format_args!("Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"));
    if let Some(subprotocol) = subprotocol {
        put(format_args!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
    }
    put(format_args!("\r\n"));
}

/// How long the answer to the upgrade is; `None` while it is incomplete.
///
/// # Errors
/// The gateway refused.
pub fn upgraded(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        ensure!(bytes.len() < MAX_HANDSHAKE, "an answer to the upgrade without an end");
        return Ok(None);
    };
    if !bytes.starts_with(b"HTTP/1.1 101 ") {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        bail!("the upgrade was refused: {}", String::from_utf8_lossy(line));
    }
    Ok(Some(end + 4))
}

/// Writes a stamp.
pub fn put_stamp(out: &mut Vec<u8>, ns: u64) {
    write!(out, "~T={ns:0DIGITS$}~").expect("a Vec takes all");
}

/// Finds the stamps of messages, which mostly stand where the one before stood.
#[derive(Debug)]
pub struct Stamps {
    finder: memmem::Finder<'static>,
    guess: usize,
}

impl Stamps {
    /// Bytes of a stamp.
    pub const LEN: usize = MARK.len() + DIGITS + 1;

    pub fn new() -> Self {
        Self { finder: memmem::Finder::new(MARK), guess: 0 }
    }

    /// The stamp of one STOMP frame; `None` when it bears none.
    pub fn read(&mut self, frame: &[u8]) -> Option<u64> {
        let at = self.guess;
        if frame.get(at..at + MARK.len()) != Some(MARK) {
            self.guess = self.finder.find(frame)?;
        }
        let digits = frame.get(self.guess + MARK.len()..)?.get(..DIGITS)?;
        Some(
            digits.iter().fold(0, |ns: u64, digit| ns.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(48)))),
        )
    }
}

/// The value of a header of a STOMP frame, still escaped.
pub fn header<'a>(frame: &'a [u8], name: &str) -> Option<&'a [u8]> {
    frame
        .split(|byte| *byte == b'\n')
        .skip(1)
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame as the other side would read it.
    fn unmask(bytes: &[u8]) -> Vec<u8> {
        let head = if bytes[1] & 127 == 126 { 4 } else { 2 };
        let mask = &bytes[head..head + 4];
        bytes[head + 4..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }

    #[test]
    fn a_written_frame_is_masked_and_says_its_length() {
        for size in [0, 125, 126, 5000] {
            let mut out = Vec::new();
            put(&mut out, TEXT, 0x1234_5678, |out| out.resize(out.len() + size, b'x'));
            assert_eq!((out[0], out[1] & 128), (129, 128));
            assert_eq!(unmask(&out), vec![b'x'; size]);
            let said =
                if size < 126 { usize::from(out[1] & 127) } else { usize::from(out[2]) * 256 + usize::from(out[3]) };
            assert_eq!(said, size);
        }
    }

    #[test]
    fn a_frame_is_read_once_it_is_whole() {
        let whole = [&[129, 126, 1, 44][..], &[b'y'; 300], &[129]].concat();
        for part in 0..304 {
            assert_eq!(frame(&whole[..part]), None);
        }
        let read = frame(&whole).unwrap();
        assert_eq!((read.opcode, read.is_fragment, read.len, read.payload.len()), (TEXT, false, 304, 300));
        assert!(frame(&[1, 0]).unwrap().is_fragment);
    }

    #[test]
    fn a_stamp_is_found_where_the_last_one_stood_and_elsewhere() {
        let mut stamps = Stamps::new();
        for text in ["", "a longer beginning", "", "x"] {
            let mut message = format!("MESSAGE\n\n{text}").into_bytes();
            put_stamp(&mut message, 1_234_567_890);
            assert_eq!(stamps.read(&message), Some(1_234_567_890));
        }
        assert_eq!(stamps.read(b"MESSAGE\n\nwithout"), None);
        assert_eq!(stamps.read(b"MESSAGE\n\n~T=1"), None);
    }

    #[test]
    fn headers_end_at_the_empty_line() {
        let frame = b"RECEIPT\nreceipt-id:7\n\nseq:9\0";
        assert_eq!(header(frame, "receipt-id"), Some(&b"7"[..]));
        assert_eq!(header(frame, "seq"), None);
    }

    #[test]
    fn a_refused_upgrade_is_told() {
        assert_eq!(upgraded(b"HTTP/1.1 101 Switching Protocols\r\n").unwrap(), None);
        assert_eq!(upgraded(b"HTTP/1.1 101 x\r\n\r\nmore").unwrap(), Some(18));
        let refused = upgraded(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert!(refused.to_string().contains("503"), "{refused}");
    }
}
