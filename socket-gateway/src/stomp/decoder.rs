//! Bytes to frames.
//!
//! The decoder takes each line as soon as it is whole and remembers how far it has looked for the end of what is not,
//! so that a frame that comes byte by byte is looked at once. Every limit is checked before the delimiter is there:
//! a peer can't make it hold more than the limits allow.

use std::str;

use bytes::{Buf as _, Bytes, BytesMut};

use super::{Frame, Headers, Verb, Version, escape::unescape};

/// What one frame may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A header line or the command line, bytes.
    pub line: usize,
    /// Header lines of a frame.
    pub headers: usize,
    /// All header lines of a frame together, bytes.
    pub head: usize,
    /// The body, bytes.
    pub body: usize,
}

/// Bytes that are no STOMP; the connection can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{malformed}")]
pub struct DecodeError {
    pub malformed: Malformed,
    /// The receipt that the frame at fault asks for, as far as its header lines are there.
    pub receipt: Option<String>,
}

/// What is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{0:?} is no STOMP command")]
    UnknownCommand(String),
    #[error("the header line {0:?} has no colon")]
    NoColon(String),
    #[error("the header line {0:?} has no name before its colon")]
    NoName(String),
    #[error("the header line {0:?} has an undefined escape sequence")]
    BadEscape(String),
    #[error("a header line is no UTF-8")]
    NotUtf8,
    #[error("content-length is {0:?}; expected a decimal number of bytes")]
    BadContentLength(String),
    #[error("the body of {0} bytes, by its content-length, is not followed by a NUL byte")]
    NoNul(usize),
    #[error("a line is longer than {0} bytes")]
    LineTooLong(usize),
    #[error("a frame has more than {0} headers")]
    TooManyHeaders(usize),
    #[error("the headers of a frame are longer than {0} bytes")]
    HeadTooLarge(usize),
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
}

#[derive(Debug)]
enum State {
    /// Between frames: line ends are heart-beats.
    Idle,
    Head {
        verb: Verb,
        headers: Headers,
        bytes: usize,
        /// Lines end with CRLF.
        crlf: bool,
    },
    Body {
        verb: Verb,
        headers: Headers,
        length: Option<usize>,
    },
}

/// Takes frames out of a buffer that the caller appends to. One for each connection.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    version: Version,
    state: State,
    /// Bytes at the start of the buffer that hold no delimiter.
    scanned: usize,
}

impl Decoder {
    /// Until [`Self::set_version`], frames are read as version 1.2 says.
    pub fn new(limits: Limits) -> Self {
        Self { limits, version: Version::V1_2, state: State::Idle, scanned: 0 }
    }

    /// The negotiated version: it says how the frames that follow are escaped.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// The next frame, or `None` when more bytes are needed. After an error the connection can't go on.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        self.next(buf).map_err(|malformed| DecodeError { malformed, receipt: self.receipt(buf) })
    }

    fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        loop {
            match &mut self.state {
                State::Idle => {
                    if !skip_line_ends(buf) {
                        return Ok(None);
                    }
                    let Some(line) = self.take_line(buf)? else { return Ok(None) };
                    // 1.2 knows CRLF. In 1.0 and 1.1 a carriage return belongs to the line, but some clients end all
                    // lines so: a command that ends with one tells them.
                    let crlf = line.last() == Some(&b'\r');
                    let line = strip(&line, crlf);
                    let verb = Verb::from_wire(line).ok_or_else(|| Malformed::UnknownCommand(excerpt(line)))?;
                    self.state = State::Head { verb, headers: Headers::default(), bytes: 0, crlf };
                }
                State::Head { crlf, .. } => {
                    let crlf = *crlf || self.version == Version::V1_2;
                    let Some(line) = self.take_line(buf)? else { return Ok(None) };
                    self.head_line(strip(&line, crlf))?;
                }
                State::Body { .. } => return self.take_body(buf),
            }
        }
    }

    /// The receipt header of the frame that is being read, be it among what was not looked at yet.
    fn receipt(&self, buf: &[u8]) -> Option<String> {
        if let State::Head { headers, .. } | State::Body { headers, .. } = &self.state
            && let Some(receipt) = headers.get("receipt")
        {
            return Some(receipt.to_owned());
        }
        if matches!(self.state, State::Body { .. }) {
            return None;
        }
        let whole = &buf[..buf.iter().rposition(|byte| *byte == b'\n')?];
        let lines = whole.split(|byte| *byte == b'\n').map(|line| strip(line, true));
        let line = lines.take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(b"receipt:"))?;
        unescape(str::from_utf8(line).ok()?, self.version)
    }

    /// A whole line without its LF.
    fn take_line(&mut self, buf: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        let max = self.limits.line;
        let Some(found) = buf[self.scanned..].iter().position(|byte| *byte == b'\n') else {
            self.scanned = buf.len();
            return if buf.len() > max + 1 { Err(Malformed::LineTooLong(max)) } else { Ok(None) };
        };
        let line = buf.split_to(self.scanned + found).freeze();
        buf.advance(1);
        self.scanned = 0;
        if strip(&line, true).len() > max { Err(Malformed::LineTooLong(max)) } else { Ok(Some(line)) }
    }

    fn head_line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let State::Head { verb, headers, bytes, .. } = &mut self.state else { return Ok(()) };
        let verb = *verb;
        if line.is_empty() {
            let length = match headers.get("content-length") {
                None => None,
                Some(text) => {
                    let length = content_length(text).ok_or_else(|| Malformed::BadContentLength(text.to_owned()))?;
                    if length > self.limits.body {
                        return Err(Malformed::BodyTooLarge(self.limits.body));
                    }
                    Some(length)
                }
            };
            let headers = std::mem::take(headers);
            self.state = State::Body { verb, headers, length };
            return Ok(());
        }
        *bytes += line.len() + 1;
        if *bytes > self.limits.head {
            return Err(Malformed::HeadTooLarge(self.limits.head));
        }
        if headers.len() == self.limits.headers {
            return Err(Malformed::TooManyHeaders(self.limits.headers));
        }
        let text = str::from_utf8(line).map_err(|_| Malformed::NotUtf8)?;
        let (name, value) = text.split_once(':').ok_or_else(|| Malformed::NoColon(excerpt(line)))?;
        let (name, value) = match (verb.is_escaped(), self.version) {
            (false, _) => (name.to_owned(), value.to_owned()),
            // 1.0 has no rule for spaces around the colon, and its clients write them.
            (true, Version::V1_0) => (name.trim().to_owned(), value.trim().to_owned()),
            (true, version) => match (unescape(name, version), unescape(value, version)) {
                (Some(name), Some(value)) => (name, value),
                _ => return Err(Malformed::BadEscape(excerpt(line))),
            },
        };
        if name.is_empty() {
            return Err(Malformed::NoName(excerpt(line)));
        }
        headers.0.push((name, value));
        Ok(())
    }

    fn take_body(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        let State::Body { length, .. } = &self.state else { return Ok(None) };
        let body = match *length {
            Some(length) => {
                if buf.len() <= length {
                    return Ok(None);
                }
                if buf[length] != 0 {
                    return Err(Malformed::NoNul(length));
                }
                buf.split_to(length).freeze()
            }
            None => {
                let max = self.limits.body;
                match buf[self.scanned..].iter().position(|byte| *byte == 0) {
                    Some(found) if self.scanned + found > max => return Err(Malformed::BodyTooLarge(max)),
                    Some(found) => buf.split_to(self.scanned + found).freeze(),
                    None if buf.len() > max => return Err(Malformed::BodyTooLarge(max)),
                    None => {
                        self.scanned = buf.len();
                        return Ok(None);
                    }
                }
            }
        };
        buf.advance(1);
        self.scanned = 0;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Body { verb, headers, .. } => Ok(Some(Frame { verb, headers, body })),
            State::Idle | State::Head { .. } => Ok(None),
        }
    }
}

/// Drops heart-beats before a frame; false when nothing else is there yet.
fn skip_line_ends(buf: &mut BytesMut) -> bool {
    loop {
        match (buf.first(), buf.get(1)) {
            (Some(b'\n'), _) => buf.advance(1),
            (Some(b'\r'), Some(b'\n')) => buf.advance(2),
            (None, _) | (Some(b'\r'), None) => return false,
            _ => return true,
        }
    }
}

/// A line without the carriage return before its end.
fn strip(line: &[u8], crlf: bool) -> &[u8] {
    if crlf { line.strip_suffix(b"\r").unwrap_or(line) } else { line }
}

/// Decimal digits and nothing else, but for spaces around them.
fn content_length(text: &str) -> Option<usize> {
    let digits = text.trim();
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The start of a line, for an error message.
fn excerpt(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned()
}

#[cfg(test)]
mod tests;
