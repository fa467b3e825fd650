//! What RFC 6455 and RFC 7692 say of a client's bytes that are all there, in the plainest way.

use flate2::{Decompress, FlushDecompress, Status};
use socket_gateway::websocket::{Control, Limits, Step};

/// How the bytes end.
#[derive(Debug, PartialEq)]
pub enum End {
    Whole,
    /// Within a frame.
    Cut,
    /// With a frame that must not be: the close code.
    Fault(u16),
}

#[derive(Debug)]
pub struct Read {
    pub steps: Vec<Step>,
    /// Of the messages and fragments before the end.
    pub payload: Vec<u8>,
    /// No compressed message is open, of which more may have come out.
    pub exact: bool,
    pub end: End,
}

/// A message of which fragments have come.
struct Message {
    text: bool,
    compressed: bool,
    raw: Vec<u8>,
}

pub fn read(stream: &[u8], limits: Limits, deflate: bool) -> Read {
    let mut read = Read { steps: Vec::new(), payload: Vec::new(), exact: true, end: End::Whole };
    let (mut rest, mut message) = (stream, None);
    while !rest.is_empty() {
        match frame(rest, limits, deflate, message.is_some()) {
            Err(end) => {
                read.end = end;
                return read;
            }
            Ok((first, payload, used)) => {
                rest = &rest[used..];
                if let Err(code) = read.take(first, payload, &mut message, limits) {
                    read.end = End::Fault(code);
                    return read;
                }
            }
        }
    }
    read
}

/// The first byte, the payload, and the length of the frame that `bytes` begin with.
fn frame(bytes: &[u8], limits: Limits, deflate: bool, continued: bool) -> Result<(u8, Vec<u8>, usize), End> {
    let [first, second, ..] = *bytes else { return Err(End::Cut) };
    let (opcode, fin, short) = (first & 0x0f, first & 0x80 != 0, second & 0x7f);
    let allowed = match opcode {
        0 => continued && first & 0x70 == 0,
        1 | 2 => !continued && first & if deflate { 0x30 } else { 0x70 } == 0,
        8..=10 => fin && first & 0x70 == 0 && short <= 125,
        _ => false,
    };
    if !allowed || second & 0x80 == 0 {
        return Err(End::Fault(1002));
    }
    let at = match short {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let Some(mask) = bytes.get(at..at + 4) else { return Err(End::Cut) };
    let len = match short {
        126 | 127 => bytes[2..at].iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        short => short.into(),
    };
    let least = [0, 126, 65_536][usize::from(short.saturating_sub(125))];
    if len < least || len >= 1 << 63 {
        return Err(End::Fault(1002));
    }
    if len > limits.frame as u64 {
        return Err(End::Fault(1009));
    }
    let Some(payload) = bytes.get(at + 4..at + 4 + len as usize) else { return Err(End::Cut) };
    let payload: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Ok((first, payload, at + 4 + len as usize))
}

impl Read {
    fn take(&mut self, first: u8, payload: Vec<u8>, open: &mut Option<Message>, limits: Limits) -> Result<(), u16> {
        let (opcode, last) = (first & 0x0f, first & 0x80 != 0);
        if opcode >= 8 {
            self.steps.push(Step::Control(control(opcode, payload)?));
            return Ok(());
        }
        let compressed = first & 0x40 != 0;
        let message = open.get_or_insert(Message { text: opcode == 1, compressed, raw: Vec::new() });
        message.raw.extend_from_slice(&payload);
        let whole = message.check(last, limits.message)?;
        match (message.compressed, last) {
            (false, _) => self.payload.extend_from_slice(&payload),
            (true, true) => self.payload.extend_from_slice(&whole),
            // How much comes out before the rest is there is left to the decoder.
            (true, false) => {}
        }
        if last {
            *open = None;
            self.steps.push(Step::Message);
        }
        self.exact = open.as_ref().is_none_or(|message| !message.compressed);
        Ok(())
    }
}

impl Message {
    /// What it says, as far as it is there; the first thing that is wrong counts.
    fn check(&self, last: bool, max: usize) -> Result<Vec<u8>, u16> {
        let (mut whole, malformed) = match self.compressed {
            false if self.raw.len() > max => return Err(1009),
            false => (self.raw.clone(), false),
            true => inflate(&self.raw, last, max),
        };
        let too_big = whole.len() > max;
        whole.truncate(max);
        let cut = !last || too_big || malformed;
        match std::str::from_utf8(&whole) {
            Err(error) if self.text && (!cut || error.error_len().is_some()) => Err(1007),
            _ if too_big => Err(1009),
            _ if malformed => Err(1007),
            _ => Ok(whole),
        }
    }
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Control, u16> {
    Ok(match (opcode, &payload[..]) {
        (9, _) => Control::Ping(payload.into()),
        (10, _) => Control::Pong,
        (_, []) => Control::Close(None),
        (_, [_]) => return Err(1002),
        (_, [high, low, reason @ ..]) => match u16::from_be_bytes([*high, *low]) {
            0..=999 | 1004..=1006 | 1015..=2999 | 5000.. => return Err(1002),
            _ if std::str::from_utf8(reason).is_err() => return Err(1007),
            code => Control::Close(Some(code)),
        },
    })
}

/// At least `max` + 1 bytes, or all, of any number of DEFLATE streams one after the other (RFC 7692, section 7.2.3.5);
/// and whether something in them is wrong.
fn inflate(raw: &[u8], last: bool, max: usize) -> (Vec<u8>, bool) {
    let tail: &[u8] = if last { &[0, 0, 0xff, 0xff] } else { &[] };
    let input = [raw, tail].concat();
    let (mut out, mut rest) = (Vec::with_capacity(4096), &input[..]);
    let mut stream = Decompress::new(false);
    loop {
        if out.len() == out.capacity() {
            out.reserve(out.len());
        }
        let before = stream.total_in();
        let result = stream.decompress_vec(rest, &mut out, FlushDecompress::Sync);
        rest = &rest[(stream.total_in() - before) as usize..];
        match result {
            Err(_) => return (out, true),
            Ok(_) if out.len() > max => return (out, false),
            Ok(Status::StreamEnd) if !rest.is_empty() => stream = Decompress::new(false),
            Ok(_) if out.len() == out.capacity() => {}
            Ok(_) => return (out, false),
        }
    }
}
