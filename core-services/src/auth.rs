//! Accounts and tokens: passwords, keys, access and refresh tokens, the clients of services.

pub mod clients;
pub mod keys;
pub mod password;
pub mod sessions;
pub mod tokens;
