//! A frame as it stands on the wire, already unescaped.

use bytes::Bytes;

macro_rules! verbs {
    ($($variant:ident = $text:literal,)*) => {
        /// The command of a frame, a client's or a server's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Verb { $($variant,)* }

        impl Verb {
            pub const ALL: &'static [Verb] = &[$(Verb::$variant),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Verb::$variant => $text,)* }
            }

            pub(super) fn from_wire(text: &[u8]) -> Option<Self> {
                match text { $(t if t == $text.as_bytes() => Some(Verb::$variant),)* _ => None }
            }
        }
    };
}

verbs! {
    Connect = "CONNECT",
    Stomp = "STOMP",
    Send = "SEND",
    Subscribe = "SUBSCRIBE",
    Unsubscribe = "UNSUBSCRIBE",
    Ack = "ACK",
    Nack = "NACK",
    Begin = "BEGIN",
    Commit = "COMMIT",
    Abort = "ABORT",
    Disconnect = "DISCONNECT",
    Connected = "CONNECTED",
    Message = "MESSAGE",
    Receipt = "RECEIPT",
    Error = "ERROR",
}

impl Verb {
    /// CONNECT and CONNECTED are never escaped, so that STOMP 1.0 peers understand them
    /// (STOMP 1.2, "Value encoding").
    pub(super) const fn is_escaped(self) -> bool {
        !matches!(self, Verb::Connect | Verb::Connected)
    }
}

/// Headers in their order on the wire; of repeated ones the first counts (STOMP 1.2, "Repeated header entries").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub(super) Vec<(String, String)>);

impl Headers {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Takes the value out, without copying it.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.iter_mut().find(|(n, _)| n == name).map(|(_, value)| std::mem::take(value))
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub verb: Verb,
    pub headers: Headers,
    pub body: Bytes,
}
