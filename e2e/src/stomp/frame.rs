//! Frames and their bytes (STOMP 1.2, "STOMP Frames").

use std::fmt;

use bytes::Bytes;

/// One frame. Headers keep their order; of a repeated one the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub command: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("the header line {0:?} has no colon")]
    NoColon(String),
    #[error("{0:?} is no escape sequence")]
    BadEscape(String),
    #[error("the command or a header is no UTF-8")]
    NotUtf8,
    #[error("content-length {0:?} is no number")]
    BadLength(String),
    #[error("no NUL where content-length says that the body ends")]
    NoNul,
}

impl Frame {
    pub fn new(command: &str) -> Self {
        Self { command: command.to_owned(), headers: Vec::new(), body: Bytes::new() }
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    /// A header that holds a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.header(name)?.parse().ok()
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The frame's bytes. CONNECT's headers are not escaped, as the specification says.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.body.len());
        out.extend_from_slice(self.command.as_bytes());
        out.push(b'\n');
        let plain = matches!(self.command.as_str(), "CONNECT" | "CONNECTED");
        for (name, value) in &self.headers {
            for (text, end) in [(name, b':'), (value, b'\n')] {
                if plain {
                    out.extend_from_slice(text.as_bytes());
                } else {
                    escape(text, &mut out);
                }
                out.push(end);
            }
        }
        if !self.body.is_empty() && self.header("content-length").is_none() {
            out.extend_from_slice(format!("content-length:{}\n", self.body.len()).as_bytes());
        }
        out.push(b'\n');
        out.extend_from_slice(&self.body);
        out.push(0);
        out
    }
}

fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b':' => out.extend_from_slice(b"\\c"),
            _ => out.push(byte),
        }
    }
}

fn unescape(text: &str) -> Result<String, FrameError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        out.push(match rest.next() {
            Some('\\') => '\\',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('c') => ':',
            _ => return Err(FrameError::BadEscape(text.to_owned())),
        });
    }
    Ok(out)
}

/// Takes bytes as they come and gives whole frames. Line ends between frames are heart-beats and are passed over.
#[derive(Debug, Default)]
pub struct Decoder {
    held: Vec<u8>,
    plain: bool,
}

impl Decoder {
    /// For STOMP 1.0.
    pub fn without_escapes() -> Self {
        Self { plain: true, ..Self::default() }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next frame, `None` while it isn't whole.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let beats = self.held.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        self.held.drain(..beats);
        let Some((frame, used)) = parse(&self.held, self.plain)? else { return Ok(None) };
        self.held.drain(..used);
        Ok(Some(frame))
    }
}

fn parse(bytes: &[u8], plain: bool) -> Result<Option<(Frame, usize)>, FrameError> {
    let mut at = 0;
    let mut lines = Vec::new();
    loop {
        let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = bytes[at..at + end].strip_suffix(b"\r").unwrap_or(&bytes[at..at + end]);
        at += end + 1;
        if line.is_empty() {
            break;
        }
        lines.push(str::from_utf8(line).map_err(|_| FrameError::NotUtf8)?);
    }
    let mut frame = Frame::new(lines.first().copied().unwrap_or_default());
    let plain = plain || frame.command == "CONNECTED";
    for line in lines.into_iter().skip(1) {
        let (name, value) = line.split_once(':').ok_or_else(|| FrameError::NoColon(line.to_owned()))?;
        let header = if plain { (name.to_owned(), value.to_owned()) } else { (unescape(name)?, unescape(value)?) };
        frame.headers.push(header);
    }
    let rest = &bytes[at..];
    let length = match frame.header("content-length") {
        Some(text) => text.parse::<usize>().map_err(|_| FrameError::BadLength(text.to_owned()))?,
        None => match rest.iter().position(|byte| *byte == 0) {
            Some(length) => length,
            None => return Ok(None),
        },
    };
    let Some(end) = rest.get(length) else { return Ok(None) };
    if *end != 0 {
        return Err(FrameError::NoNul);
    }
    frame.body = Bytes::copy_from_slice(&rest[..length]);
    Ok(Some((frame, at + length + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Frame {
        Frame::new("SEND").with("destination", "/app/a:b\\c\nd").with("receipt", 1).with_body("{\"a\":\"\0\"}")
    }

    #[test]
    fn a_frame_is_read_back_as_it_was_written_however_the_bytes_are_split() {
        let bytes = sample().encode();
        for split in 0..bytes.len() {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes[..split]);
            assert_eq!(decoder.next_frame().unwrap(), None, "split at {split}");
            decoder.feed(&bytes[split..]);
            let frame = decoder.next_frame().unwrap().unwrap();
            assert_eq!(frame.header("destination"), sample().header("destination"));
            assert_eq!(frame.body, sample().body);
        }
    }

    #[test]
    fn several_frames_and_heart_beats_come_out_in_order() {
        let mut decoder = Decoder::default();
        decoder.feed(b"\n\r\nCONNECTED\r\nversion:1.2\r\nserver:a:b\r\n\r\n\0\n\nRECEIPT\nreceipt-id:a\\cb\n\n\0\n");
        let connected = decoder.next_frame().unwrap().unwrap();
        assert_eq!((connected.header("version"), connected.header("server")), (Some("1.2"), Some("a:b")));
        assert_eq!(decoder.next_frame().unwrap().unwrap().header("receipt-id"), Some("a:b"));
        assert_eq!(decoder.next_frame().unwrap(), None);
    }

    #[test]
    fn broken_bytes_are_named() {
        let broken = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.feed(bytes);
            decoder.next_frame().unwrap_err()
        };
        assert_eq!(broken(b"SEND\nnocolon\n\n\0"), FrameError::NoColon("nocolon".into()));
        assert_eq!(broken(b"SEND\na:b\\t\n\n\0"), FrameError::BadEscape("b\\t".into()));
        assert_eq!(broken(b"SEND\ncontent-length:1\n\nab\0"), FrameError::NoNul);
    }
}
