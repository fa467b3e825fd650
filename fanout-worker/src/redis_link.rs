//! The one Redis connection that all executors share, checked before it is used and replaced when it fails.
//!
//! A task of its own connects, checks role and eviction policy (again every `redis.check_interval`), publishes the
//! connection and says whether Redis is there. Users wait for a connection; one that fails on the way (lost, timed
//! out, turned read-only) is dropped by the first who notices and never used again: a silent peer must not cost every
//! batch its timeout.
//!
//! After such a change Redis may still run what the old connection had sent: entries repeat or come late, which
//! cursors at the gateways sort out.

use std::time::{Duration, Instant};

use chassis::{Backoff, Dependency, Secret};
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo as _, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value, aio::MultiplexedConnection,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{config, metrics::Metrics};

/// Why a reachable Redis is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("its role is {0:?}; expected \"master\": redis.url must name the primary")]
    Role(String),
    #[error("its maxmemory-policy is {0:?}; expected \"noeviction\": evicted routing keys would lose deliveries")]
    Policy(String),
}

/// The shared connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RedisLink {
    live: watch::Receiver<Option<Live>>,
    broken: watch::Sender<u64>,
    metrics: Metrics,
}

#[derive(Clone, Debug)]
struct Live {
    generation: u64,
    connection: MultiplexedConnection,
}

/// Connects, checks and replaces; see [`Keeper::run`].
#[derive(Debug)]
pub struct Keeper {
    client: Client,
    options: AsyncConnectionConfig,
    check_interval: Duration,
    backoff: Backoff,
    dependency: Dependency,
    live: watch::Sender<Option<Live>>,
    broken: watch::Receiver<u64>,
}

/// The link, and the keeper that has to run for it to have a connection.
pub fn link(
    config: &config::Redis,
    password: Option<&Secret>,
    dependency: Dependency,
    metrics: Metrics,
) -> Result<(RedisLink, Keeper), RedisError> {
    let mut info = config.url.as_str().into_connection_info()?;
    if let Some(password) = password {
        let settings = info.redis_settings().clone().set_password(password.expose());
        info = info.set_redis_settings(settings);
    }
    let (live_sender, live) = watch::channel(None);
    let (broken, broken_receiver) = watch::channel(0);
    let keeper = Keeper {
        client: Client::open(info)?,
        options: AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.response_timeout)),
        check_interval: config.check_interval,
        backoff: Backoff::new(config.retry_base, config.retry_max),
        dependency,
        live: live_sender,
        broken: broken_receiver,
    };
    Ok((RedisLink { live, broken, metrics }, keeper))
}

impl RedisLink {
    /// Runs a pipeline in one round trip and returns each command's own answer. Waits, without an end, for a
    /// connection. `Err`: the round trip failed, and any of the commands may have run.
    pub async fn run(&self, mut pipeline: Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let mut live = self.live().await?;
        let started = Instant::now();
        pipeline.ignore_errors();
        let outcome: RedisResult<Vec<RedisResult<Value>>> = pipeline.query_async(&mut live.connection).await;
        self.metrics.observe_round_trip(started.elapsed());
        let failed = match &outcome {
            Err(error) => breaks_connection(error),
            Ok(answers) => answers.iter().any(|answer| answer.as_ref().is_err_and(breaks_connection)),
        };
        if failed {
            self.broken.send_if_modified(|broken| {
                let newer = live.generation > *broken;
                *broken = live.generation.max(*broken);
                newer
            });
        }
        outcome
    }

    async fn live(&self) -> RedisResult<Live> {
        let mut receiver = self.live.clone();
        let live = receiver.wait_for(Option::is_some).await.ok().and_then(|live| live.clone());
        live.ok_or_else(|| RedisError::from((ErrorKind::Client, "the worker is stopping")))
    }
}

/// Whether an answer is of another type than ours: waiting does not help, somebody else writes under our prefix.
pub fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// Errors of the server leave the connection whole, but for the ones that say that it is the wrong server.
fn breaks_connection(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => matches!(kind, ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown),
        ErrorKind::Extension => false,
        _ => true,
    }
}

impl Keeper {
    /// Keeps the link alive until `finished`: longer than anything that uses it.
    pub async fn run(mut self, finished: CancellationToken) {
        tokio::select! {
            () = finished.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        for generation in 1.. {
            let mut connection = self.connect().await;
            self.live.send_replace(Some(Live { generation, connection: connection.clone() }));
            self.dependency.up();
            let reason = self.until_unfit(generation, &mut connection).await;
            self.live.send_replace(None);
            self.dependency.down(reason);
        }
    }

    /// Returns why the connection must not be used any more.
    async fn until_unfit(&mut self, generation: u64, connection: &mut MultiplexedConnection) -> String {
        loop {
            let broken = async { self.broken.wait_for(|broken| *broken >= generation).await.is_ok() };
            if timeout(self.check_interval, broken).await.is_ok() {
                return "the connection failed or timed out".to_owned();
            }
            if let Err(unfit) = check(connection).await {
                return unfit.to_string();
            }
        }
    }

    async fn connect(&mut self) -> MultiplexedConnection {
        self.backoff.reset();
        loop {
            match self.try_connect().await {
                Ok(connection) => return connection,
                Err(unfit) => self.dependency.down(unfit),
            }
            tokio::time::sleep(self.backoff.next_delay()).await;
        }
    }

    async fn try_connect(&self) -> Result<MultiplexedConnection, Unfit> {
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&self.options).await?;
        check(&mut connection).await?;
        info!(redis.address = %self.client.get_connection_info().addr(), "connected to Redis");
        Ok(connection)
    }
}

/// Refuses a replica and a server that evicts. INFO and not CONFIG GET: managed servers forbid the latter.
async fn check(connection: &mut MultiplexedConnection) -> Result<(), Unfit> {
    let (_, replication, memory): (String, String, String) = redis::pipe()
        .cmd("PING")
        .cmd("INFO")
        .arg("replication")
        .cmd("INFO")
        .arg("memory")
        .query_async(connection)
        .await?;
    verify(&replication, &memory)
}

fn verify(replication: &str, memory: &str) -> Result<(), Unfit> {
    let role = field(replication, "role");
    if role != "master" {
        return Err(Unfit::Role(role.to_owned()));
    }
    let policy = field(memory, "maxmemory_policy");
    if policy != "noeviction" {
        return Err(Unfit::Policy(policy.to_owned()));
    }
    Ok(())
}

/// A field of INFO's `name:value` lines; empty when it is not there.
fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_primary_that_never_evicts_is_fit() {
        let memory = "# Memory\r\nused_memory:1\r\nmaxmemory_policy:noeviction\r\n";
        assert!(verify("role:master\r\n", memory).is_ok());
        let replica = verify("# Replication\r\nrole:slave\r\n", memory).unwrap_err().to_string();
        assert!(replica.contains("slave") && replica.contains("redis.url"), "{replica}");
        let evicts = verify("role:master\r\n", "maxmemory_policy:allkeys-lru\r\n").unwrap_err().to_string();
        assert!(evicts.contains("allkeys-lru") && evicts.contains("noeviction"), "{evicts}");
    }
}
