//! A client's bytes through the WebSocket decoder, and its payload through the STOMP decoder: the whole path.
//!
//! 1. The same bytes in any pieces give the same payload, steps and fault, and the same STOMP frames.
//! 2. They are what a plain reference makes of the whole ([`reference`]).
//! 3. No message is above the limit, and each call gets on.

mod build;
mod reference;

use bytes::BytesMut;
use socket_gateway::{
    stomp::{self, Frame},
    websocket::{Decoder, Limits, Step},
};

use self::reference::{End, Read};
use super::{pieces::cuts, stomp_decoder};

const WIDE: Limits = Limits { frame: 70_000, message: 100_000 };
const TIGHT: Limits = Limits { frame: 64, message: 100 };

/// `[flags, cut, bytes..]`; flags: deflate (bit 0), tight limits (1), bytes describe frames (2, see [`build`]), STOMP's
/// limits (3).
pub fn run(data: &[u8]) {
    let [flags, cut, bytes @ ..] = data else { return };
    let deflate = flags & 1 != 0;
    let limits = if flags & 2 == 0 { WIDE } else { TIGHT };
    let stream = if flags & 4 == 0 { bytes.to_vec() } else { build::frames(bytes, *cut) };
    let mut ways = cuts(&stream, *cut).into_iter().map(|pieces| decode(&pieces, limits, deflate));
    let whole = ways.next().unwrap_or_default();
    for cut in ways {
        whole.check_same(&cut);
    }
    whole.check(&reference::read(&stream, limits, deflate));
}

/// What came of bytes.
#[derive(Debug, Default)]
struct Decoded {
    steps: Vec<Step>,
    payload: Vec<u8>,
    /// Close code and text.
    fault: Option<(u16, String)>,
    frames: Vec<Frame>,
    /// Why the payload is no STOMP.
    error: Option<String>,
}

fn decode(pieces: &[&[u8]], limits: Limits, deflate: bool) -> Decoded {
    let (mut decoder, mut decoded) = (Decoder::new(limits, deflate), Decoded::default());
    let (mut stomp, mut buffer) = (stomp::Decoder::new(stomp_decoder::WIDE), BytesMut::new());
    let mut message_from = 0;
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        while !rest.is_empty() {
            let mut out = BytesMut::new();
            let result = decoder.decode(rest, &mut out);
            decoded.payload.extend_from_slice(&out);
            let message = decoded.payload.len() - message_from;
            assert!(message <= limits.message, "a message of {message} bytes");
            buffer.extend_from_slice(&out);
            decoded.take_frames(&mut stomp, &mut buffer);
            let (used, step) = match result {
                Ok(came) => came,
                Err(fault) => {
                    decoded.fault = Some((fault.close_code, fault.message));
                    return decoded;
                }
            };
            assert!(used > 0, "it must get on");
            assert!(step.is_some() || used == rest.len(), "it must take all until something has come");
            if step == Some(Step::Message) {
                message_from = decoded.payload.len();
            }
            decoded.steps.extend(step);
            rest = &mut rest[used..];
        }
    }
    decoded
}

impl Decoded {
    fn take_frames(&mut self, decoder: &mut stomp::Decoder, buffer: &mut BytesMut) {
        while self.error.is_none() {
            match decoder.decode(buffer) {
                Ok(Some(frame)) => self.frames.push(frame),
                Ok(None) => return,
                Err(error) => self.error = Some(error.to_string()),
            }
        }
    }

    /// That the same bytes, cut otherwise, give the same. How much of a message has come out when it turns out to be bad
    /// is no matter.
    fn check_same(&self, other: &Decoded) {
        assert_eq!(self.steps, other.steps);
        assert_eq!(self.fault, other.fault);
        if self.fault.is_none() {
            assert_eq!(self.payload.len(), other.payload.len());
            assert_eq!((self.frames.len(), &self.error), (other.frames.len(), &other.error));
        }
        assert!(self.payload.iter().zip(&other.payload).all(|(one, other)| one == other), "other payload");
        assert!(self.frames.iter().zip(&other.frames).all(|(one, other)| one == other), "other frames");
    }

    fn check(&self, expected: &Read) {
        assert_eq!(self.steps, expected.steps);
        assert!(self.payload.starts_with(&expected.payload), "other payload");
        match expected.end {
            End::Whole => {
                assert_eq!(self.fault, None, "of good frames");
                assert!(!expected.exact || self.payload == expected.payload, "more payload");
            }
            // What is wrong with a frame that has not come whole may be seen already, or not.
            End::Cut => {}
            End::Fault(code) => {
                let (came, message) = self.fault.as_ref().expect("a fault is found");
                assert_eq!(*came, code, "{message}");
            }
        }
    }
}
