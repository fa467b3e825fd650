//! Another server in the stack's place, so that both are measured by the same generator.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use super::{
    engine::{Dialect, Scene},
    options::Common,
};
use crate::endpoints::Process;

/// The name of its process in the figures.
pub const NAME: &str = "centrifugo";
/// How long its tokens are good for.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Centrifugo with rooms numbered from 1, and users that a shared secret vouches for.
pub fn scene(address: SocketAddr, (rooms, members): (usize, usize), common: &Common) -> Result<Scene> {
    let key = EncodingKey::from_secret(common.secret.as_deref().context("--secret is missing")?.as_bytes());
    let expires = chrono::Utc::now().timestamp() + LIFE.as_secs() as i64;
    let token = |user: usize| {
        let claims = json!({"sub": format!("u{user}"), "exp": expires});
        Ok(encode(&Header::new(Algorithm::HS256), &claims, &key)?)
    };
    let pid = common.pid.context("--pid is missing")?;
    Ok(Scene {
        dialect: Dialect::Centrifugo,
        gateways: vec![address],
        rooms: (1..).take(rooms).collect(),
        members,
        tokens: (0..rooms * members).map(token).collect::<Result<_>>()?,
        heart_beat: None,
        size: common.size,
        receipts: false,
        processes: vec![Process { name: NAME.to_owned(), pid, log: "".into() }],
    })
}
