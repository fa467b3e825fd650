//! Why a connection is ended, as values: what the ERROR says and the WebSocket's close code.

use std::borrow::Cow;

use proto::Code;

use crate::{
    stomp::{CommandError, DecodeError, Malformed, Version},
    websocket::Fault,
};

/// WebSocket close codes of the protocol.
pub mod close_code {
    pub const NORMAL: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    pub const UNAUTHENTICATED: u16 = 4001;
    pub const SLOW_CONSUMER: u16 = 4008;
    pub const TOO_MANY: u16 = 4029;
    pub const PROTOCOL: u16 = 4400;
}

/// An ERROR frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFrame {
    pub code: Code,
    pub message: Cow<'static, str>,
    /// The receipt that the frame at fault asked for.
    pub receipt: Option<String>,
    /// The versions spoken, where no common one was found.
    pub version: Option<&'static str>,
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Sent before the close; none where the end is orderly.
    pub error: Option<ErrorFrame>,
    pub close_code: u16,
    /// The close frame's reason, at most 123 bytes.
    pub reason: &'static str,
}

impl Disconnect {
    fn error(code: Code, message: impl Into<Cow<'static, str>>, close_code: u16) -> Self {
        let error = ErrorFrame { code, message: message.into(), receipt: None, version: None };
        Self { error: Some(error), close_code, reason: code.as_str() }
    }

    /// The client said DISCONNECT, or closed.
    pub const fn normal() -> Self {
        Self { error: None, close_code: close_code::NORMAL, reason: "" }
    }

    /// The client has closed with that code: it is said back.
    pub fn answering(code: Option<u16>) -> Self {
        Self { error: None, close_code: code.unwrap_or(close_code::NORMAL), reason: "" }
    }

    /// This gateway is going away; reconnect elsewhere.
    pub const fn going_away() -> Self {
        Self { error: None, close_code: close_code::GOING_AWAY, reason: "draining" }
    }

    pub fn unauthenticated(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self::error(code, message, close_code::UNAUTHENTICATED)
    }

    pub fn slow_consumer(limit: usize) -> Self {
        let message = format!("more than {limit} bytes wait to be written to you; reconnect and resume");
        Self::error(Code::SlowConsumer, message, close_code::SLOW_CONSUMER)
    }

    pub fn too_many_connections(limit: usize) -> Self {
        let message = format!("a user may have {limit} connections to this gateway");
        Self::error(Code::TooManyConnections, message, close_code::TOO_MANY)
    }

    /// The client broke the protocol.
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self::error(Code::ProtocolError, message, close_code::PROTOCOL)
    }

    /// A refusal that nobody listens to: an ERROR, and the end.
    pub fn refused(code: Code, message: Cow<'static, str>) -> Self {
        Self::error(code, message, close_code::PROTOCOL)
    }

    /// `agreed`: what the WebSocket's subprotocol says.
    pub fn no_common_version(offered: Option<&str>) -> Self {
        let (offered, versions) = (offered.unwrap_or_default(), Version::SUPPORTED);
        let message = format!("no common version in accept-version {offered:?}; spoken here are {versions}");
        let mut end = Self::protocol(message);
        if let Some(error) = &mut end.error {
            error.version = Some(versions);
        }
        end
    }

    #[must_use]
    pub fn receipt(mut self, receipt: Option<String>) -> Self {
        if let Some(error) = &mut self.error {
            error.receipt = receipt;
        }
        self
    }
}

impl From<DecodeError> for Disconnect {
    fn from(error: DecodeError) -> Self {
        let code = match error.malformed {
            Malformed::BodyTooLarge(_) => Code::BodyTooLarge,
            _ => Code::ProtocolError,
        };
        Self::error(code, error.to_string(), close_code::PROTOCOL).receipt(error.receipt)
    }
}

/// A breach of the protocol under STOMP has a close code of RFC 6455.
impl From<Fault> for Disconnect {
    fn from(fault: Fault) -> Self {
        Self::error(Code::ProtocolError, fault.message, fault.close_code)
    }
}

impl From<CommandError> for Disconnect {
    fn from(error: CommandError) -> Self {
        Self::protocol(error.message).receipt(error.receipt)
    }
}
