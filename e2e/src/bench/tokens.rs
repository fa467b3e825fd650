//! Access tokens for thousands of people, signed here with the stack's own key and remembered between runs: logging
//! everybody in would cost a password hash each, and a token of core's is good for minutes only.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use proto::{Claims, claims};
use serde::{Deserialize, Serialize};

use crate::{endpoints::Endpoints, people::write_private, tokens::Signer};

/// How long they are good for.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Remembered ones are used while they last at least so long.
const LEFT: Duration = Duration::from_secs(2 * 3600);
const FILE: &str = "bench-tokens.json";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    kid: String,
    /// A stack that is started with other ports has another.
    #[serde(default)]
    issuer: String,
    /// Seconds since the Unix epoch.
    expires: i64,
    tokens: BTreeMap<i64, String>,
}

/// A token for each user, in their order.
pub async fn signed(endpoints: &Endpoints, users: &[i64], progress: impl Fn(&str)) -> Result<Vec<String>> {
    let signer = Signer::of_the_stack(endpoints).await?;
    let issuer = endpoints.core.first().context("no core runs")?;
    let file = endpoints.folder.join(FILE);
    let now = chrono::Utc::now().timestamp();
    let text = fs::read_to_string(&file).unwrap_or_default();
    let mut remembered: Remembered = serde_json::from_str(&text).unwrap_or_default();
    let fits = remembered.kid == signer.kid() && remembered.issuer == *issuer;
    if !fits || remembered.expires < now + LEFT.as_secs() as i64 {
        let (kid, expires) = (signer.kid().to_owned(), now + LIFE.as_secs() as i64);
        remembered = Remembered { kid, issuer: issuer.clone(), expires, tokens: BTreeMap::new() };
    }
    let missing: Vec<i64> = users.iter().copied().filter(|user| !remembered.tokens.contains_key(user)).collect();
    if !missing.is_empty() {
        progress(&format!("signing {} tokens", missing.len()));
        remembered.tokens.extend(sign_all(&signer, issuer, &missing, (now, remembered.expires))?);
        write_private(&file, &serde_json::to_vec(&remembered)?)?;
    }
    Ok(users.iter().filter_map(|user| remembered.tokens.get(user).cloned()).collect())
}

/// On all cores: an RS256 signature takes about a millisecond.
fn sign_all(signer: &Signer, issuer: &str, users: &[i64], (now, expires): (i64, i64)) -> Result<Vec<(i64, String)>> {
    let sign = |user: i64| -> Result<(i64, String)> {
        let claims = Claims {
            iss: issuer.to_owned(),
            sub: user.to_string(),
            aud: claims::AUDIENCE.to_owned(),
            exp: expires,
            iat: now,
            nbf: None,
            jti: uuid::Uuid::new_v4().simple().to_string(),
            scope: claims::USER_SCOPES.to_owned(),
            client_id: None,
            sid: None,
        };
        Ok((user, signer.sign(&claims)?))
    };
    let share = users.len().div_ceil(thread::available_parallelism().map_or(1, usize::from));
    thread::scope(|scope| {
        let threads: Vec<_> = users
            .chunks(share.max(1))
            .map(|part| scope.spawn(|| part.iter().map(|user| sign(*user)).collect::<Result<Vec<_>>>()))
            .collect();
        let parts = threads.into_iter().map(|thread| thread.join().expect("signing does not panic"));
        Ok(parts.collect::<Result<Vec<_>>>()?.concat())
    })
}
