//! The RS256 keys: made at first run, shared by the cores of one system through a folder.
//!
//! Each key is a file `<kid>.pem` (PKCS#8, mode 0600). The one with the greatest kid signs; all are published, so
//! that tokens of the one before stay good. Cores that start at once take turns: the first makes the key, all read it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, jwk::JwkSet};
use rsa::{
    RsaPrivateKey,
    pkcs1::EncodeRsaPrivateKey as _,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding},
    traits::PublicKeyParts as _,
};
use serde_json::json;
use tracing::info;
use uuid::Uuid;

const BITS: usize = 2048;

/// The keys of this system.
pub struct SigningKeys {
    /// Names the key in the header of a token.
    pub kid: String,
    pub encoding: EncodingKey,
    /// All public keys, as `/.well-known/jwks.json` answers them.
    pub published: JwkSet,
}

impl SigningKeys {
    /// Reads the keys of `folder`, after making one when there is none. Blocks: computing a key takes a while.
    pub fn load_or_make(folder: &Path) -> anyhow::Result<Self> {
        let context = || format!("auth.key_dir: {}", folder.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(context)?;
        // Held until the keys are read: no other core makes one that this one would not know.
        let turn = File::create(folder.join("lock")).with_context(context)?;
        turn.lock().with_context(context)?;
        let mut keys = read_all(folder).with_context(context)?;
        if keys.is_empty() {
            make(folder).with_context(context)?;
            keys = read_all(folder).with_context(context)?;
        }
        let published = json!({ "keys": keys.iter().map(|(kid, key)| jwk(kid, key)).collect::<Vec<_>>() });
        let Some((kid, key)) = keys.pop() else { bail!("{}: the key just made is gone", folder.display()) };
        let der = key.to_pkcs1_der().context("encoding the signing key")?;
        Ok(Self {
            kid,
            encoding: EncodingKey::from_rsa_der(der.as_bytes()),
            published: serde_json::from_value(published).context("encoding the published keys")?,
        })
    }
}

/// All keys, by ascending kid, which is by age.
fn read_all(folder: &Path) -> anyhow::Result<Vec<(String, RsaPrivateKey)>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pem")
            && let Some(kid) = path.file_stem().and_then(|stem| stem.to_str())
        {
            let pem = fs::read_to_string(&path)?;
            let key = RsaPrivateKey::from_pkcs8_pem(&pem).with_context(|| format!("{kid}.pem is no PKCS#8 RSA key"))?;
            keys.push((kid.to_owned(), key));
        }
    }
    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(keys)
}

/// Written under another name and moved, so that nobody reads half a key.
fn make(folder: &Path) -> anyhow::Result<()> {
    let kid = Uuid::now_v7().simple().to_string();
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS)?;
    let pem = key.to_pkcs8_pem(LineEnding::LF)?;
    let partial = folder.join(format!("{kid}.partial"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, folder.join(format!("{kid}.pem")))?;
    info!(kid, "made a signing key");
    Ok(())
}

fn jwk(kid: &str, key: &RsaPrivateKey) -> serde_json::Value {
    let number = |n: &rsa::BigUint| URL_SAFE_NO_PAD.encode(n.to_bytes_be());
    json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": number(key.n()), "e": number(key.e()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_afterwards() {
        let folder = std::env::temp_dir().join(format!("keys-{}", Uuid::now_v7()));
        let first = SigningKeys::load_or_make(&folder).unwrap();
        let second = SigningKeys::load_or_make(&folder).unwrap();
        assert_eq!(first.kid, second.kid);
        assert_eq!(second.published.keys.len(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
