//! The stable error codes that STOMP, REST and gRPC share.

use std::{fmt, str::FromStr};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A stable error code; its text is a wire contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The code as it stands on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }
        }

        impl FromStr for Code {
            type Err = UnknownCode;

            fn from_str(text: &str) -> Result<Self, UnknownCode> {
                match text { $($text => Ok(Code::$variant),)* _ => Err(UnknownCode(text.to_owned())) }
            }
        }
    };
}

/// A code that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("unknown error code {0:?}")]
pub struct UnknownCode(pub String);

codes! {
    /// The STOMP destination is none of ours, or not one for this command.
    InvalidDestination = "invalid_destination",
    InvalidBody = "invalid_body",
    BodyTooLarge = "body_too_large",
    NotFound = "not_found",
    NotAMember = "not_a_member",
    Forbidden = "forbidden",
    /// A body or header names another person than the token.
    SpoofedSender = "spoofed_sender",
    Conflict = "conflict",
    RateLimited = "rate_limited",
    /// A dependency is away; the same request may succeed later.
    Unavailable = "unavailable",
    Unauthenticated = "unauthenticated",
    TokenExpired = "token_expired",
    TooManySubscriptions = "too_many_subscriptions",
    /// Or too much held back in them.
    TooManyTransactions = "too_many_transactions",
    TooManyUnacknowledged = "too_many_unacknowledged",
    TooManyConnections = "too_many_connections",
    ResumeTooLate = "resume_too_late",
    SubscriptionEnded = "subscription_ended",
    SlowConsumer = "slow_consumer",
    Draining = "draining",
    ProtocolError = "protocol_error",
    Internal = "internal",
}

impl Code {
    /// Whether the same request, sent again later, may succeed.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Code::RateLimited | Code::Unavailable | Code::Draining)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_back_from_its_text() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse::<Code>().unwrap(), *code);
        }
        assert!("no_such_code".parse::<Code>().is_err());
    }
}
