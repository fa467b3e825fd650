//! permessage-deflate (RFC 7692), always without context takeover.
//!
//! Without it each message is compressed by itself: one that goes to many is compressed once, and a connection keeps no
//! window of 32 KiB between messages.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame;

const NAME: &str = "permessage-deflate";
/// What every compressed message ends with, and what is left out on the wire (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// The largest window of DEFLATE, as an exponent.
const MAX_BITS: u8 = 15;
/// The smallest that zlib makes; a client that wants 8 goes without compression.
const MIN_BITS: u8 = 9;
/// How much is inflated at once, bytes.
const CHUNK: usize = 8 * 1024;

/// Compression that was agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deflate {
    /// The window that the client can inflate, as an exponent.
    bits: u8,
    /// The client has named a window.
    named: bool,
}

impl Deflate {
    /// Reads one `Sec-WebSocket-Extensions` header: the first offer in it that this server can do.
    pub(super) fn agree(header: &str) -> Option<Self> {
        header.split(',').find_map(Self::offer)
    }

    fn offer(offer: &str) -> Option<Self> {
        let mut parts = offer.split(';').map(str::trim);
        if parts.next() != Some(NAME) {
            return None;
        }
        let mut agreed = Self { bits: MAX_BITS, named: false };
        let mut seen = Vec::new();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            };
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            // Decimal, without a sign or leading zeros (RFC 7692, section 7.1.2.1).
            let bits = value.filter(|value| value.starts_with(|first| matches!(first, '1'..='9')));
            let bits = bits.and_then(|value| value.parse().ok().filter(|bits| (8..=MAX_BITS).contains(bits)));
            match (name, value, bits) {
                ("server_no_context_takeover" | "client_no_context_takeover", None, _)
                | ("client_max_window_bits", None, _)
                | ("client_max_window_bits", _, Some(_)) => {}
                ("server_max_window_bits", _, Some(bits)) if bits >= MIN_BITS => {
                    agreed = Self { bits, named: true };
                }
                _ => return None,
            }
        }
        Some(agreed)
    }

    /// The value of `Sec-WebSocket-Extensions` in the answer.
    pub(super) fn response(self) -> String {
        let takeover = "server_no_context_takeover; client_no_context_takeover";
        match self.named {
            true => format!("{NAME}; {takeover}; server_max_window_bits={}", self.bits),
            false => format!("{NAME}; {takeover}"),
        }
    }
}

/// One text message of these parts, compressed for a client that agreed to `deflate`.
pub fn compress(deflate: Deflate, parts: &[&str]) -> Bytes {
    thread_local! {
        static COMPRESS: RefCell<Option<(u8, Compress)>> = const { RefCell::new(None) };
    }
    COMPRESS.with_borrow_mut(|kept| {
        let compress = match kept {
            Some((bits, compress)) if *bits == deflate.bits => {
                compress.reset();
                compress
            }
            other => {
                let new = Compress::new_with_window_bits(Compression::fast(), false, deflate.bits);
                &mut other.insert((deflate.bits, new)).1
            }
        };
        let mut out = Vec::with_capacity(parts.iter().map(|part| part.len()).sum::<usize>() / 2 + 64);
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            run(compress, part.as_bytes(), &mut out, if last { FlushCompress::Sync } else { FlushCompress::None });
        }
        let len = out.len() - if out.ends_with(&TAIL) { TAIL.len() } else { 0 };
        frame::compressed_text(&out[..len])
    })
}

fn run(compress: &mut Compress, mut input: &[u8], out: &mut Vec<u8>, flush: FlushCompress) {
    loop {
        if out.capacity() - out.len() < 64 {
            out.reserve(out.len().max(256));
        }
        let before = compress.total_in();
        // It fails for nothing but wrong parameters, and then makes no progress: nothing to be done about either.
        if compress.compress_vec(input, out, flush).is_err() {
            return;
        }
        let used = usize::try_from(compress.total_in() - before).unwrap_or(input.len());
        input = &input[used.min(input.len())..];
        // All is out when there is room left.
        if input.is_empty() && out.len() < out.capacity() {
            return;
        }
    }
}

/// Why a message can't be inflated.
#[derive(Debug, PartialEq, Eq)]
pub enum Inflated {
    Malformed,
    /// It would be larger than allowed.
    TooLarge,
}

/// Inflates one message.
#[derive(Debug)]
pub struct Inflate(Box<Decompress>);

impl Inflate {
    pub fn new() -> Self {
        Self(Box::new(Decompress::new(false)))
    }

    /// Appends what comes out, also before an error; at most `room` bytes.
    pub fn push(&mut self, mut input: &[u8], out: &mut BytesMut, mut room: usize) -> Result<(), Inflated> {
        let mut chunk = [0; CHUNK];
        loop {
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress(input, &mut chunk, FlushDecompress::Sync);
            let used = usize::try_from(self.0.total_in() - before_in).map_err(|_| Inflated::Malformed)?;
            let made = usize::try_from(self.0.total_out() - before_out).map_err(|_| Inflated::Malformed)?;
            out.extend_from_slice(&chunk[..made.min(room)]);
            room = room.checked_sub(made).ok_or(Inflated::TooLarge)?;
            input = &input[used..];
            match status {
                Err(_) => return Err(Inflated::Malformed),
                // The client has ended its stream of blocks; what follows begins another.
                Ok(Status::StreamEnd) => self.0.reset(false),
                // Nothing more comes of what is there.
                Ok(Status::BufError) => return if input.is_empty() { Ok(()) } else { Err(Inflated::Malformed) },
                Ok(Status::Ok) => {}
            }
            if input.is_empty() && made < CHUNK {
                return Ok(());
            }
        }
    }

    /// The end of the message.
    pub fn finish(&mut self, out: &mut BytesMut, room: usize) -> Result<(), Inflated> {
        self.push(&TAIL, out, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflate(payload: &[u8], pieces: usize, room: usize) -> Result<Vec<u8>, Inflated> {
        let (mut inflate, mut out) = (Inflate::new(), BytesMut::new());
        for piece in payload.chunks(payload.len().div_ceil(pieces).max(1)) {
            let left = room - out.len();
            inflate.push(piece, &mut out, left)?;
        }
        let left = room - out.len();
        inflate.finish(&mut out, left)?;
        Ok(out.to_vec())
    }

    /// The payload of a frame shorter than 64 KiB.
    fn payload(frame: &Bytes) -> &[u8] {
        if frame[1] < 126 { &frame[2..] } else { &frame[4..] }
    }

    #[test]
    fn what_is_compressed_is_inflated_again_in_any_number_of_pieces() {
        let long = "Grüße ".repeat(5000);
        for text in ["", "x", "hello, hello, hello", &long] {
            for bits in [9, 12, 15] {
                let frame = compress(Deflate { bits, named: true }, &["head\n", text, "\0"]);
                assert_eq!(frame[0], 0xc1, "FIN, RSV1, text");
                for pieces in [1, 2, 7] {
                    let whole = inflate(payload(&frame), pieces, 1 << 20).unwrap();
                    assert_eq!(String::from_utf8(whole).unwrap(), format!("head\n{text}\0"));
                }
            }
        }
        let frame = compress(Deflate { bits: 15, named: false }, &[&long]);
        assert!(frame.len() < long.len() / 20, "{} bytes", frame.len());
    }

    #[test]
    fn a_message_that_would_inflate_without_end_is_cut_at_the_limit() {
        let zeros = "\0".repeat(4 << 20);
        let bomb = compress(Deflate { bits: 15, named: false }, &[&zeros]);
        assert!(bomb.len() < zeros.len() / 50, "{} bytes", bomb.len());
        assert_eq!(inflate(payload(&bomb), 1, 1 << 20), Err(Inflated::TooLarge));
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&hello, 1, 100).unwrap(), b"Hello");
        // Section 7.2.3.3: a block without compression; 7.2.3.4: a final block; 7.2.3.5: two blocks.
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(inflate(&stored, 1, 100).unwrap(), b"Hello");
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(inflate(&last, 1, 100).unwrap(), b"Hello");
        let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&two, 2, 100).unwrap(), b"Hello");
        assert_eq!(inflate(b"\xff\xff\xff", 1, 100), Err(Inflated::Malformed));
    }

    #[test]
    fn offers_are_answered_as_the_rfc_says() {
        let answer = |header| Deflate::agree(header).map(Deflate::response);
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(answer("permessage-deflate").as_deref(), Some(plain));
        assert_eq!(answer("permessage-deflate; client_max_window_bits").as_deref(), Some(plain));
        let ten = answer("permessage-deflate; server_max_window_bits=10");
        assert_eq!(ten, Some(format!("{plain}; server_max_window_bits=10")));
        // The first cannot be done, the second can.
        assert!(answer("permessage-deflate; server_max_window_bits=8, permessage-deflate").is_some());
        for bad in [
            "x",
            "permessage-deflate; x",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
        ] {
            assert_eq!(answer(bad), None, "{bad}");
        }
    }
}
