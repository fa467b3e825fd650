//! Every Redis key, built in one place. All start with a prefix, so that several stacks can share a server.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `gateways` | set | `gateway:incarnation` of all that have a lease or had one lately |
//! | `gw:{gateway:incarnation}:lease` | string, TTL | there while the incarnation lives |
//! | `gw:{gateway:incarnation}:stream` | stream | events for that incarnation |
//! | `gw:{gateway:incarnation}:connections` | set | `user:connection` registered there |
//! | `interest:conversation:{id}`, `interest:user:{id}` | set | `gateway:incarnation` that serve it |
//! | `user:{id}:connections` | hash | connection id → JSON |
//! | `workspace:{id}:online` | sorted set | user id, scored by last sight in ms |

use std::{fmt, str::FromStr};

/// One life of one gateway: members of interest sets. Written `gateway:incarnation`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayRef {
    pub gateway: String,
    pub incarnation: String,
}

/// A text that is no `gateway:incarnation`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no gateway:incarnation")]
pub struct BadGatewayRef(pub String);

impl fmt::Display for GatewayRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.gateway, self.incarnation)
    }
}

impl FromStr for GatewayRef {
    type Err = BadGatewayRef;

    fn from_str(text: &str) -> Result<Self, BadGatewayRef> {
        match text.split_once(':') {
            Some((gateway, incarnation)) if !gateway.is_empty() && !incarnation.is_empty() => {
                Ok(Self { gateway: gateway.to_owned(), incarnation: incarnation.to_owned() })
            }
            _ => Err(BadGatewayRef(text.to_owned())),
        }
    }
}

/// Builds keys under one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    pub fn gateways(&self) -> String {
        format!("{}gateways", self.prefix)
    }

    pub fn lease(&self, gateway: &GatewayRef) -> String {
        format!("{}gw:{{{gateway}}}:lease", self.prefix)
    }

    pub fn stream(&self, gateway: &GatewayRef) -> String {
        format!("{}gw:{{{gateway}}}:stream", self.prefix)
    }

    pub fn gateway_connections(&self, gateway: &GatewayRef) -> String {
        format!("{}gw:{{{gateway}}}:connections", self.prefix)
    }

    pub fn conversation_interest(&self, conversation: i64) -> String {
        format!("{}interest:conversation:{{{conversation}}}", self.prefix)
    }

    /// The pattern of all conversations' interest keys, for SCAN.
    pub fn conversation_interest_pattern(&self) -> String {
        format!("{}interest:conversation:{{*}}", self.prefix)
    }

    /// The conversation of an interest key.
    pub fn conversation_of_interest_key(&self, key: &str) -> Option<i64> {
        key.strip_prefix(&self.prefix)?.strip_prefix("interest:conversation:{")?.strip_suffix('}')?.parse().ok()
    }

    /// The pattern of all interest keys, of conversations and users, for SCAN.
    pub fn interest_pattern(&self) -> String {
        format!("{}interest:*", self.prefix)
    }

    pub fn user_interest(&self, user: i64) -> String {
        format!("{}interest:user:{{{user}}}", self.prefix)
    }

    pub fn user_connections(&self, user: i64) -> String {
        format!("{}user:{{{user}}}:connections", self.prefix)
    }

    pub fn workspace_online(&self, workspace: i64) -> String {
        format!("{}workspace:{{{workspace}}}:online", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_a_contract() {
        let keys = Keys::new("sb:");
        let gateway: GatewayRef = "socket-gateway-1:01J".parse().unwrap();
        assert_eq!(keys.gateways(), "sb:gateways");
        assert_eq!(keys.lease(&gateway), "sb:gw:{socket-gateway-1:01J}:lease");
        assert_eq!(keys.stream(&gateway), "sb:gw:{socket-gateway-1:01J}:stream");
        assert_eq!(keys.gateway_connections(&gateway), "sb:gw:{socket-gateway-1:01J}:connections");
        assert_eq!(keys.conversation_interest(7), "sb:interest:conversation:{7}");
        assert_eq!(keys.conversation_of_interest_key("sb:interest:conversation:{7}"), Some(7));
        assert_eq!(keys.user_interest(7), "sb:interest:user:{7}");
        assert_eq!(keys.user_connections(7), "sb:user:{7}:connections");
        assert_eq!(keys.workspace_online(7), "sb:workspace:{7}:online");
    }

    #[test]
    fn a_member_without_incarnation_is_refused() {
        assert!("gateway".parse::<GatewayRef>().is_err());
        assert!(":x".parse::<GatewayRef>().is_err());
    }
}
