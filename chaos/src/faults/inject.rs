//! Does one fault, heals it, and says whether it took effect.

mod combined;

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::bench::crowd::connect;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::{Fault, Planned, Role, Trouble, commits, connector, rebalance};
use crate::{
    links::{Links, Route},
    proxy::{Lost, Mode},
    stack::{Running, Stack},
};

/// From SIGKILL to the end of a process.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// From SIGTERM to the end of a process: a service's `shutdown.grace`, and some.
const TERM_LIMIT: Duration = Duration::from_secs(40);
/// What vanishes on a half-open connection.
const LOST: [Lost; 3] = [Lost::Requests, Lost::Answers, Lost::Both];
/// The prefix of all keys, as `cargo xtask` sets it.
pub const KEY_PREFIX: &str = "sb:";

/// What a fault turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub took_effect: bool,
    pub detail: String,
}

/// Processes that are gone, since then.
#[derive(Debug)]
struct Killed {
    processes: Vec<(String, Running)>,
    at: Instant,
}

#[derive(Debug)]
pub struct Injector<'a> {
    pub stack: &'a Stack,
    pub links: &'a Links,
}

impl Injector<'_> {
    /// What it will be done to.
    pub fn target(&self, planned: &Planned) -> String {
        match planned.fault {
            Fault::Kill(role) | Fault::Pause(role) | Fault::Term(role) => self.process(role, planned.pick),
            Fault::KillBoth(one, other) => {
                format!("{} and {}", self.process(one, planned.pick), self.process(other, planned.pick))
            }
            Fault::FlushRedis => "redis".to_owned(),
            Fault::Link(_, route) => self.links.choose(route, planned.pick).name,
            Fault::RestartTask | Fault::KillTaskSessions | Fault::FailTask => connector::NAME.to_owned(),
            Fault::RebalanceStorm => rebalance::GROUP.to_owned(),
            Fault::KillCutOffWorker => self.process(Role::Worker, planned.pick),
            Fault::KillGatewaySlowWorker => {
                format!("{}, slow {}", self.process(Role::Gateway, planned.pick), self.slow_worker(planned.pick))
            }
            Fault::StallCommits => "mysql".to_owned(),
        }
    }

    /// From the beginning of the fault until it is healed: what was killed is ready again, links are whole.
    ///
    /// # Errors
    /// The stack could not be made whole again, or a tool failed. That is no verdict on the services.
    pub async fn inject(&self, planned: &Planned) -> Result<Effect> {
        let (length, pick) = (planned.length, planned.pick);
        match planned.fault {
            Fault::Kill(role) => self.kill(&[self.process(role, pick)], length).await,
            Fault::KillBoth(one, other) => {
                self.kill(&[self.process(one, pick), self.process(other, pick)], length).await
            }
            Fault::Pause(role) => self.pause(&self.process(role, pick), role, length).await,
            Fault::Term(role) => self.term(&self.process(role, pick), length).await,
            Fault::FlushRedis => self.flush().await,
            Fault::Link(trouble, route) => self.link(trouble, route, planned).await,
            Fault::RestartTask => connector::restart(self.stack).await,
            Fault::KillTaskSessions => connector::kill_sessions(self.stack).await,
            Fault::FailTask => connector::fail(self.stack, length).await,
            Fault::RebalanceStorm => rebalance::storm(&self.stack.endpoints()?.kafka, length, pick).await,
            Fault::KillCutOffWorker => self.kill_cut_off(&self.process(Role::Worker, pick), length).await,
            Fault::KillGatewaySlowWorker => self.kill_beside_slow_worker(pick).await,
            Fault::StallCommits => commits::stall(self.stack, length).await,
        }
    }

    fn process(&self, role: Role, pick: u64) -> String {
        let copies = self.stack.copies;
        let copy = |count: u16| pick % u64::from(count) + 1;
        match role {
            Role::Core => format!("core-services-{}", copy(copies.cores)),
            Role::Gateway => format!("socket-gateway-{}", copy(copies.gateways)),
            Role::Worker => format!("fanout-worker-{}", copy(copies.workers)),
            Role::Connect => "connect".to_owned(),
            Role::Kafka => "kafka".to_owned(),
            Role::Redis => "redis".to_owned(),
            Role::Mysql => "mysql".to_owned(),
        }
    }

    async fn kill(&self, names: &[String], length: Duration) -> Result<Effect> {
        let killed = self.end(names).await?;
        sleep(length).await;
        self.start_again(&killed).await
    }

    /// SIGKILL.
    async fn end(&self, names: &[String]) -> Result<Killed> {
        let running = |name: &String| Ok((name.clone(), self.stack.running(name)?));
        let processes = names.iter().map(running).collect::<Result<Vec<_>>>()?;
        let at = Instant::now();
        for (_, process) in &processes {
            process.signal(Signal::SIGKILL)?;
        }
        for (_, process) in &processes {
            process.ended(KILL_LIMIT).await?;
        }
        Ok(Killed { processes, at })
    }

    async fn start_again(&self, killed: &Killed) -> Result<Effect> {
        let mut took_effect = true;
        for (name, before) in &killed.processes {
            took_effect &= self.replaced(name, *before).await?;
        }
        Ok(Effect { took_effect, detail: format!("killed, away for {}", seconds(killed.at.elapsed())) })
    }

    async fn term(&self, name: &str, length: Duration) -> Result<Effect> {
        let before = self.stack.running(name)?;
        let began = Instant::now();
        before.signal(Signal::SIGTERM)?;
        let in_time = before.ended(TERM_LIMIT).await.is_ok();
        let stopping = began.elapsed();
        sleep(length).await;
        // One that did not end in time is ended by the restart.
        let took_effect = self.replaced(name, before).await? && in_time;
        let how = if in_time { "ended" } else { "did not end" };
        Ok(Effect { took_effect, detail: format!("{how} within {} of SIGTERM", seconds(stopping)) })
    }

    /// Starts it again, and says whether another process is there now.
    async fn replaced(&self, name: &str, before: Running) -> Result<bool> {
        self.stack.restart(name).await?;
        Ok(before.has_ended() && self.stack.running(name)? != before)
    }

    async fn pause(&self, name: &str, role: Role, length: Duration) -> Result<Effect> {
        let process = self.stack.running(name)?;
        let began = Instant::now();
        process.stop().await?;
        sleep(length).await;
        let stopped = process.is_stopped();
        let lease = match role {
            Role::Gateway => Some(self.has_lease(name).await),
            Role::Core => Some(self.all_cores_have_leases().await),
            _ => None,
        };
        process.signal(Signal::SIGCONT)?;
        let detail = format!("stopped for {}", seconds(began.elapsed()));
        Ok(match lease.transpose()? {
            None => Effect { took_effect: stopped, detail },
            Some(true) => Effect { took_effect: false, detail: format!("{detail}, and kept its lease") },
            Some(false) => Effect { took_effect: stopped, detail: format!("{detail}, and lost its lease") },
        })
    }

    /// Whether any incarnation of that gateway has a lease.
    async fn has_lease(&self, gateway: &str) -> Result<bool> {
        let mut redis = self.redis().await?;
        let gateways: Vec<String> =
            redis::cmd("SMEMBERS").arg(format!("{KEY_PREFIX}gateways")).query_async(&mut redis).await?;
        for member in gateways.iter().filter(|member| member.split(':').next() == Some(gateway)) {
            let key = format!("{KEY_PREFIX}gw:{{{member}}}:lease");
            if redis::cmd("EXISTS").arg(key).query_async::<i64>(&mut redis).await? == 1 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether none has lost its lease of a node id. Leases of earlier lives are over by the end of a pause.
    async fn all_cores_have_leases(&self) -> Result<bool> {
        let mut mysql = connect(&self.stack.endpoints()?).await?;
        let living = "SELECT COUNT(*) FROM node_leases WHERE until_ms > 1000 * UNIX_TIMESTAMP(NOW(3))";
        let living: i64 =
            sqlx::query_scalar(living).fetch_one(&mut mysql).await.context("reading the cores' leases")?;
        Ok(living >= i64::from(self.stack.copies.cores))
    }

    async fn redis(&self) -> Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.stack.endpoints()?.redis).context("the address of Redis")?;
        client.get_multiplexed_async_connection().await.context("connecting to Redis")
    }

    async fn flush(&self) -> Result<Effect> {
        let mut redis = self.redis().await?;
        let keys: i64 = redis::cmd("DBSIZE").query_async(&mut redis).await?;
        let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await?;
        Ok(Effect { took_effect: keys > 0, detail: format!("{keys} keys were there") })
    }

    async fn link(&self, trouble: Trouble, route: Route, planned: &Planned) -> Result<Effect> {
        let links = self.links.choose(route, planned.pick);
        let mode = mode(trouble, route, planned.pick);
        let before = links.done();
        links.set(mode);
        sleep(planned.length).await;
        // Half-open connections are reset when the link is whole again, and count then.
        let bytes = links.done().since(before).bytes;
        links.set(Mode::Pass);
        let cut = links.done().since(before).cut;
        let took_effect = if trouble == Trouble::Cut { cut > 0 } else { bytes > 0 };
        let length = seconds(planned.length);
        Ok(Effect { took_effect, detail: format!("{mode:?} for {length}: {cut} connections cut, {bytes} bytes") })
    }
}

fn mode(trouble: Trouble, route: Route, pick: u64) -> Mode {
    // The connector asks once and then only listens: requests alone would be none.
    let lost = if route == Route::ConnectMysql { &LOST[1..] } else { &LOST[..] };
    match trouble {
        Trouble::Cut => Mode::Cut,
        Trouble::Delay => Mode::Delay(Duration::from_millis(50 + (pick >> 8) % 450)),
        Trouble::HalfOpen => Mode::HalfOpen(lost[(pick >> 8) as usize % lost.len()]),
        Trouble::Drip => Mode::Drip(64 << ((pick >> 8) % 4), Duration::from_millis(20)),
    }
}

pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
