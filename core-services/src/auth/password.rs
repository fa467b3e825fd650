//! Passwords: argon2id, computed on blocking threads, a few at once.
//!
//! Each computation needs 19 MiB. The memory is kept and used again: given back to the allocator, it would stay in the
//! arena of every blocking thread that ever hashed.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use argon2::{
    ARGON2ID_IDENT, Argon2, Block, Params,
    password_hash::{Output, ParamsString, PasswordHash, Result as HashResult, Salt, SaltString, rand_core::OsRng},
};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// What a check may take of memory. Our own hashes take 19 MiB.
const MAX_MEMORY_KIB: u32 = 128 << 10;

/// Stands in place of a hash for who has no password: none fits.
pub const NONE: &str = "";

/// Whether passwords can be checked against it: argon2, with parameters that it takes.
pub fn is_hash(phc: &str) -> bool {
    PasswordHash::new(phc).is_ok_and(|hash| {
        argon2::Algorithm::try_from(hash.algorithm).is_ok()
            && hash.salt.is_some()
            && hash.hash.is_some_and(|hash| hash.len() == Params::DEFAULT_OUTPUT_LEN)
            && Params::try_from(&hash).is_ok_and(|params| params.m_cost() <= MAX_MEMORY_KIB)
    })
}

/// Hashes and checks; cheap to clone. Requests over the bound wait.
#[derive(Clone)]
pub struct Passwords {
    at_once: Arc<Semaphore>,
    /// Working memory of computations, one for each that runs at once.
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
    /// A hash of nothing, checked when the account does not exist: the answer takes as long.
    decoy: Arc<str>,
}

impl Passwords {
    /// Computes one hash, so it blocks for some milliseconds.
    pub fn new(at_once: usize) -> anyhow::Result<Self> {
        let decoy = hash("", &mut Vec::new()).map_err(|error| anyhow!("argon2: {error}"))?.into();
        Ok(Self { at_once: Arc::new(Semaphore::new(at_once)), memory: Arc::default(), decoy })
    }

    /// The hash in PHC form, with a fresh salt.
    pub async fn hash(&self, password: String) -> Result<String> {
        let hashed = self.compute(move |memory| hash(&password, memory)).await?;
        hashed.map_err(|error| Error::Internal(anyhow!("argon2: {error}")))
    }

    /// Whether the password fits; with no hash to compare, false after as much work.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool> {
        let decoy = Arc::clone(&self.decoy);
        let stored = stored.filter(|stored| stored != NONE);
        self.compute(move |memory| {
            let known = stored.is_some();
            let fits = fits(&password, stored.as_deref().unwrap_or(&decoy), memory);
            fits.unwrap_or(false) && known
        })
        .await
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static) -> Result<T> {
        let permit = Arc::clone(&self.at_once).acquire_owned().await.context("the semaphore is never closed")?;
        let pool = Arc::clone(&self.memory);
        let computed = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut memory = pool.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            let computed = work(&mut memory);
            pool.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
            computed
        });
        Ok(computed.await.context("hashing a password")?)
    }
}

fn hash(password: &str, memory: &mut Vec<Block>) -> HashResult<String> {
    let salt = SaltString::generate(&mut OsRng);
    let argon2 = Argon2::default();
    let phc = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(argon2::Version::default().into()),
        params: ParamsString::try_from(argon2.params())?,
        salt: Some(salt.as_salt()),
        hash: Some(output(&argon2, password, salt.as_salt(), memory)?),
    };
    Ok(phc.to_string())
}

fn fits(password: &str, stored: &str, memory: &mut Vec<Block>) -> HashResult<bool> {
    let stored = PasswordHash::new(stored)?;
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else { return Ok(false) };
    let argon2 = Argon2::new(stored.algorithm.try_into()?, argon2::Version::default(), Params::try_from(&stored)?);
    // `Output` compares in constant time.
    Ok(output(&argon2, password, salt, memory)? == expected)
}

fn output(argon2: &Argon2<'_>, password: &str, salt: Salt<'_>, memory: &mut Vec<Block>) -> HashResult<Output> {
    let mut bytes = [0; Salt::MAX_LENGTH];
    let salt = salt.decode_b64(&mut bytes)?;
    memory.resize(argon2.params().block_count(), Block::default());
    Output::init_with(Params::DEFAULT_OUTPUT_LEN, |out| {
        Ok(argon2.hash_password_into_with_memory(password.as_bytes(), salt, out, &mut memory[..])?)
    })
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordVerifier as _;

    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let passwords = Passwords::new(1).unwrap();
        let stored = passwords.hash("correct horse".into()).await.unwrap();
        assert!(passwords.verify("correct horse".into(), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse".into(), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify(String::new(), None).await.unwrap(), "the decoy is nobody's");
        assert!(!passwords.verify(String::new(), Some(NONE.to_owned())).await.unwrap(), "no password fits nobody");
        assert!(is_hash(&stored) && !is_hash(NONE) && !is_hash("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ"));
        let parsed = PasswordHash::new(&stored).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok(), "the hash is a standard one");
    }
}
