//! Forgets gateways whose lease is gone: their interest, their connections, their stream, their place in the set of
//! gateways.
//!
//! Every worker sweeps; each step may be done twice, or end half-way and be done again, because the gateway leaves
//! the set last. The next entry for a key of interest finds a dead incarnation too, so what the sweep is for is keys
//! that no entry comes for: they are looked through once for all that have died, since a gateway that is alive then
//! needs no second index of what it serves.
//!
//! Names are read as bytes: one that is no text is not ours, and must not fail the sweep each time.

use std::str;

use chrono::Utc;
use proto::{GatewayRef, Keys, redis_keys::BadGatewayRef};
use redis::{FromRedisValue, Pipeline, RedisResult, Value, from_redis_value};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{config, metrics::Metrics, redis_link::RedisLink};

/// Removes a field of a hash if it still has that value: the gateway's next incarnation may just have registered the
/// connection again.
const REMOVE_UNCHANGED: &str =
    "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end return 0";

#[derive(Clone, Debug)]
pub struct Sweeper {
    config: config::Sweeper,
    link: RedisLink,
    keys: Keys,
    metrics: Metrics,
}

/// The part of a registered connection that the sweeper needs.
#[derive(Debug, Deserialize)]
struct Registered {
    gateway_id: String,
    incarnation: String,
    workspace_id: String,
}

/// A connection of a dead gateway as its set names it: `user:connection`.
struct Dead {
    user: i64,
    connection: String,
}

impl Sweeper {
    pub fn new(config: config::Sweeper, link: RedisLink, keys: Keys, metrics: Metrics) -> Self {
        Self { config, link, keys, metrics }
    }

    /// Sweeps every interval until `draining`.
    pub async fn run(self, draining: CancellationToken) {
        let sweep = async {
            loop {
                tokio::time::sleep(self.config.interval).await;
                if let Err(error) = self.sweep().await {
                    debug!(%error, "a sweep failed; the next one does it");
                }
            }
        };
        tokio::select! {
            () = draining.cancelled() => {}
            () = sweep => {}
        }
    }

    /// Forgets all gateways whose lease is gone now.
    pub async fn sweep(&self) -> RedisResult<()> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SMEMBERS").arg(self.keys.gateways());
        let [members]: [Vec<Vec<u8>>; 1] = self.answers(pipeline).await?;
        let gateways: Vec<GatewayRef> = members.iter().filter_map(|member| parse(member)).collect();
        let mut pipeline = Pipeline::new();
        for gateway in &gateways {
            pipeline.cmd("EXISTS").arg(self.keys.lease(gateway));
        }
        let alive: Vec<bool> = self.all(pipeline).await?;
        let dead: Vec<_> = gateways.iter().zip(alive).filter(|(_, alive)| !alive).map(|(gateway, _)| gateway).collect();
        if dead.is_empty() {
            return Ok(());
        }
        let mut connections = Vec::new();
        for gateway in &dead {
            connections.push(self.forget_connections_of(gateway).await?);
        }
        self.forget_interest(&dead).await?;
        for (gateway, connections) in dead.iter().zip(connections) {
            self.forget(gateway, connections).await?;
        }
        // What was on its way when they died may have come behind the first look. What comes from here on is behind
        // their leaving the set, and puts them back into it: the next sweep sees them.
        self.forget_interest(&dead).await
    }

    /// Takes the incarnations out of all sets of interest.
    async fn forget_interest(&self, dead: &[&GatewayRef]) -> RedisResult<()> {
        let names: Vec<String> = dead.iter().map(ToString::to_string).collect();
        let mut cursor = 0_u64;
        loop {
            let mut pipeline = Pipeline::new();
            let scan = pipeline.cmd("SCAN").arg(cursor).arg("MATCH").arg(self.keys.interest_pattern());
            scan.arg("COUNT").arg(self.config.keys_per_step);
            let [(next, keys)]: [(u64, Vec<Vec<u8>>); 1] = self.answers(pipeline).await?;
            let mut pipeline = Pipeline::new();
            for key in keys {
                pipeline.cmd("SREM").arg(key).arg(&names);
            }
            // A key of another type is not ours, and no reason to leave the others.
            self.link.run(pipeline).await?;
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Says how many there were.
    async fn forget_connections_of(&self, gateway: &GatewayRef) -> RedisResult<usize> {
        let connections = self.keys.gateway_connections(gateway);
        let mut forgotten = 0;
        loop {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("SRANDMEMBER").arg(&connections).arg(self.config.connections_per_step);
            let [members]: [Vec<Vec<u8>>; 1] = self.answers(pipeline).await?;
            if members.is_empty() {
                return Ok(forgotten);
            }
            forgotten += members.len();
            let dead: Vec<Dead> = members.iter().filter_map(|member| dead_connection(member)).collect();
            self.forget_connections(gateway, &dead).await?;
            let mut pipeline = Pipeline::new();
            pipeline.cmd("SREM").arg(&connections).arg(&members);
            let _: [u64; 1] = self.answers(pipeline).await?;
        }
    }

    async fn forget(&self, gateway: &GatewayRef, forgotten: usize) -> RedisResult<()> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("UNLINK").arg(self.keys.stream(gateway)).arg(self.keys.gateway_connections(gateway));
        pipeline.cmd("SREM").arg(self.keys.gateways()).arg(gateway.to_string());
        let [_, left]: [u64; 2] = self.answers(pipeline).await?;
        if left > 0 {
            // Only the worker that was first counts it.
            self.metrics.swept_gateways.inc();
            self.metrics.swept_connections.inc_by(forgotten as u64);
            info!(%gateway, connections = forgotten, "the gateway's lease is gone; it is forgotten");
        }
        Ok(())
    }

    /// Removes the connections from their users, and users without any from who is online.
    async fn forget_connections(&self, gateway: &GatewayRef, dead: &[Dead]) -> RedisResult<()> {
        let mut pipeline = Pipeline::new();
        for Dead { user, connection } in dead {
            pipeline.cmd("HGET").arg(self.keys.user_connections(*user)).arg(connection);
        }
        let values: Vec<Option<Vec<u8>>> = self.all(pipeline).await?;
        let mut of_gateway: Vec<(&Dead, Registered)> = Vec::new();
        let mut pipeline = Pipeline::new();
        for (dead, value) in dead.iter().zip(values) {
            let Some(value) = value else { continue };
            let Some(registered) = registered(gateway, &value) else { continue };
            let key = self.keys.user_connections(dead.user);
            pipeline.cmd("EVAL").arg(REMOVE_UNCHANGED).arg(1).arg(key).arg(&dead.connection).arg(value);
            of_gateway.push((dead, registered));
        }
        let _: Vec<u64> = self.all(pipeline).await?;
        self.forget_offline(&of_gateway).await
    }

    /// A user may connect elsewhere between the count and the removal, so the count is taken again after it: a
    /// registration that the second count misses adds the user itself, later.
    async fn forget_offline(&self, removed: &[(&Dead, Registered)]) -> RedisResult<()> {
        let counts = self.count_connections(removed).await?;
        let offline: Vec<_> = removed.iter().zip(counts).filter(|(_, left)| *left == 0).map(|(pair, _)| pair).collect();
        let online_key = |registered: &Registered| {
            registered.workspace_id.parse().ok().map(|workspace| self.keys.workspace_online(workspace))
        };
        let mut pipeline = Pipeline::new();
        for (dead, registered) in &offline {
            if let Some(key) = online_key(registered) {
                pipeline.cmd("ZREM").arg(key).arg(dead.user);
            }
        }
        let _: Vec<u64> = self.all(pipeline).await?;

        let counts = self.count_connections(offline.iter().copied()).await?;
        let mut pipeline = Pipeline::new();
        for ((dead, registered), _) in offline.iter().zip(counts).filter(|(_, left)| *left > 0) {
            if let Some(key) = online_key(registered) {
                pipeline.cmd("ZADD").arg(key).arg("NX").arg(Utc::now().timestamp_millis()).arg(dead.user);
            }
        }
        let _: Vec<u64> = self.all(pipeline).await?;
        Ok(())
    }

    async fn count_connections<'a>(
        &self,
        of: impl IntoIterator<Item = &'a (&'a Dead, Registered)>,
    ) -> RedisResult<Vec<u64>> {
        let mut pipeline = Pipeline::new();
        for (dead, _) in of {
            pipeline.cmd("HLEN").arg(self.keys.user_connections(dead.user));
        }
        self.all(pipeline).await
    }

    /// All answers of a pipeline, or its first error.
    async fn all<T: FromRedisValue>(&self, pipeline: Pipeline) -> RedisResult<Vec<T>> {
        let answers = self.link.run(pipeline).await?;
        answers.into_iter().map(|answer: RedisResult<Value>| Ok(from_redis_value(answer?)?)).collect()
    }

    async fn answers<T: FromRedisValue, const N: usize>(&self, pipeline: Pipeline) -> RedisResult<[T; N]> {
        let answers = self.all(pipeline).await?;
        Ok(answers.try_into().unwrap_or_else(|_| unreachable!("one answer for each command")))
    }
}

fn parse(member: &[u8]) -> Option<GatewayRef> {
    let text = str::from_utf8(member).map_err(|_| BadGatewayRef(String::from_utf8_lossy(member).into_owned()));
    let parsed = text.and_then(str::parse);
    parsed.inspect_err(|error| warn!(%error, "the set of gateways has a member that is not ours")).ok()
}

fn dead_connection(member: &[u8]) -> Option<Dead> {
    let (user, connection) = str::from_utf8(member).ok()?.split_once(':')?;
    Some(Dead { user: user.parse().ok()?, connection: connection.to_owned() })
}

/// The registration, if it is (still) one of that incarnation.
fn registered(gateway: &GatewayRef, json: &[u8]) -> Option<Registered> {
    let registered: Registered = serde_json::from_slice(json).ok()?;
    (registered.gateway_id == gateway.gateway && registered.incarnation == gateway.incarnation).then_some(registered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_no_text_is_no_gateway() {
        assert_eq!(parse(b"a:1").map(|gateway| gateway.to_string()).as_deref(), Some("a:1"));
        assert!(parse(b"\xff:2").is_none());
    }
}
