//! What can be done to the stack: each kind has a name, and a seed decides when, for how long and to what.
//!
//! A plan is made whole before the run ([`plan()`]), so that a run that did less than it should is noticed. One fault
//! comes after the other; two that shall come at once are a kind of their own.

mod commits;
mod connector;
mod inject;
mod plan;
mod rebalance;

use std::{fmt, str::FromStr};

use anyhow::{Result, bail};

use crate::links::Route;

pub use connector::watch as watch_connector;
pub use inject::KEY_PREFIX;
pub use inject::{Effect, Injector};
pub use plan::{Planned, counts, plan};
pub use rebalance::{GROUP, TOPICS};

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Core,
    Gateway,
    Worker,
    Connect,
    Kafka,
    Redis,
    Mysql,
}

impl Role {
    pub const ALL: [Self; 7] =
        [Self::Core, Self::Gateway, Self::Worker, Self::Connect, Self::Kafka, Self::Redis, Self::Mysql];

    fn text(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Gateway => "gateway",
            Self::Worker => "worker",
            Self::Connect => "connect",
            Self::Kafka => "kafka",
            Self::Redis => "redis",
            Self::Mysql => "mysql",
        }
    }
}

/// What a link does instead of passing bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    Cut,
    Delay,
    HalfOpen,
    Drip,
}

impl Trouble {
    const ALL: [Self; 4] = [Self::Cut, Self::Delay, Self::HalfOpen, Self::Drip];

    fn text(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Delay => "delay",
            Self::HalfOpen => "half-open",
            Self::Drip => "drip",
        }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and started again.
    Kill(Role),
    /// SIGSTOP for longer than the process's lease or session lasts, then SIGCONT.
    Pause(Role),
    /// SIGTERM, and started again when it has ended.
    Term(Role),
    /// Both at once.
    KillBoth(Role, Role),
    /// FLUSHALL
    FlushRedis,
    Link(Trouble, Route),
    /// The connector's task is restarted through Connect.
    RestartTask,
    /// MySQL ends the connector's sessions.
    KillTaskSessions,
    /// MySQL lets the connector in no more, so that its task fails, until a watchdog starts it again.
    FailTask,
    /// A stranger joins the workers' consumer group and leaves it, again and again.
    RebalanceStorm,
    /// What a worker sends to Redis vanishes, and then the worker is killed, with all that it has in hand.
    KillCutOffWorker,
    /// A gateway is killed while a worker's link to Redis is slow, until it is forgotten.
    KillGatewaySlowWorker,
    /// Commits are in the binlog for a while before others see them, as with a semi-synchronous replica that is slow.
    StallCommits,
}

const PAIRS: [Fault; 3] = [
    Fault::KillBoth(Role::Redis, Role::Gateway),
    Fault::KillBoth(Role::Mysql, Role::Core),
    Fault::KillBoth(Role::Kafka, Role::Worker),
];
const CONNECTOR: [Fault; 3] = [Fault::RestartTask, Fault::KillTaskSessions, Fault::FailTask];
/// In no group but `all`.
const OTHERS: [Fault; 5] = [
    Fault::FlushRedis,
    Fault::RebalanceStorm,
    Fault::KillCutOffWorker,
    Fault::KillGatewaySlowWorker,
    Fault::StallCommits,
];

impl Fault {
    /// Every kind.
    pub fn all() -> Vec<Self> {
        let processes = Role::ALL.into_iter().flat_map(|role| [Self::Kill(role), Self::Pause(role), Self::Term(role)]);
        let links = Route::ALL.into_iter().flat_map(|route| Trouble::ALL.map(|trouble| Self::Link(trouble, route)));
        processes.chain(links).chain(CONNECTOR).chain(PAIRS).chain(OTHERS).collect()
    }

    /// Kinds by their name, or by the name of a group of them.
    pub fn named(text: &str) -> Result<Vec<Self>> {
        let group = |of: fn(&Self) -> bool| Self::all().into_iter().filter(of).collect();
        Ok(match text {
            "all" => Self::all(),
            "kill" => group(|fault| matches!(fault, Self::Kill(_))),
            "pause" => group(|fault| matches!(fault, Self::Pause(_))),
            "term" => group(|fault| matches!(fault, Self::Term(_))),
            "pairs" => PAIRS.to_vec(),
            "links" => group(|fault| matches!(fault, Self::Link(..))),
            "connector" => CONNECTOR.to_vec(),
            _ => vec![text.parse()?],
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(role) => write!(f, "kill-{}", role.text()),
            Self::Pause(role) => write!(f, "pause-{}", role.text()),
            Self::Term(role) => write!(f, "term-{}", role.text()),
            Self::KillBoth(one, other) => write!(f, "kill-{}+{}", one.text(), other.text()),
            Self::FlushRedis => f.write_str("flush-redis"),
            Self::Link(trouble, route) => write!(f, "{}-{route}", trouble.text()),
            Self::RestartTask => f.write_str("restart-task"),
            Self::KillTaskSessions => f.write_str("kill-task-sessions"),
            Self::FailTask => f.write_str("fail-task"),
            Self::RebalanceStorm => f.write_str("rebalance-storm"),
            Self::KillCutOffWorker => f.write_str("kill-cut-off-worker"),
            Self::KillGatewaySlowWorker => f.write_str("kill-gateway+slow-worker"),
            Self::StallCommits => f.write_str("stall-commits"),
        }
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::all();
        let Some(found) = known.iter().copied().find(|fault| fault.to_string() == text) else {
            bail!(
                "no fault is called `{text}`: expected all, kill, pause, term, pairs, links, connector, or of {}",
                known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            );
        };
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_that_is_read_back() {
        let all = Fault::all();
        assert_eq!(all.len(), 7 * 3 + 10 * 4 + 3 + 3 + 5);
        for fault in all {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
        }
    }

    #[test]
    fn groups_are_their_kinds_and_an_unknown_name_is_refused_with_those_that_are_known() {
        assert_eq!(Fault::named("kill").unwrap().len(), 7);
        assert_eq!(Fault::named("links").unwrap().len(), 40);
        assert_eq!(Fault::named("kill-redis+gateway").unwrap(), [PAIRS[0]]);
        let error = Fault::named("kill-everything").unwrap_err().to_string();
        assert!(error.contains("kill-everything") && error.contains("half-open-worker-kafka"), "{error}");
    }
}
