//! Identifiers: positive 64-bit snowflakes, decimal strings in JSON because JavaScript's numbers end at 2^53.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is no identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    #[error("expected a decimal number: {0}")]
    NotANumber(#[from] ParseIntError),
    #[error("expected a positive number, got {0}")]
    NotPositive(i64),
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.parse::<i64>()?)
            }
        }

        impl TryFrom<i64> for $name {
            type Error = IdError;

            fn try_from(id: i64) -> Result<Self, IdError> {
                if id > 0 { Ok(Self(id)) } else { Err(IdError::NotPositive(id)) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(|error| de::Error::custom(format_args!("{text:?} is no id: {error}")))
            }
        }
    };
}

id!(/// A conversation: channel, dm or group.
    ConversationId);
id!(/// A person.
    UserId);
id!(/// A message; an identifier only, never an order (`seq` is the order).
    MessageId);
id!(/// A workspace.
    WorkspaceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_decimal_string_in_json() {
        let id: ConversationId = serde_json::from_str("\"9007199254740993\"").unwrap();
        assert_eq!(id, ConversationId(9_007_199_254_740_993));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"9007199254740993\"");
    }

    #[test]
    fn what_is_no_positive_number_is_refused_by_name() {
        for text in ["\"\"", "\"0\"", "\"-5\"", "\"7x\"", "\"9223372036854775808\"", "7"] {
            assert!(serde_json::from_str::<UserId>(text).is_err(), "{text}");
        }
    }
}
