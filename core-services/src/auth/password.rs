//! Passwords: argon2id, computed on blocking threads, a few at once.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use argon2::{
    Argon2,
    password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString, rand_core::OsRng},
};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// Hashes and checks; cheap to clone. Requests over the bound wait.
#[derive(Clone)]
pub struct Passwords {
    at_once: Arc<Semaphore>,
    /// A hash of nothing, checked when the account does not exist: the answer takes as long.
    decoy: Arc<str>,
}

impl Passwords {
    pub fn new(at_once: usize) -> anyhow::Result<Self> {
        let decoy = hash_blocking("").map_err(|error| anyhow!("argon2: {error}"))?.into();
        Ok(Self { at_once: Arc::new(Semaphore::new(at_once)), decoy })
    }

    /// The hash in PHC form, with a fresh salt.
    pub async fn hash(&self, password: String) -> Result<String> {
        let hashed = self.compute(move || hash_blocking(&password)).await?;
        hashed.map_err(|error| Error::Internal(anyhow!("argon2: {error}")))
    }

    /// Whether the password fits; with no hash to compare, false after as much work.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        let decoy = Arc::clone(&self.decoy);
        self.compute(move || {
            let known = hash.is_some();
            let stored = hash.as_deref().unwrap_or(&decoy);
            PasswordHash::new(stored)
                .is_ok_and(|stored| Argon2::default().verify_password(password.as_bytes(), &stored).is_ok())
                && known
        })
        .await
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let permit = Arc::clone(&self.at_once).acquire_owned().await.context("the semaphore is never closed")?;
        let computed = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        Ok(computed.await.context("hashing a password")?)
    }
}

fn hash_blocking(password: &str) -> Result<String, argon2::password_hash::Error> {
    let salt = SaltString::generate(&mut OsRng);
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.to_string())
}
