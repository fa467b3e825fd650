//! What a stack is made of: its processes by name, in the order in which they start, and what each needs.

use crate::layout::Layout;
use crate::overrides::{self, Override};
use crate::ports::Ports;
use crate::readiness::Readiness;
use crate::{engines, services};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use std::time::Duration;

/// What runs; in the order of starting. Stopping goes the other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Mysql,
    Redis,
    Kafka,
    Connect,
    Core,
    Worker,
    Gateway,
}

impl Kind {
    pub const LAST_WAVE: u8 = 2;

    /// Kinds of one wave don't need each other: they start and stop together.
    pub fn wave(self) -> u8 {
        match self {
            Self::Mysql | Self::Redis | Self::Kafka => 0,
            Self::Connect | Self::Core => 1,
            Self::Worker | Self::Gateway => 2,
        }
    }

    pub fn is_engine(self) -> bool {
        self <= Self::Connect
    }

    /// From its start until it is ready.
    pub fn start_limit(self) -> Duration {
        Duration::from_secs(if self.is_engine() { 120 } else { 60 })
    }

    /// From SIGTERM to SIGKILL. Services drain first: they close their clients spread over a window and finish
    /// what is in flight; Java engines hand over what they lead.
    pub fn stop_limit(self) -> Duration {
        Duration::from_secs(if self.is_engine() { 30 } else { 40 })
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Kafka => "kafka",
            Self::Connect => "connect",
            Self::Core => "core-services",
            Self::Worker => "fanout-worker",
            Self::Gateway => "socket-gateway",
        }
    }
}

/// `kafka`, or a service with the number of its copy: `socket-gateway-2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ProcessName {
    pub kind: Kind,
    /// From 1; engines have one.
    pub copy: u16,
}

impl std::fmt::Display for ProcessName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.kind.is_engine() {
            f.pad(self.kind.text())
        } else {
            f.pad(&format!("{}-{}", self.kind.text(), self.copy))
        }
    }
}

impl FromStr for ProcessName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        use Kind::{Connect, Core, Gateway, Kafka, Mysql, Redis, Worker};
        for kind in [Mysql, Redis, Kafka, Connect] {
            if text == kind.text() {
                return Ok(Self { kind, copy: 1 });
            }
        }
        for kind in [Core, Worker, Gateway] {
            let copy = text.strip_prefix(kind.text()).and_then(|rest| rest.strip_prefix('-'));
            if let Some(copy) = copy.and_then(|copy| copy.parse().ok()).filter(|copy| (1..=9).contains(copy)) {
                return Ok(Self { kind, copy });
            }
        }
        bail!(
            "no process is called `{text}`: expected mysql, redis, kafka, connect, core-services-N, \
             fanout-worker-N or socket-gateway-N"
        )
    }
}

impl From<ProcessName> for String {
    fn from(name: ProcessName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for ProcessName {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// The choices made at `up`, recorded so that `restart` and `status` know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub port_offset: u16,
    pub gateways: u16,
    pub workers: u16,
    pub cores: u16,
    pub release: bool,
    pub engines_only: bool,
    #[serde(default)]
    pub overrides: Vec<Override>,
    /// None: the ordinary services. Else those with bugs on purpose, and these are on.
    #[serde(default)]
    pub seeded_bugs: Vec<String>,
}

/// How one process is started.
#[derive(Debug)]
pub struct CommandLine {
    /// Program and arguments.
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub struct Stack {
    pub layout: Layout,
    pub settings: Settings,
    pub ports: Ports,
}

impl Stack {
    pub fn new(layout: Layout, settings: Settings) -> Result<Self> {
        let ports = Ports::with_offset(settings.port_offset)?;
        Ok(Self { layout, settings, ports })
    }

    /// Every process, in the order of starting.
    pub fn processes(&self) -> Vec<ProcessName> {
        let engines = [Kind::Mysql, Kind::Redis, Kind::Kafka, Kind::Connect];
        let mut names: Vec<_> = engines.map(|kind| ProcessName { kind, copy: 1 }).into();
        if !self.settings.engines_only {
            let Settings { cores, workers, gateways, .. } = self.settings;
            for (kind, copies) in [(Kind::Core, cores), (Kind::Worker, workers), (Kind::Gateway, gateways)] {
                names.extend((1..=copies).map(|copy| ProcessName { kind, copy }));
            }
        }
        names
    }

    /// Writes the process's configuration (and on first use makes its data folder), and says how to start it.
    pub fn prepare(&self, name: ProcessName) -> Result<CommandLine> {
        match name.kind {
            Kind::Mysql => engines::mysql::prepare(self),
            Kind::Redis => engines::redis::prepare(self),
            Kind::Kafka => engines::kafka::prepare(self),
            Kind::Connect => engines::connect::prepare(self),
            Kind::Core | Kind::Worker | Kind::Gateway => services::prepare(self, name),
        }
    }

    /// Every port of a process, the one to show first.
    pub fn ports_of(&self, name: ProcessName) -> Vec<u16> {
        let (ports, copy) = (self.ports, name.copy);
        match name.kind {
            Kind::Mysql => vec![ports.mysql()],
            Kind::Redis => vec![ports.redis()],
            Kind::Kafka => {
                let links = overrides::links_of_kafka(&self.settings.overrides);
                let links = links.map(|(_, index, _)| ports.kafka_link(index));
                [ports.kafka(), ports.kafka_controller()].into_iter().chain(links).collect()
            }
            Kind::Connect => vec![ports.connect()],
            Kind::Core => vec![ports.core(copy), ports.core_admin(copy)],
            Kind::Worker => vec![ports.worker(copy)],
            Kind::Gateway => vec![ports.gateway(copy), ports.gateway_admin(copy)],
        }
    }

    pub fn readiness_of(&self, name: ProcessName) -> Readiness {
        let (ports, copy) = (self.ports, name.copy);
        match name.kind {
            Kind::Mysql => Readiness::Mysql { port: ports.mysql() },
            Kind::Redis => Readiness::Redis { port: ports.redis() },
            Kind::Kafka => Readiness::Kafka { port: ports.kafka() },
            Kind::Connect => Readiness::http(ports.connect(), "/health"),
            Kind::Core => Readiness::http(ports.core_admin(copy), "/readyz"),
            Kind::Worker => Readiness::http(ports.worker(copy), "/readyz"),
            Kind::Gateway => Readiness::http(ports.gateway_admin(copy), "/readyz"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_written_and_others_are_refused() {
        for text in ["mysql", "redis", "kafka", "connect", "core-services-1", "fanout-worker-2", "socket-gateway-9"] {
            assert_eq!(text.parse::<ProcessName>().unwrap().to_string(), text);
        }
        for text in ["", "socket-gateway", "socket-gateway-0", "socket-gateway-10", "kafka-1", "gateway-1"] {
            assert!(text.parse::<ProcessName>().is_err(), "{text}");
        }
    }

    #[test]
    fn processes_come_in_the_order_of_their_waves() {
        let settings = Settings {
            port_offset: 0,
            gateways: 2,
            workers: 1,
            cores: 1,
            release: false,
            engines_only: false,
            overrides: Vec::new(),
            seeded_bugs: Vec::new(),
        };
        let layout = Layout::of_this_repository(crate::layout::StackName::Dev);
        let names = Stack::new(layout, settings).unwrap().processes();
        assert_eq!(names.len(), 8);
        assert!(names.is_sorted_by_key(|name| name.kind.wave()));
    }
}
