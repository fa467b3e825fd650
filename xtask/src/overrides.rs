//! Keys of the services' configuration that `up --set` sets, beyond what every stack's files say.

use crate::stack::Kind;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// `<service>.<section>.<key>=<value>`, for all copies of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Override {
    pub kind: Kind,
    /// From the section on.
    path: Vec<String>,
    value: String,
}

impl Override {
    /// The environment variable that the services read.
    pub fn variable(&self) -> (String, String) {
        (format!("SWITCHBOARD__{}", self.path.join("__").to_uppercase()), self.value.clone())
    }
}

impl FromStr for Override {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let services = [Kind::Core, Kind::Worker, Kind::Gateway];
        if let Some((key, value)) = text.split_once('=') {
            let mut parts = key.split('.').map(str::to_owned);
            let service = parts.next().unwrap_or_default();
            let path: Vec<String> = parts.collect();
            let is_key = |part: &String| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if let Some(kind) = services.into_iter().find(|kind| kind.text() == service)
                && path.len() >= 2
                && path.iter().all(|part| !part.is_empty() && is_key(part))
            {
                return Ok(Self { kind, path, value: value.to_owned() });
            }
        }
        bail!(
            "`{text}` names no key: expected core-services, fanout-worker or socket-gateway, then section and key, \
             e.g. `socket-gateway.limits.connections=5000`"
        )
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}={}", self.kind.text(), self.path.join("."), self.value)
    }
}

impl From<Override> for String {
    fn from(one: Override) -> Self {
        one.to_string()
    }
}

impl TryFrom<String> for Override {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_becomes_the_variable_that_its_service_reads() {
        let one: Override = "socket-gateway.limits.connections_per_user=20000".parse().unwrap();
        assert_eq!(one.kind, Kind::Gateway);
        assert_eq!(one.variable(), ("SWITCHBOARD__LIMITS__CONNECTIONS_PER_USER".to_owned(), "20000".to_owned()));
        assert_eq!(one.to_string(), "socket-gateway.limits.connections_per_user=20000");
    }

    #[test]
    fn what_names_no_key_of_a_service_is_refused() {
        for text in
            ["", "hub.shards=1", "socket-gateway=1", "socket-gateway.hub=1", "mysql.a.b=1", "socket-gateway.hub.=1"]
        {
            assert!(text.parse::<Override>().is_err(), "{text}");
        }
    }
}
