//! The registry of connections in Redis: whose they are, and which life of which gateway holds them.
//!
//! A connection counts only while its gateway's incarnation has its lease, so a killed gateway's connections are gone
//! with the lease; the fanout worker sweeps up what they leave.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use proto::{GatewayRef, Keys, UserId, WorkspaceId};
use redis::{AsyncCommands as _, Pipeline, aio::ConnectionManager};
use serde::{Deserialize, Serialize};

use crate::{config, error::Result};

/// Removes a connection if it is still this incarnation's, and returns it: a gateway that took a new incarnation has
/// registered it again by then.
const REMOVE: &str = "local json = redis.call('HGET', KEYS[1], ARGV[1]) \
    if not json or cjson.decode(json).incarnation ~= ARGV[2] then return false end \
    redis.call('HDEL', KEYS[1], ARGV[1]) return json";
/// Replaces a connection that is there: one that was removed since it was read must not come back.
const REPLACE: &str = "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then \
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end";

/// A connection as it stands in `user:{id}:connections`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    #[serde(skip)]
    pub connection_id: String,
    pub user_id: UserId,
    pub gateway_id: String,
    pub incarnation: String,
    pub device_id: String,
    pub connected_at_ms: i64,
    pub last_ping_at_ms: i64,
    pub workspace_id: WorkspaceId,
}

impl Connection {
    pub fn gateway(&self) -> GatewayRef {
        GatewayRef { gateway: self.gateway_id.clone(), incarnation: self.incarnation.clone() }
    }
}

/// Somebody with a live connection.
#[derive(Clone, Debug)]
pub struct OnlineUser {
    pub user_id: UserId,
    pub last_seen_ms: i64,
    pub connections: u32,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    redis: ConnectionManager,
    keys: Keys,
    max_per_user: usize,
}

impl Registry {
    /// Connects in the background; commands fail until Redis is there.
    pub fn new(config: &config::Redis, limits: &config::Connections) -> anyhow::Result<Self> {
        let client = redis::Client::open(config.url.as_str())?;
        let settings = redis::aio::ConnectionManagerConfig::new()
            .set_response_timeout(Some(config.timeout))
            .set_connection_timeout(Some(config.timeout))
            .set_number_of_retries(3)
            .set_max_delay(Duration::from_secs(1));
        let redis = ConnectionManager::new_lazy_with_config(client, settings)?;
        Ok(Self { redis, keys: Keys::new(config.key_prefix.clone()), max_per_user: limits.max_per_user })
    }

    pub async fn ping(&self) -> Result<()> {
        let mut redis = self.redis.clone();
        redis::cmd("PING").query_async::<()>(&mut redis).await?;
        Ok(())
    }

    /// Adds connections; one that is there already is replaced. Those that would be above their user's limit are left
    /// out and returned.
    pub async fn register(&self, connections: Vec<Connection>) -> Result<(Vec<Connection>, Vec<Connection>)> {
        let (fit, over) = self.within_limit(connections).await?;
        let mut pipe = redis::pipe();
        for connection in &fit {
            self.put(&mut pipe, connection)?;
            let gateway = self.keys.gateway_connections(&connection.gateway());
            pipe.sadd(gateway, format!("{}:{}", connection.user_id, connection.connection_id)).ignore();
        }
        // Redis may have been emptied since, and the gateway have another incarnation now: whoever sweeps finds what is
        // written here for the old one by this set only.
        let gateways: HashSet<GatewayRef> = fit.iter().map(Connection::gateway).collect();
        for gateway in gateways {
            pipe.sadd(self.keys.gateways(), gateway.to_string()).ignore();
        }
        if !fit.is_empty() {
            pipe.query_async::<()>(&mut self.redis.clone()).await?;
        }
        Ok((fit, over))
    }

    async fn within_limit(&self, connections: Vec<Connection>) -> Result<(Vec<Connection>, Vec<Connection>)> {
        if connections.is_empty() {
            return Ok((connections, Vec::new()));
        }
        let mut users: Vec<UserId> = connections.iter().map(|connection| connection.user_id).collect();
        users.sort_unstable();
        users.dedup();
        let mut sizes = redis::pipe();
        for user in &users {
            sizes.hlen(self.keys.user_connections(user.0));
        }
        let sizes: Vec<usize> = sizes.query_async(&mut self.redis.clone()).await?;
        let asked = |user: UserId| connections.iter().filter(|connection| connection.user_id == user).count();
        let near: Vec<UserId> = users
            .iter()
            .zip(sizes)
            .filter(|(user, size)| size + asked(**user) > self.max_per_user)
            .map(|(user, _)| *user)
            .collect();
        // What a dead gateway left is no reason to refuse, and a connection that is there takes no further place.
        let mut taken: HashMap<UserId, HashSet<String>> = HashMap::new();
        for (user, live) in near.iter().zip(self.of_users(&near).await?) {
            taken.insert(*user, live.into_iter().map(|connection| connection.connection_id).collect());
        }
        Ok(connections.into_iter().partition(|connection| {
            let Some(taken) = taken.get_mut(&connection.user_id) else { return true };
            let fits = taken.contains(&connection.connection_id) || taken.len() < self.max_per_user;
            if fits {
                taken.insert(connection.connection_id.clone());
            }
            fits
        }))
    }

    fn put(&self, pipe: &mut Pipeline, connection: &Connection) -> Result<()> {
        let json = serde_json::to_string(connection).map_err(anyhow::Error::from)?;
        pipe.hset(self.keys.user_connections(connection.user_id.0), &connection.connection_id, json).ignore();
        let online = self.keys.workspace_online(connection.workspace_id.0);
        pipe.zadd(online, connection.user_id.0, connection.last_ping_at_ms).ignore();
        Ok(())
    }

    /// Removes connections of a gateway's incarnation; unknown ones are passed over. Those removed are returned.
    pub async fn unregister(&self, gateway: &GatewayRef, ids: &[String]) -> Result<Vec<Connection>> {
        let mut redis = self.redis.clone();
        let mut removed = Vec::new();
        for (user, id) in self.owners(gateway, ids).await? {
            let mut pipe = redis::pipe();
            pipe.cmd("EVAL")
                .arg(REMOVE)
                .arg(1)
                .arg(self.keys.user_connections(user))
                .arg(&id)
                .arg(&gateway.incarnation);
            pipe.srem(self.keys.gateway_connections(gateway), format!("{user}:{id}")).ignore();
            pipe.hlen(self.keys.user_connections(user));
            let (json, left): (Option<String>, usize) = pipe.query_async(&mut redis).await?;
            let connection = json.and_then(|json| serde_json::from_str::<Connection>(&json).ok());
            if let Some(connection) = connection {
                if left == 0 {
                    let online = self.keys.workspace_online(connection.workspace_id.0);
                    redis.zrem::<_, _, ()>(online, user).await?;
                }
                removed.push(Connection { connection_id: id, ..connection });
            }
        }
        Ok(removed)
    }

    /// Marks connections as seen now; those that are not registered are returned, to be registered again.
    pub async fn ping_connections(&self, gateway: &GatewayRef, ids: &[String], now_ms: i64) -> Result<Vec<String>> {
        let mut redis = self.redis.clone();
        let owners = self.owners(gateway, ids).await?;
        let mut pipe = redis::pipe();
        for (user, id) in &owners {
            pipe.hget(self.keys.user_connections(*user), id);
        }
        let stored: Vec<Option<String>> =
            if owners.is_empty() { Vec::new() } else { pipe.query_async(&mut redis).await? };
        let mut known = HashSet::with_capacity(ids.len());
        let mut pipe = redis::pipe();
        for ((user, id), json) in owners.into_iter().zip(stored) {
            let connection = json.and_then(|json| serde_json::from_str::<Connection>(&json).ok());
            let Some(connection) = connection.filter(|connection| connection.gateway() == *gateway) else { continue };
            let seen = Connection { last_ping_at_ms: now_ms, ..connection };
            let json = serde_json::to_string(&seen).map_err(anyhow::Error::from)?;
            pipe.cmd("EVAL").arg(REPLACE).arg(1).arg(self.keys.user_connections(user)).arg(&id).arg(json).ignore();
            pipe.zadd(self.keys.workspace_online(seen.workspace_id.0), user, now_ms).ignore();
            known.insert(id);
        }
        if !known.is_empty() {
            pipe.query_async::<()>(&mut redis).await?;
        }
        Ok(ids.iter().filter(|id| !known.contains(*id)).cloned().collect())
    }

    /// The users of these connections of an incarnation, as far as they are registered.
    async fn owners(&self, gateway: &GatewayRef, ids: &[String]) -> Result<Vec<(i64, String)>> {
        let mut redis = self.redis.clone();
        let members: Vec<String> = redis.smembers(self.keys.gateway_connections(gateway)).await?;
        let by_id: HashMap<&str, i64> = members
            .iter()
            .filter_map(|member| member.split_once(':').and_then(|(user, id)| Some((id, user.parse().ok()?))))
            .collect();
        Ok(ids.iter().filter_map(|id| Some((*by_id.get(id.as_str())?, id.clone()))).collect())
    }

    /// The live connections of a user.
    pub async fn of_user(&self, user: UserId) -> Result<Vec<Connection>> {
        Ok(self.of_users(&[user]).await?.pop().unwrap_or_default())
    }

    /// The live connections of each user: those whose incarnation has its lease.
    async fn of_users(&self, users: &[UserId]) -> Result<Vec<Vec<Connection>>> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut redis = self.redis.clone();
        let mut pipe = redis::pipe();
        for user in users {
            pipe.hgetall(self.keys.user_connections(user.0));
        }
        let stored: Vec<HashMap<String, String>> = pipe.query_async(&mut redis).await?;
        let mut of_users: Vec<Vec<Connection>> = stored
            .into_iter()
            .map(|of_user| {
                let parse = |(connection_id, json): (String, String)| {
                    let connection: Connection = serde_json::from_str(&json).ok()?;
                    Some(Connection { connection_id, ..connection })
                };
                of_user.into_iter().filter_map(parse).collect()
            })
            .collect();
        let mut gateways: Vec<GatewayRef> = of_users.iter().flatten().map(Connection::gateway).collect();
        gateways.sort_unstable();
        gateways.dedup();
        if gateways.is_empty() {
            return Ok(of_users);
        }
        let mut pipe = redis::pipe();
        for gateway in &gateways {
            pipe.exists(self.keys.lease(gateway));
        }
        let live: Vec<bool> = pipe.query_async(&mut redis).await?;
        let is_live = |gateway: &GatewayRef| gateways.binary_search(gateway).is_ok_and(|place| live[place]);
        for connections in &mut of_users {
            connections.retain(|connection| is_live(&connection.gateway()));
            connections.sort_unstable_by(|a, b| a.connection_id.cmp(&b.connection_id));
        }
        Ok(of_users)
    }

    /// Users of a workspace with a live connection, by last sight, from `offset`; and whether there are more.
    pub async fn online(&self, workspace: i64, offset: usize, limit: usize) -> Result<(Vec<OnlineUser>, bool)> {
        let mut redis = self.redis.clone();
        let (first, last) = (offset as isize, (offset + limit) as isize);
        let mut scored: Vec<(i64, i64)> =
            redis.zrange_withscores(self.keys.workspace_online(workspace), first, last).await?;
        let more = scored.len() > limit;
        scored.truncate(limit);
        let users: Vec<UserId> = scored.iter().map(|(user, _)| UserId(*user)).collect();
        let connections = self.of_users(&users).await?;
        let online = scored.iter().zip(connections).filter(|(_, connections)| !connections.is_empty());
        let online = online.map(|((user, seen), connections)| OnlineUser {
            user_id: UserId(*user),
            last_seen_ms: *seen,
            connections: u32::try_from(connections.len()).unwrap_or(u32::MAX),
        });
        Ok((online.collect(), more))
    }
}
