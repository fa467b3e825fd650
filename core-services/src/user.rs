//! People: registration, login, profiles.

pub mod name;
pub mod store;

use chrono::{DateTime, Utc};
use proto::{Code, UserId};
use serde::Serialize;

use crate::{
    auth::{
        password::Passwords,
        sessions::{Login, Sessions},
    },
    db::{Db, lock_epoch},
    error::{Error, Refusal, Result, is_duplicate, refuse},
    snowflake::Snowflakes,
};
use std::sync::Arc;

const MIN_PASSWORD: usize = 8;
const MAX_PASSWORD: usize = 256;
const MAX_DISPLAY_NAME: usize = 128;

/// A person as others see them; `email` is there for themselves only.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    pub id: UserId,
    pub username: String,
    pub display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(serialize_with = "crate::rest::time")]
    pub created_at: DateTime<Utc>,
}

/// What a registration asks for.
#[derive(Clone, Debug)]
pub struct Registration {
    pub email: String,
    pub username: String,
    pub password: String,
    pub display_name: Option<String>,
}

/// What people do with their accounts. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    pub db: Db,
    pub ids: Arc<Snowflakes>,
    pub passwords: Passwords,
    pub sessions: Sessions,
}

impl Users {
    /// Makes an account, a member of the default workspace (the first is its owner), and logs it in.
    pub async fn register(&self, registration: Registration) -> Result<(User, Login)> {
        let email = name::email(&registration.email)?;
        let username = name::username(&registration.username)?;
        let display_name = registration.display_name.unwrap_or_else(|| registration.username.clone());
        check_display_name(&display_name)?;
        check_password(&registration.password)?;
        let password_hash = self.passwords.hash(registration.password).await?;
        let user = User {
            id: UserId(self.next_id()?),
            username: registration.username.trim().to_owned(),
            display_name,
            email: Some(registration.email.trim().to_owned()),
            created_at: crate::now(),
        };
        let new = store::NewUser { user: user.clone(), email, username, password_hash };
        let login = self
            .db
            .transact("register", |tx| {
                let (new, sessions) = (new.clone(), self.sessions.clone());
                Box::pin(async move {
                    let epoch = lock_epoch(tx).await?;
                    store::insert(tx, std::slice::from_ref(&new), epoch).await.map_err(taken)?;
                    sessions.begin(tx, new.user.id).await
                })
            })
            .await?;
        Ok((user, login))
    }

    /// `login` is an e-mail or a username. Unknown and wrong are told apart by nothing, the time included.
    pub async fn login(&self, login: &str, password: String) -> Result<(User, Login)> {
        let found = store::by_login(&self.db, &name::normalise(login)).await?;
        let (user, hash) = found.map_or((None, None), |(user, hash)| (Some(user), Some(hash)));
        let fits = password.len() <= MAX_PASSWORD && self.passwords.verify(password, hash).await?;
        let Some(user) = user.filter(|_| fits) else {
            return refuse(Code::Unauthenticated, "the login or the password is wrong");
        };
        let (id, sessions) = (user.id, self.sessions.clone());
        let login = self
            .db
            .transact("log in", |tx| {
                let sessions = sessions.clone();
                Box::pin(async move { sessions.begin(tx, id).await })
            })
            .await?;
        Ok((user, login))
    }

    /// A profile, without the e-mail.
    pub async fn profile(&self, id: UserId) -> Result<User> {
        let user = self.me(id).await?;
        Ok(User { email: None, ..user })
    }

    /// One's own account.
    pub async fn me(&self, id: UserId) -> Result<User> {
        let found = store::by_id(&self.db, id).await?;
        found.ok_or_else(|| Refusal::new(Code::NotFound, format!("there is no user {id}")).into())
    }

    pub async fn rename(&self, id: UserId, display_name: &str) -> Result<User> {
        check_display_name(display_name)?;
        store::set_display_name(&self.db, id, display_name).await?;
        self.me(id).await
    }

    fn next_id(&self) -> Result<i64> {
        self.ids.next().map_err(|error| Refusal::unavailable(error.to_string()).into())
    }
}

fn taken(error: Error) -> Error {
    match error {
        Error::Database(error) if is_duplicate(&error) => {
            Refusal::new(Code::Conflict, "the e-mail or the username is taken").into()
        }
        error => error,
    }
}

fn check_password(password: &str) -> Result<()> {
    if (MIN_PASSWORD..=MAX_PASSWORD).contains(&password.len()) {
        return Ok(());
    }
    refuse(Code::InvalidBody, format!("password: expected {MIN_PASSWORD} to {MAX_PASSWORD} bytes"))
}

pub(crate) fn check_display_name(name: &str) -> Result<()> {
    if !name.trim().is_empty() && name.chars().count() <= MAX_DISPLAY_NAME && !name.contains(char::is_control) {
        return Ok(());
    }
    refuse(Code::InvalidBody, format!("display_name: expected 1 to {MAX_DISPLAY_NAME} printable characters"))
}
