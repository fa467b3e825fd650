//! Service clients of the configuration, for the OAuth2 client credentials grant (RFC 6749 section 4.4).

use sha2::{Digest as _, Sha256};

use crate::config;

/// A service that may ask for tokens.
struct Client {
    id: String,
    secret_hash: [u8; 32],
    scopes: Vec<String>,
}

/// All of them.
pub struct Clients(Vec<Client>);

/// Why a client gets no token: the error codes of RFC 6749 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    InvalidClient,
    InvalidScope,
}

impl Clients {
    /// Reads the secrets' files.
    pub fn load(clients: &[config::ServiceClient]) -> anyhow::Result<Self> {
        clients
            .iter()
            .map(|client| {
                let secret = chassis::Secret::from_file(&client.secret_file)?;
                Ok(Client {
                    id: client.client_id.clone(),
                    secret_hash: Sha256::digest(secret.expose()).into(),
                    scopes: client.scopes.clone(),
                })
            })
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// The scopes that the client gets: those it asks for, or all of its own.
    pub fn grant(&self, id: &str, secret: &str, scope: Option<&str>) -> Result<Vec<String>, GrantError> {
        // Hashes are compared, so that the time tells nothing of the secret.
        let given: [u8; 32] = Sha256::digest(secret).into();
        let client = self.0.iter().find(|client| client.id == id && client.secret_hash == given);
        let client = client.ok_or(GrantError::InvalidClient)?;
        let Some(scope) = scope else { return Ok(client.scopes.clone()) };
        let asked: Vec<String> = scope.split_ascii_whitespace().map(str::to_owned).collect();
        if asked.iter().all(|scope| client.scopes.contains(scope)) { Ok(asked) } else { Err(GrantError::InvalidScope) }
    }
}
