//! Access tokens: signed here, verified here and by every service with the published keys.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use chassis::jwt::{TokenError, Verifier};
use jsonwebtoken::{Algorithm, Header, encode, jwk::JwkSet};
use proto::{Claims, UserId, claims};
use uuid::Uuid;

use crate::{
    auth::{keys::SigningKeys, sessions::Sessions},
    error::{Error, Refusal, Result},
};

/// Makes and checks tokens. Share in an `Arc`.
pub struct Tokens {
    issuer: String,
    ttl: Duration,
    keys: SigningKeys,
    verifier: Verifier,
    sessions: Sessions,
}

/// Who a valid token speaks for.
#[derive(Clone, Debug)]
pub struct Caller {
    pub claims: Claims,
}

impl Caller {
    /// The user; a service's token is refused.
    pub fn user(&self) -> Result<UserId> {
        self.claims.user_id().ok_or_else(|| {
            Refusal::new(proto::Code::Forbidden, "this needs a user's token; the token is a service's").into()
        })
    }

    pub fn is_service(&self) -> bool {
        self.claims.client_id.is_some()
    }

    /// Refuses a token without the scope.
    pub fn require(&self, scope: &str) -> Result<()> {
        if self.claims.has_scope(scope) {
            return Ok(());
        }
        crate::error::refuse(proto::Code::Forbidden, format!("the token lacks the scope {scope}"))
    }

    /// Refuses anything but a service with the scope.
    pub fn require_service(&self, scope: &str) -> Result<()> {
        if !self.is_service() {
            return crate::error::refuse(proto::Code::Forbidden, "this call is for services");
        }
        self.require(scope)
    }
}

/// Why a token is not accepted.
#[derive(Debug)]
pub enum Rejection {
    Token(TokenError),
    /// Its session was logged out.
    Revoked,
    /// Could not be found out.
    Failed(Error),
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Token(error) => Refusal::new(error.code(), error.to_string()).into(),
            Rejection::Revoked => Refusal::new(proto::Code::Unauthenticated, "the session was logged out").into(),
            Rejection::Failed(error) => error,
        }
    }
}

impl Tokens {
    pub fn new(issuer: String, ttl: Duration, keys: SigningKeys, sessions: Sessions) -> Arc<Self> {
        let verifier = Verifier::new(issuer.clone());
        verifier.set_keys(&keys.published);
        Arc::new(Self { issuer, ttl, keys, verifier, sessions })
    }

    /// The public keys.
    pub fn published(&self) -> &JwkSet {
        &self.keys.published
    }

    /// How long an access token is good.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A token that speaks for the user of a session.
    pub fn for_user(&self, user: UserId, session: &str) -> Result<String> {
        self.sign(user.to_string(), claims::USER_SCOPES.to_owned(), None, Some(session.to_owned()))
    }

    /// A token that speaks for a service.
    pub fn for_service(&self, client_id: &str, scopes: &[String]) -> Result<String> {
        self.sign(client_id.to_owned(), scopes.join(" "), Some(client_id.to_owned()), None)
    }

    fn sign(&self, sub: String, scope: String, client_id: Option<String>, sid: Option<String>) -> Result<String> {
        let now = chrono::Utc::now().timestamp();
        let claims = Claims {
            iss: self.issuer.clone(),
            sub,
            aud: claims::AUDIENCE.to_owned(),
            exp: now + self.ttl.as_secs() as i64,
            iat: now,
            nbf: None,
            jti: Uuid::new_v4().simple().to_string(),
            scope,
            client_id,
            sid,
        };
        let header = Header { kid: Some(self.keys.kid.clone()), ..Header::new(Algorithm::RS256) };
        Ok(encode(&header, &claims, &self.keys.encoding).context("signing a token")?)
    }

    /// Checks signature, issuer, audience, times, and that the session was not logged out.
    pub async fn check(&self, token: &str) -> Result<Caller, Rejection> {
        let claims = self.verifier.verify(token).map_err(Rejection::Token)?;
        if let Some(session) = &claims.sid
            && self.sessions.is_revoked(session).await.map_err(Rejection::Failed)?
        {
            return Err(Rejection::Revoked);
        }
        Ok(Caller { claims })
    }

    /// Checks the value of an `authorization` header.
    pub async fn check_bearer(&self, authorization: Option<&str>) -> Result<Caller> {
        let missing =
            || Refusal::new(proto::Code::Unauthenticated, "expected the header `authorization: Bearer <token>`");
        let (scheme, token) = authorization.and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(missing().into());
        }
        Ok(self.check(token.trim()).await?)
    }
}
