//! What is in Redis of clients and gateways that are gone. The keys are those of `docs/protocol.md`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use redis::aio::MultiplexedConnection;

use super::{Scope, Sources, TruthRecord};

/// Keys that one SCAN looks at.
const PAGE: usize = 1000;

/// A key that is looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    /// One part of what a gateway's life has: `lease`, `stream`, `connections`.
    Gateway {
        gateway: String,
        part: String,
    },
    ConversationInterest(i64),
    UserInterest(i64),
    UserConnections(i64),
    Online,
    Gateways,
    /// Nothing that is documented.
    Unknown,
}

impl Key {
    /// Reads a key without its prefix.
    fn parse(key: &str) -> Self {
        if key == "gateways" { Self::Gateways } else { Self::tagged(key).unwrap_or(Self::Unknown) }
    }

    fn tagged(key: &str) -> Option<Self> {
        let (before, rest) = key.split_once('{')?;
        let (tag, after) = rest.split_once('}')?;
        match (before, after) {
            ("gw:", part) => Some(Self::Gateway { gateway: tag.to_owned(), part: part.strip_prefix(':')?.to_owned() }),
            ("interest:conversation:", "") => Some(Self::ConversationInterest(tag.parse().ok()?)),
            ("interest:user:", "") => Some(Self::UserInterest(tag.parse().ok()?)),
            ("user:", ":connections") => Some(Self::UserConnections(tag.parse().ok()?)),
            ("workspace:", ":online") => Some(Self::Online),
            _ => None,
        }
    }
}

/// Everything that should not be there when no client of the run is connected.
pub async fn read(sources: &Sources, scope: &Scope) -> Result<Vec<TruthRecord>> {
    let client = redis::Client::open(sources.redis.as_str()).context("the address of Redis")?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let keys = keys(&mut redis, &sources.key_prefix).await?;
    let living: BTreeSet<String> = (keys.iter())
        .filter_map(|(_, key)| match key {
            Key::Gateway { gateway, part } if part == "lease" => Some(gateway.clone()),
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    let registered: Vec<String> =
        redis::cmd("SMEMBERS").arg(format!("{}gateways", sources.key_prefix)).query_async(&mut redis).await?;
    for gateway in registered.iter().filter(|gateway| !living.contains(*gateway)) {
        found.push(left(what(&Key::Gateways), "gateways", gateway));
    }
    for (name, key) in &keys {
        let members = match key {
            Key::Unknown => {
                found.push(left(what(key), name, ""));
                continue;
            }
            Key::Gateway { gateway, part } if part != "lease" && !living.contains(gateway) => {
                found.push(left("key of a gateway that is gone", name, part));
                continue;
            }
            Key::Gateway { part, .. } if part == "connections" => {
                let members = members(&mut redis, "SMEMBERS", name).await?;
                let ours = |member: &String| user_of(member).is_some_and(|user| scope.users.contains(&user));
                members.into_iter().filter(ours).collect()
            }
            Key::ConversationInterest(id) if scope.conversations.contains(id) => {
                members(&mut redis, "SMEMBERS", name).await?
            }
            Key::UserInterest(id) if scope.users.contains(id) => members(&mut redis, "SMEMBERS", name).await?,
            Key::UserConnections(id) if scope.users.contains(id) => members(&mut redis, "HKEYS", name).await?,
            Key::Online => {
                let online: Vec<String> = redis::cmd("ZRANGE").arg(name).arg(0).arg(-1).query_async(&mut redis).await?;
                let ours = |user: &String| user.parse().is_ok_and(|user| scope.users.contains(&user));
                online.into_iter().filter(ours).collect()
            }
            _ => continue,
        };
        found.extend(members.iter().map(|member| left(what(key), name, member)));
    }
    Ok(found)
}

fn what(key: &Key) -> &'static str {
    match key {
        Key::ConversationInterest(_) | Key::UserInterest(_) => "interest that nobody has",
        Key::Gateway { .. } | Key::UserConnections(_) => "connection that is gone",
        Key::Online => "user who is not online",
        Key::Gateways => "gateway without lease",
        Key::Unknown => "key of no kind that is known",
    }
}

fn left(what: &str, key: &str, detail: &str) -> TruthRecord {
    TruthRecord::LeftOver { what: what.to_owned(), key: key.to_owned(), detail: detail.to_owned() }
}

/// The user of `user:connection`.
fn user_of(member: &str) -> Option<i64> {
    member.split_once(':')?.0.parse().ok()
}

async fn members(redis: &mut MultiplexedConnection, command: &str, key: &str) -> Result<Vec<String>> {
    Ok(redis::cmd(command).arg(key).query_async(redis).await?)
}

/// All keys that are looked into, with their whole names, in order.
async fn keys(redis: &mut MultiplexedConnection, prefix: &str) -> Result<Vec<(String, Key)>> {
    let mut names = BTreeSet::new();
    let mut cursor = 0;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(PAGE);
        let (next, page): (u64, Vec<String>) = scan.query_async(redis).await?;
        names.extend(page);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let parsed = |name: String| (Key::parse(name.strip_prefix(prefix).unwrap_or_default()), name);
    Ok(names.into_iter().map(parsed).map(|(key, name)| (name, key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_the_protocol_writes_them() {
        let gateway = |part: &str| Key::Gateway { gateway: "one:0197".to_owned(), part: part.to_owned() };
        assert_eq!(Key::parse("gw:{one:0197}:lease"), gateway("lease"));
        assert_eq!(Key::parse("gw:{one:0197}:stream"), gateway("stream"));
        assert_eq!(Key::parse("interest:conversation:{7}"), Key::ConversationInterest(7));
        assert_eq!(Key::parse("interest:user:{7}"), Key::UserInterest(7));
        assert_eq!(Key::parse("user:{7}:connections"), Key::UserConnections(7));
        assert_eq!(Key::parse("workspace:{1}:online"), Key::Online);
        assert_eq!(Key::parse("gateways"), Key::Gateways);
        assert_eq!(Key::parse("rate:{7}:sends"), Key::Unknown);
        assert_eq!(Key::parse("interest:user:7"), Key::Unknown);
        assert_eq!(user_of("7:0197"), Some(7));
    }
}
