//! Access tokens that are wrong on purpose, and good ones that core would not give out.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proto::Claims;
use rsa::{RsaPrivateKey, pkcs1::EncodeRsaPrivateKey as _};
use serde_json::Value;

use crate::{endpoints::Endpoints, rest::Rest};

/// Signs claims with one RSA key.
pub struct Signer {
    key: EncodingKey,
    kid: String,
}

impl Signer {
    /// The stack's own key: what it signs is accepted, if the claims are.
    pub async fn of_the_stack(endpoints: &Endpoints) -> Result<Self> {
        let folder = endpoints.folder.join("secrets/signing-keys");
        let kid = current_kid(endpoints).await?;
        let file = folder.join(format!("{kid}.pem"));
        let pem = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self { key: EncodingKey::from_rsa_pem(&pem)?, kid })
    }

    /// A key that the stack does not know, under the name of one that it knows.
    pub async fn of_a_stranger(endpoints: &Endpoints) -> Result<Self> {
        // Made once: finding the primes takes seconds.
        static KEY: OnceLock<EncodingKey> = OnceLock::new();
        let key = KEY.get_or_init(|| {
            let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).expect("2048 bits are possible");
            let der = key.to_pkcs1_der().expect("an RSA key can be encoded");
            EncodingKey::from_rsa_der(der.as_bytes())
        });
        Ok(Self { key: key.clone(), kid: current_kid(endpoints).await? })
    }

    /// Names the key in the header of a token.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub fn sign(&self, claims: &Claims) -> Result<String> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::RS256) };
        Ok(encode(&header, claims, &self.key)?)
    }

    /// The same claims under a shared secret instead of the key: another algorithm.
    pub fn sign_with_a_secret(&self, claims: &Claims, secret: &[u8]) -> Result<String> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::HS256) };
        Ok(encode(&header, claims, &EncodingKey::from_secret(secret))?)
    }
}

/// The claims of a token, unverified.
pub fn claims_of(token: &str) -> Result<Claims> {
    let part = token.split('.').nth(1).context("a JWT has three parts")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

/// The token with another claim set and the header and signature that it had.
pub fn tampered(token: &str, change: impl FnOnce(&mut Claims)) -> Result<String> {
    let mut claims = claims_of(token)?;
    change(&mut claims);
    let parts: Vec<&str> = token.split('.').collect();
    Ok(format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims)?), parts[2]))
}

/// The token's claims without any signature: `alg` is `none`.
pub fn unsigned(token: &str) -> Result<String> {
    let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims_of(token)?)?);
    Ok(format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#)))
}

/// The key id in the header of a token that core gives out now.
async fn current_kid(endpoints: &Endpoints) -> Result<String> {
    let keys = Rest::new(&endpoints.core).call(http::Method::GET, "/.well-known/jwks.json", None, None).await?;
    let newest = keys["keys"].as_array().and_then(|keys| keys.last());
    let kid = newest.and_then(|key| key["kid"].as_str()).map(str::to_owned);
    kid.with_context(|| format!("no key in {}", Value::to_string(&keys)))
}
