//! Verification of access tokens: RS256 only, with the issuer's published keys.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind, jwk::JwkSet};
use proto::{Claims, Code, claims::AUDIENCE};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    Dependency, http,
    renewal::{first_answer, keep_fresh},
};

/// Clocks of issuer and verifier may differ by this much, in seconds.
const LEEWAY_S: u64 = 5;
/// A token longer than this is refused unread, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// Keys are fetched again this often, and after an unknown key at most once in [`REFRESH_FLOOR`].
const REFRESH: Duration = Duration::from_secs(300);
const REFRESH_FLOOR: Duration = Duration::from_secs(2);

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has expired")]
    Expired,
    #[error("the token's signature does not fit its content")]
    BadSignature,
    #[error("the token is signed with a key that the issuer does not publish")]
    UnknownKey,
    #[error("the token is of another issuer")]
    WrongIssuer,
    #[error("the token is for another audience")]
    WrongAudience,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("this is no access token: {0}")]
    Malformed(&'static str),
}

impl TokenError {
    /// The stable word of `VerifyAccessTokenResponse.reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            TokenError::Expired => "expired",
            TokenError::BadSignature => "bad_signature",
            TokenError::UnknownKey => "unknown_key",
            TokenError::WrongIssuer => "wrong_issuer",
            TokenError::WrongAudience => "wrong_audience",
            TokenError::NotYetValid => "not_yet_valid",
            TokenError::Malformed(_) => "malformed",
        }
    }

    pub fn code(&self) -> Code {
        if *self == TokenError::Expired { Code::TokenExpired } else { Code::Unauthenticated }
    }
}

/// Checks tokens of one issuer with the keys it was given last.
pub struct Verifier {
    validation: Validation,
    keys: RwLock<Arc<HashMap<String, DecodingKey>>>,
}

impl Verifier {
    pub fn new(issuer: impl Into<String>) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[issuer.into()]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        Self { validation, keys: RwLock::default() }
    }

    /// Replaces the keys; those that are not RSA or have no `kid` are left out.
    pub fn set_keys(&self, keys: &JwkSet) {
        let usable = keys.keys.iter().filter_map(|jwk| {
            let kid = jwk.common.key_id.clone()?;
            DecodingKey::from_jwk(jwk).ok().map(|key| (kid, key))
        });
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(usable.collect());
    }

    /// Checks signature, issuer, audience and times; not revocation.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed("longer than 8 KiB"));
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed("expected a signed JWT"))?;
        if header.alg != Algorithm::RS256 {
            return Err(TokenError::Malformed("expected the algorithm RS256"));
        }
        let kid = header.kid.ok_or(TokenError::Malformed("the header has no kid"))?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let key = keys.get(&kid).ok_or(TokenError::UnknownKey)?;
        decode::<Claims>(token, key, &self.validation).map(|data| data.claims).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::InvalidSignature => TokenError::BadSignature,
            ErrorKind::InvalidIssuer => TokenError::WrongIssuer,
            ErrorKind::InvalidAudience => TokenError::WrongAudience,
            ErrorKind::ImmatureSignature => TokenError::NotYetValid,
            _ => TokenError::Malformed("the claims are not those of an access token"),
        })
    }
}

/// A [`Verifier`] whose keys are fetched from the issuer's JWKS endpoint and kept fresh.
pub struct KeySource {
    base_urls: Vec<String>,
    verifier: Arc<Verifier>,
    last_fetch: Mutex<Option<Instant>>,
}

impl KeySource {
    /// `base_urls`: any of the issuer's servers, asked in turn until one answers.
    pub fn new(base_urls: Vec<String>, verifier: Arc<Verifier>) -> Self {
        Self { base_urls, verifier, last_fetch: Mutex::default() }
    }

    /// Fetches the keys until `draining`: at once, every five minutes, and with back-off while it fails.
    pub async fn run(self: Arc<Self>, draining: CancellationToken, dependency: Dependency) {
        keep_fresh(draining, dependency, || {
            let this = Arc::clone(&self);
            async move { this.fetch().await.map(|()| REFRESH) }
        })
        .await;
    }

    /// Verifies; a token of an unknown key is tried once more with fresh keys.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        match self.verifier.verify(token) {
            Err(TokenError::UnknownKey) => {
                let asked = Instant::now();
                let mut last = self.last_fetch.lock().await;
                let due = last.is_none_or(|at| asked.duration_since(at) >= REFRESH_FLOOR);
                if due {
                    // Rare, and large: it must not be a part of every session.
                    if let Err(error) = Box::pin(self.fetch()).await {
                        debug!(%error, "the keys could not be fetched for a token of an unknown key");
                    }
                    *last = Some(Instant::now());
                }
                drop(last);
                self.verifier.verify(token)
            }
            known => known,
        }
    }

    async fn fetch(&self) -> Result<(), String> {
        let ask = |url: String| async move { http::get_json::<JwkSet>(&url).await };
        self.verifier.set_keys(&first_answer(&self.base_urls, "/.well-known/jwks.json", ask).await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
