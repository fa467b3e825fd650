//! Accounts for load and tests, made once and remembered beside `endpoints.json`: a password hash costs tens of
//! milliseconds of one core.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::{
    endpoints::Endpoints,
    rest::{Rest, Session},
    tokens::claims_of,
};

/// The password of all accounts that these tools make. They are for trying out, not for secrets.
pub const PASSWORD: &str = "correct horse battery staple";
/// Accounts that are made or logged in at the same time.
const CONCURRENTLY: usize = 4;
/// What setting up may take, on top of the time that tokens must last.
const SETTING_UP: Duration = Duration::from_secs(120);

/// A remembered account.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Account {
    user_id: i64,
    username: String,
    token: String,
}

/// What is remembered: the accounts, and the conversations of each shape of load.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    accounts: Vec<Account>,
    #[serde(default)]
    rooms: std::collections::BTreeMap<String, Vec<i64>>,
}

/// Accounts named `load-0001` and up, with their conversations.
#[derive(Debug)]
pub struct People {
    file: PathBuf,
    remembered: Remembered,
}

impl People {
    /// Reads what is remembered of this stack; what another stack's data left is forgotten.
    pub async fn of(endpoints: &Endpoints, rest: &Rest) -> Self {
        let file = endpoints.folder.join("load-users.json");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let mut remembered: Remembered = serde_json::from_str(&text).unwrap_or_default();
        if let Some(first) = remembered.accounts.first()
            && rest.login(&first.username, PASSWORD).await.ok().map(|session| session.user_id) != Some(first.user_id)
        {
            remembered = Remembered::default();
        }
        Self { file, remembered }
    }

    /// The first `count` people, made where they are missing, with tokens that last so long.
    ///
    /// # Errors
    /// Core's tokens do not last so long, or core refuses.
    pub async fn sessions(&mut self, rest: &Rest, count: usize, lasting: Duration) -> Result<Vec<Session>> {
        let lasting = lasting + SETTING_UP;
        let known = &self.remembered.accounts;
        let sessions: Vec<Session> = stream::iter(0..count)
            .map(|number| {
                let known = known.get(number).cloned();
                async move { session(rest, number, known, lasting).await }
            })
            .buffered(CONCURRENTLY)
            .try_collect()
            .await?;
        let accounts = sessions.iter().cloned().map(Account::from).collect::<Vec<_>>();
        let beyond = self.remembered.accounts.drain(accounts.len().min(self.remembered.accounts.len())..);
        self.remembered.accounts = accounts.into_iter().chain(beyond.collect::<Vec<_>>()).collect();
        self.save()?;
        Ok(sessions)
    }

    /// The conversations of that shape, if they were made before.
    pub fn rooms(&self, shape: &str) -> Option<Vec<i64>> {
        self.remembered.rooms.get(shape).cloned()
    }

    pub fn remember_rooms(&mut self, shape: &str, rooms: &[i64]) -> Result<()> {
        self.remembered.rooms.insert(shape.to_owned(), rooms.to_owned());
        self.save()
    }

    fn save(&self) -> Result<()> {
        write_private(&self.file, &serde_json::to_vec(&self.remembered)?)
    }
}

async fn session(rest: &Rest, number: usize, known: Option<Account>, lasting: Duration) -> Result<Session> {
    if let Some(account) = known.filter(|account| time_left(&account.token) > lasting) {
        return Ok(account.into());
    }
    let session = rest.login_or_register(&format!("load-{:04}", number + 1), PASSWORD).await?;
    let left = time_left(&session.token);
    ensure!(left > lasting, "core's tokens last {left:?} only, and the run needs {lasting:?}: make --time shorter");
    Ok(session)
}

impl From<Account> for Session {
    fn from(account: Account) -> Self {
        let Account { user_id, username, token } = account;
        Self { user_id, username, token }
    }
}

impl From<Session> for Account {
    fn from(session: Session) -> Self {
        let Session { user_id, username, token } = session;
        Self { user_id, username, token }
    }
}

/// How long a token is still valid; zero when it is not.
fn time_left(token: &str) -> Duration {
    let end = claims_of(token).map_or(0, |claims| claims.exp);
    Duration::from_secs((end - chrono::Utc::now().timestamp()).try_into().unwrap_or(0))
}

/// Replaces a file that only its owner may read.
pub fn write_private(file: &Path, content: &[u8]) -> Result<()> {
    let draft = file.with_extension("new");
    let mut open = fs::OpenOptions::new();
    let written = open.write(true).create(true).truncate(true).mode(0o600).open(&draft).and_then(|mut opened| {
        opened.write_all(content)?;
        fs::rename(&draft, file)
    });
    written.with_context(|| format!("writing {}", file.display()))
}
