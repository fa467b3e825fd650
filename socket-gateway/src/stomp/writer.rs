//! Frames that go out, as the text of one WebSocket message.

use super::{Verb, Version, escape::push_escaped};

/// A heart-beat.
pub const HEART_BEAT: &str = "\n";

/// Builds one frame: headers in the order they are given, then the body.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    version: Version,
    escaped: bool,
}

impl Writer {
    pub fn new(verb: Verb, version: Version) -> Self {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(verb.as_str().as_bytes());
        out.push(b'\n');
        Self { out, version, escaped: verb.is_escaped() }
    }

    /// Only headers, to be put in front of others that end a frame: see [`Self::into_head`].
    pub fn headers_only(version: Version) -> Self {
        Self { out: Vec::with_capacity(256), version, escaped: true }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if self.escaped {
            push_escaped(&mut self.out, name, self.version);
            self.out.push(b':');
            push_escaped(&mut self.out, value, self.version);
        } else {
            self.out.extend_from_slice(name.as_bytes());
            self.out.push(b':');
            self.out.extend_from_slice(value.as_bytes());
        }
        self.out.push(b'\n');
        self
    }

    #[must_use]
    pub fn header_if(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    #[must_use]
    pub fn number(self, name: &str, value: i64) -> Self {
        self.header(name, &value.to_string())
    }

    /// The frame, with a `content-length` when it has a body.
    pub fn body(mut self, body: &[u8]) -> Vec<u8> {
        if !body.is_empty() {
            self = self.number("content-length", body.len() as i64);
        }
        self.out.reserve(body.len() + 2);
        self.out.push(b'\n');
        self.out.extend_from_slice(body);
        self.out.push(0);
        self.out
    }

    /// The frame as text; `body` must be text too.
    pub fn text(self, body: &str) -> String {
        let frame = self.body(body.as_bytes());
        String::from_utf8(frame).expect("headers and body are text")
    }

    /// What was written so far: the start of a frame, or headers.
    pub fn into_head(self) -> Vec<u8> {
        self.out
    }
}
