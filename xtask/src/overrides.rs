//! Keys of the services' configuration that `up --set` sets, beyond what every stack's files say.

use crate::stack::{Kind, ProcessName};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// `<service>.<section>.<key>=<value>` for all copies of the service, `<service>-<copy>.<section>.<key>=<value>` for
/// one. Chaos runs also set the [ports that engines are reached by](PORTS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Override {
    kind: Kind,
    /// `None`: all copies.
    copy: Option<u16>,
    /// From the section on.
    path: Vec<String>,
    value: String,
}

/// A port that an engine is told, or reached by.
pub type Port = (Kind, [&'static str; 2]);
/// Where the connector finds MySQL, and Connect Kafka.
pub const DATABASE_OF_CONNECT: Port = (Kind::Connect, ["database", "port"]);
pub const KAFKA_OF_CONNECT: Port = (Kind::Connect, ["kafka", "port"]);
/// Kafka listens once more for each that is set, and tells clients of that listener to come to this port.
pub const LINKS_OF_KAFKA: [Port; 3] =
    [(Kind::Kafka, ["link", "workers"]), (Kind::Kafka, ["link", "connect"]), (Kind::Kafka, ["link", "cores"])];
/// All that can be set of engines.
const PORTS: [Port; 5] =
    [DATABASE_OF_CONNECT, KAFKA_OF_CONNECT, LINKS_OF_KAFKA[0], LINKS_OF_KAFKA[1], LINKS_OF_KAFKA[2]];

impl Override {
    pub fn is_for(&self, name: ProcessName) -> bool {
        self.kind == name.kind && self.copy.is_none_or(|copy| copy == name.copy)
    }

    /// The environment variable that the services read.
    pub fn variable(&self) -> (String, String) {
        (format!("SWITCHBOARD__{}", self.path.join("__").to_uppercase()), self.value.clone())
    }
}

/// The port that was set, if one was.
pub fn port<'a>(overrides: &'a [Override], (kind, path): &Port) -> Option<&'a str> {
    let found = overrides.iter().rev().find(|one| one.kind == *kind && one.path == *path);
    found.map(|one| one.value.as_str())
}

/// Kafka's further listeners: what each is called, its place in their order, and the port that it tells its clients.
pub fn links_of_kafka(overrides: &[Override]) -> impl Iterator<Item = (String, usize, &str)> {
    let links = LINKS_OF_KAFKA.iter().enumerate();
    links.filter_map(|(index, link)| Some((link.1[1].to_uppercase(), index, port(overrides, link)?)))
}

impl FromStr for Override {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_key = |part: &String| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        if let Some((key, value)) = text.split_once('=') {
            let mut parts = key.split('.').map(str::to_owned);
            let process = parts.next().unwrap_or_default();
            let path: Vec<String> = parts.collect();
            if let Some((kind, copy)) = target(&process)
                && path.len() >= 2
                && path.iter().all(is_key)
            {
                let is_port = |known: &Port| kind == known.0 && path == known.1 && value.parse::<u16>().is_ok();
                if !kind.is_engine() || PORTS.iter().any(is_port) {
                    return Ok(Self { kind, copy, path, value: value.to_owned() });
                }
            }
        }
        bail!(
            "`{text}` names no key: expected core-services, fanout-worker or socket-gateway (or one copy, like \
             socket-gateway-2), then section and key, e.g. `socket-gateway.limits.connections=5000`; of engines only \
             the ports `connect.database.port`, `connect.kafka.port` and `kafka.link.workers`, `.connect` and `.cores` \
             can be set"
        )
    }
}

/// A kind alone, or a process by its name.
fn target(text: &str) -> Option<(Kind, Option<u16>)> {
    if let Some(kind) = [Kind::Core, Kind::Worker, Kind::Gateway].into_iter().find(|kind| kind.text() == text) {
        return Some((kind, None));
    }
    let ProcessName { kind, copy } = text.parse().ok()?;
    Some((kind, (!kind.is_engine()).then_some(copy)))
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.copy {
            Some(copy) => write!(f, "{}-{copy}", self.kind.text())?,
            None => f.write_str(self.kind.text())?,
        }
        write!(f, ".{}={}", self.path.join("."), self.value)
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
        assert!(one.is_for("socket-gateway-2".parse().unwrap()) && !one.is_for("core-services-2".parse().unwrap()));
        assert_eq!(one.variable(), ("SWITCHBOARD__LIMITS__CONNECTIONS_PER_USER".to_owned(), "20000".to_owned()));
        assert_eq!(one.to_string(), "socket-gateway.limits.connections_per_user=20000");
    }

    #[test]
    fn a_key_of_one_copy_is_for_that_copy_only() {
        let one: Override = "socket-gateway-2.redis.url=redis://127.0.0.1:1".parse().unwrap();
        assert!(one.is_for("socket-gateway-2".parse().unwrap()) && !one.is_for("socket-gateway-1".parse().unwrap()));
        assert_eq!(one.to_string(), "socket-gateway-2.redis.url=redis://127.0.0.1:1");
    }

    #[test]
    fn engines_have_ports_that_can_be_set() {
        let set: Vec<Override> =
            ["connect.database.port=7", "kafka.link.cores=8"].map(|text| text.parse().unwrap()).into();
        assert_eq!((port(&set, &DATABASE_OF_CONNECT), port(&set, &KAFKA_OF_CONNECT)), (Some("7"), None));
        assert_eq!(links_of_kafka(&set).collect::<Vec<_>>(), [("CORES".to_owned(), 2, "8")]);
    }

    #[test]
    fn what_names_no_key_of_a_service_is_refused() {
        for text in [
            "",
            "hub.shards=1",
            "socket-gateway=1",
            "socket-gateway.hub=1",
            "mysql.a.b=1",
            "socket-gateway.hub.=1",
            "socket-gateway-10.hub.shards=1",
            "kafka.link.workers=high",
            "kafka.heap.size=1",
        ] {
            assert!(text.parse::<Override>().is_err(), "{text}");
        }
    }
}
