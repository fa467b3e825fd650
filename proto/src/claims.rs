//! The claims of an access token (JWT, RS256), and the scopes.

use serde::{Deserialize, Serialize};

/// A service may name another sender than itself.
pub const SCOPE_SEND_AS: &str = "messages:send_as";
/// A service may register and forget connections, and publish ephemeral events for their users.
pub const SCOPE_CONNECTIONS_WRITE: &str = "connections:write";
/// A service may read heads, memberships and the event log of any conversation.
pub const SCOPE_READ_ANY: &str = "conversations:read_any";
/// A user may send messages.
pub const SCOPE_MESSAGES_WRITE: &str = "messages:write";
/// A user may read messages.
pub const SCOPE_MESSAGES_READ: &str = "messages:read";
/// A user may create, join and leave conversations and manage members.
pub const SCOPE_CONVERSATIONS_WRITE: &str = "conversations:write";
/// What a user's own token carries.
pub const USER_SCOPES: &str = "messages:read messages:write conversations:write";
/// The audience of every access token.
pub const AUDIENCE: &str = "switchboard";

/// Claims of an access token. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Claims {
    pub iss: String,
    /// The user id in decimal, or for a service its client id.
    pub sub: String,
    pub aud: String,
    pub exp: i64,
    pub iat: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub jti: String,
    /// Scopes, separated by one space.
    pub scope: String,
    /// Set for a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The login that the token came from; set for a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
}

impl Claims {
    /// The user that the token speaks for; `None` for a service.
    pub fn user_id(&self) -> Option<crate::UserId> {
        if self.client_id.is_some() { None } else { self.sub.parse().ok() }
    }

    pub fn has_scope(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|held| held == scope)
    }
}
