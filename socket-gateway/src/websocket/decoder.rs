//! A client's bytes to payload and control frames.

use bytes::{Bytes, BytesMut};

use super::{
    close_code,
    deflate::{Inflate, Inflated},
    frame::{MAX_CONTROL, Opcode},
    is_close_code,
    utf8::{NotUtf8, Utf8},
};

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Payload of one frame, bytes.
    pub frame: usize,
    /// Payload of one message, inflated, bytes.
    pub message: usize,
}

/// Why the connection can't go on, with the close code that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub close_code: u16,
    pub message: String,
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Ping(Bytes),
    Pong,
    /// The code, if one was given.
    Close(Option<u16>),
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A message is over.
    Message,
    Control(Control),
}

/// A frame whose payload is coming.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    left: u64,
    /// Turned so that it begins with the next byte of payload.
    mask: [u8; 4],
}

/// A data message that is coming.
#[derive(Debug)]
struct Message {
    /// Of text messages.
    utf8: Option<Utf8>,
    /// Of compressed ones.
    inflate: Option<Inflate>,
    bytes: usize,
}

/// One for each connection. Small: it holds no payload but that of a control frame.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    deflate: bool,
    header: [u8; 14],
    header_len: u8,
    frame: Option<Frame>,
    message: Option<Box<Message>>,
    control: Vec<u8>,
}

impl Decoder {
    /// With `deflate` messages may be compressed.
    pub fn new(limits: Limits, deflate: bool) -> Self {
        Self { limits, deflate, header: [0; 14], header_len: 0, frame: None, message: None, control: Vec::new() }
    }

    /// Takes bytes up to the end of a message or control frame, or all: says how many, and what has come. Payload of
    /// messages is appended to `out`. `input` is unmasked in place: what was taken must not be given again.
    pub fn decode(&mut self, input: &mut [u8], out: &mut BytesMut) -> Result<(usize, Option<Step>), Fault> {
        let mut used = 0;
        loop {
            let Some(mut frame) = self.frame else {
                let taken = self.take_header(&input[used..])?;
                used += taken;
                if self.frame.is_none() {
                    return Ok((used, None));
                }
                continue;
            };
            let here = (input.len() - used).min(usize::try_from(frame.left).unwrap_or(usize::MAX));
            if here == 0 && frame.left > 0 {
                return Ok((used, None));
            }
            let payload = &mut input[used..used + here];
            unmask(payload, frame.mask);
            used += here;
            frame.mask.rotate_left(here % 4);
            frame.left -= here as u64;
            let done = frame.left == 0;
            self.frame = (!done).then_some(frame);
            if frame.opcode.is_control() {
                self.control.extend_from_slice(payload);
                if done {
                    return Ok((used, Some(Step::Control(self.control(frame.opcode)?))));
                }
            } else if self.data(payload, done && frame.fin, out)? {
                return Ok((used, Some(Step::Message)));
            }
        }
    }

    /// Collects a header; sets `frame` when it is whole. Says how many bytes it took.
    fn take_header(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let mut taken = 0;
        while let Some(byte) = input.get(taken) {
            self.header[usize::from(self.header_len)] = *byte;
            self.header_len += 1;
            taken += 1;
            if self.header_len == 2 {
                self.check_first_bytes()?;
            }
            if self.header_len >= 2 && usize::from(self.header_len) == self.header_size() {
                self.begin_frame()?;
                break;
            }
        }
        Ok(taken)
    }

    fn header_size(&self) -> usize {
        match self.header[1] & 0x7f {
            126 => 8,
            127 => 14,
            _ => 6,
        }
    }

    /// What can be said before lengths and mask are there (RFC 6455, section 5.2).
    fn check_first_bytes(&self) -> Result<(), Fault> {
        let [first, second, ..] = self.header;
        let opcode = Opcode::from_wire(first & 0x0f)
            .ok_or_else(|| protocol(format!("the opcode {:#x} is not defined", first & 0x0f)))?;
        let (fin, compressed) = (first & 0x80 != 0, first & 0x40 != 0);
        let data_start = matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & 0x30 != 0 || compressed && !(self.deflate && data_start) {
            return Err(protocol("a reserved bit is set that no extension was agreed on for"));
        }
        if second & 0x80 == 0 {
            return Err(protocol("a client's frames must be masked"));
        }
        if opcode.is_control() && (!fin || second & 0x7f > MAX_CONTROL as u8) {
            return Err(protocol("a control frame must be in one piece of at most 125 bytes"));
        }
        match (opcode, &self.message) {
            (Opcode::Continuation, None) => Err(protocol("a continuation without a message to be continued")),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(protocol("a message begins within another")),
            _ => Ok(()),
        }
    }

    fn begin_frame(&mut self) -> Result<(), Fault> {
        let header = self.header;
        self.header_len = 0;
        let (len, mask_at) = match header[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([header[2], header[3]])), 4),
            127 => {
                let [_, _, len @ .., _, _, _, _] = header;
                (u64::from_be_bytes(len), 10)
            }
            len => (u64::from(len), 2),
        };
        let shortest = match header[1] & 0x7f {
            126 => len > 125,
            127 => len > 0xffff && len >> 63 == 0,
            _ => true,
        };
        if !shortest {
            return Err(protocol("a length is not written in its shortest form"));
        }
        let opcode = Opcode::from_wire(header[0] & 0x0f).ok_or_else(|| protocol("an opcode is not defined"))?;
        if len > self.limits.frame as u64 {
            return Err(too_big(format!("a frame is larger than {} bytes", self.limits.frame)));
        }
        if matches!(opcode, Opcode::Text | Opcode::Binary) {
            self.message = Some(Box::new(Message {
                utf8: (opcode == Opcode::Text).then(Utf8::default),
                inflate: (header[0] & 0x40 != 0).then(Inflate::new),
                bytes: 0,
            }));
        }
        if !opcode.is_control()
            && let Some(Message { inflate: None, bytes, .. }) = self.message.as_deref()
            && len > (self.limits.message - bytes) as u64
        {
            return Err(message_too_big(self.limits.message));
        }
        let mask = [header[mask_at], header[mask_at + 1], header[mask_at + 2], header[mask_at + 3]];
        self.frame = Some(Frame { opcode, fin: header[0] & 0x80 != 0, left: len, mask });
        Ok(())
    }

    /// Passes payload on; true when the message is over. What is wrong first in the message's bytes is what is said,
    /// however they came.
    fn data(&mut self, payload: &[u8], last: bool, out: &mut BytesMut) -> Result<bool, Fault> {
        let max = self.limits.message;
        let Some(message) = &mut self.message else { return Ok(false) };
        let start = out.len();
        let inflated = match &mut message.inflate {
            // Its frames' headers have said how large it is.
            None => {
                out.extend_from_slice(payload);
                Ok(())
            }
            Some(inflate) => {
                let room = max - message.bytes;
                inflate.push(payload, out, room).and_then(|()| match last {
                    true => inflate.finish(out, room - (out.len() - start)),
                    false => Ok(()),
                })
            }
        };
        message.bytes += out.len() - start;
        if let Some(utf8) = &mut message.utf8 {
            utf8.push(&out[start..]).map_err(|NotUtf8| not_utf8("a text message"))?;
        }
        inflated.map_err(|why| not_inflated(&why, max))?;
        if last {
            if let Some(utf8) = &mut message.utf8 {
                utf8.finish().map_err(|NotUtf8| not_utf8("a text message"))?;
            }
            self.message = None;
        }
        Ok(last)
    }

    fn control(&mut self, opcode: Opcode) -> Result<Control, Fault> {
        let payload = std::mem::take(&mut self.control);
        match opcode {
            Opcode::Ping => Ok(Control::Ping(payload.into())),
            Opcode::Close => match &payload[..] {
                [] => Ok(Control::Close(None)),
                [high, low, reason @ ..] => {
                    let code = u16::from_be_bytes([*high, *low]);
                    if !is_close_code(code) {
                        return Err(protocol(format!("the close code {code} must not be sent")));
                    }
                    std::str::from_utf8(reason).map_err(|_| not_utf8("the reason of a close frame"))?;
                    Ok(Control::Close(Some(code)))
                }
                [_] => Err(protocol("a close frame has a code of two bytes, or no payload")),
            },
            _ => Ok(Control::Pong),
        }
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

fn protocol(message: impl Into<String>) -> Fault {
    Fault { close_code: close_code::PROTOCOL_ERROR, message: message.into() }
}

fn too_big(message: String) -> Fault {
    Fault { close_code: close_code::TOO_BIG, message }
}

fn message_too_big(max: usize) -> Fault {
    too_big(format!("a message is larger than {max} bytes"))
}

fn not_utf8(what: &str) -> Fault {
    Fault { close_code: close_code::INVALID_PAYLOAD, message: format!("{what} is no UTF-8") }
}

fn not_inflated(why: &Inflated, max: usize) -> Fault {
    match why {
        Inflated::TooLarge => message_too_big(max),
        Inflated::Malformed => {
            Fault { close_code: close_code::INVALID_PAYLOAD, message: "a message can't be inflated".into() }
        }
    }
}

#[cfg(test)]
mod tests;
