//! The command line of the recovery figures.

use std::{fmt, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::ledger::Rule;
use crate::links::{Copies, Ports};

/// Most copies of one service, as for `cargo xtask up`.
const MAX_COPIES: i64 = 9;

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Three things are measured, one after the other, under --rate messages a second, on a stack of its own with the settings \
as shipped:
  1. Each --process is killed --kills times (SIGKILL; services in turn, copy by copy) and started again 0.2 s later, \
as a supervisor would.
  2. A gateway that holds --clients more clients is killed, three times.
  3. The Connect worker, in which Debezium runs, is stopped for --stop and started again.
--kills 0, --clients 0 and --stop 0s leave one out. Example: cargo xtask chaos recovery --kills 3 --process \
fanout-worker,redis --clients 0 --stop 0s

Who uses the stack: --rooms with --members clients each, spread over the gateways. Each message is due at a fixed time, \
in one room after the other, and a member of the room sends it, at once or as soon as it is connected. Members get their \
own messages too. A client whose connection is gone connects to another gateway at once, then every 50 to 400 ms, \
resumes with after-seq, and sends what had no answer again under the same client_message_id.

What is printed: a message is late when a member gets it more than --bound after it was due. Delivery is normal again \
with the last late delivery: everything that was due before it is with every member, and nothing that is due from then \
on is late, for a second at least and until 3 s after the process was ready again. Where nothing was late it is 0. The \
time is counted from the kill for services, and for engines from when the new process is started. Every member checks \
that it gets each seq once and in order; at the end everything that was sent must be with every member.")]
pub struct RecoveryOptions {
    /// What is killed, in this order
    #[arg(long = "process", value_enum, value_name = "NAME,…", value_delimiter = ',', default_values_t = Kind::ALL)]
    pub processes: Vec<Kind>,
    /// How often each of them is killed
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub kills: u32,
    /// Clients of the gateway that is killed with all of them; a multiple of 10, for they are in rooms of 10
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub clients: usize,
    /// How long Debezium is stopped
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub stop: Duration,
    /// Messages a second, over all rooms
    #[arg(long, value_name = "N", default_value_t = 200.0, value_parser = rate)]
    pub rate: f64,
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rooms: u16,
    /// Of each room
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub members: u16,
    /// What comes later than this after it was due is late
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub bound: Duration,
    /// Copies of socket-gateway
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=MAX_COPIES))]
    pub gateways: u16,
    /// Copies of fanout-worker
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=MAX_COPIES))]
    pub workers: u16,
    /// Copies of core-services
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=MAX_COPIES))]
    pub cores: u16,
    /// An optimised build
    #[arg(long)]
    pub release: bool,
    /// Appends the figures to this file, as one line of JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Added to every port
    #[arg(long, value_name = "N", default_value_t = 11_000)]
    pub port_offset: u16,
    /// Sets a key of a service's configuration, as `cargo xtask up --set`
    #[arg(long = "set", value_name = "SERVICE.SECTION.KEY=VALUE")]
    pub settings: Vec<String>,
    /// The stack's folder
    #[arg(long, hide = true)]
    pub folder: PathBuf,
    /// The tool that starts and stops processes
    #[arg(long, hide = true)]
    pub xtask: PathBuf,
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| (1.0..=10_000.0).contains(rate)).ok_or_else(|| "expected 1 to 10000".to_owned())
}

impl RecoveryOptions {
    pub fn copies(&self) -> Copies {
        Copies { gateways: self.gateways, workers: self.workers, cores: self.cores }
    }

    pub fn ports(&self) -> Ports {
        Ports { offset: self.port_offset }
    }

    pub fn rule(&self) -> Rule {
        Rule { bound: self.bound.as_micros() as u64, quiet: 1_000_000 }
    }
}

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    CoreServices,
    SocketGateway,
    FanoutWorker,
    Connect,
    Kafka,
    Redis,
    Mysql,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::CoreServices,
        Self::SocketGateway,
        Self::FanoutWorker,
        Self::Connect,
        Self::Kafka,
        Self::Redis,
        Self::Mysql,
    ];

    pub fn is_engine(self) -> bool {
        matches!(self, Self::Connect | Self::Kafka | Self::Redis | Self::Mysql)
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::CoreServices => "core-services",
            Self::SocketGateway => "socket-gateway",
            Self::FanoutWorker => "fanout-worker",
            Self::Connect => "connect",
            Self::Kafka => "kafka",
            Self::Redis => "redis",
            Self::Mysql => "mysql",
        }
    }

    /// The process whose turn it is the `turn`-th time, from 0.
    pub fn process(self, copies: Copies, turn: u32) -> String {
        let count = match self {
            Self::CoreServices => copies.cores,
            Self::SocketGateway => copies.gateways,
            Self::FanoutWorker => copies.workers,
            _ => return self.text().to_owned(),
        };
        format!("{}-{}", self.text(), turn % u32::from(count) + 1)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_service_take_turns_and_an_engine_is_itself() {
        let copies = Copies { gateways: 3, workers: 2, cores: 1 };
        let turns = |kind: Kind| (0..3).map(|turn| kind.process(copies, turn)).collect::<Vec<_>>();
        assert_eq!(turns(Kind::FanoutWorker), ["fanout-worker-1", "fanout-worker-2", "fanout-worker-1"]);
        assert_eq!(turns(Kind::Redis), ["redis"; 3]);
    }

    #[test]
    fn a_process_is_asked_for_by_the_name_that_it_has() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_str(kind.text(), false), Ok(kind));
        }
    }
}
