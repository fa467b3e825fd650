//! The access token of a service, by the OAuth2 client credentials grant (RFC 6749 section 4.4), renewed in time.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    Dependency, Secret, http,
    renewal::{first_answer, keep_fresh},
};

/// The token that is valid now. Share it in an `Arc`.
#[derive(Debug)]
pub struct ServiceToken {
    base_urls: Vec<String>,
    client_id: String,
    secret: Secret,
    bearer: RwLock<Option<Arc<str>>>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// Seconds.
    expires_in: u64,
}

impl ServiceToken {
    /// `base_urls`: any of the issuer's servers, asked in turn until one answers.
    pub fn new(base_urls: Vec<String>, client_id: impl Into<String>, secret: Secret) -> Self {
        Self { base_urls, client_id: client_id.into(), secret, bearer: RwLock::default() }
    }

    /// `Bearer <token>`, for the `authorization` header; `None` until the first one was got.
    pub fn bearer(&self) -> Option<Arc<str>> {
        self.bearer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets a token, and a new one when two thirds of its life are over, until `draining`.
    pub async fn run(self: Arc<Self>, draining: CancellationToken, dependency: Dependency) {
        keep_fresh(draining, dependency, || {
            let this = Arc::clone(&self);
            async move {
                let answer = this.fetch().await?;
                let bearer = format!("Bearer {}", answer.access_token).into();
                *this.bearer.write().unwrap_or_else(PoisonError::into_inner) = Some(bearer);
                Ok(Duration::from_secs((answer.expires_in * 2 / 3).max(1)))
            }
        })
        .await;
    }

    async fn fetch(&self) -> Result<Answer, String> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", self.secret.expose()),
        ];
        let form = &form;
        let ask = |url: String| async move { http::post_form::<Answer>(&url, form).await };
        first_answer(&self.base_urls, "/oauth2/token", ask).await
    }
}
