//! Users of an import: a transaction for as many as wait.

use std::{collections::HashMap, sync::Arc};

use proto::{Code, UserId};
use sqlx::{AssertSqlSafe, MySqlConnection, Row as _};

use super::record::{self, Outcome};
use crate::{
    auth::password,
    db::{Db, lock_epoch, placeholders},
    error::{Error, Refusal, Result, is_contention, is_duplicate, refuse},
    snowflake::Snowflakes,
    user::{self, User, name, store::NewUser},
};

/// A line that waits for its transaction; one that was refused already waits for its turn to be answered.
#[derive(Clone)]
pub struct Waiting {
    pub line: u64,
    pub new: std::result::Result<NewUser, Refusal>,
}

/// All checks that need no database.
pub fn prepare(record: record::User, ids: &Snowflakes) -> Result<NewUser> {
    let email = name::email(&record.email)?;
    let username = name::username(&record.username)?;
    let display_name = record.display_name.unwrap_or_else(|| record.username.clone());
    user::check_display_name(&display_name)?;
    let password_hash = record.password_hash.unwrap_or_else(|| password::NONE.to_owned());
    if password_hash != password::NONE && !password::is_hash(&password_hash) {
        return refuse(Code::InvalidBody, "password_hash: expected argon2 in PHC form, $argon2id$v=19$m=…");
    }
    let user = User {
        id: UserId(ids.next().map_err(|error| Error::Internal(error.into()))?),
        username: record.username.trim().to_owned(),
        display_name,
        email: Some(record.email.trim().to_owned()),
        created_at: crate::now(),
    };
    Ok(NewUser { user, email, username, password_hash })
}

/// Writes those who are new, and says of each line what it has become.
pub async fn write(db: &Db, waiting: Vec<Waiting>) -> Result<Vec<(u64, std::result::Result<Outcome, Refusal>)>> {
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let waiting: Arc<[Waiting]> = waiting.into();
    // Somebody may take a name between the look and the insertion: then it is there at the next look.
    let again = |error: &sqlx::Error| is_contention(error) || is_duplicate(error);
    db.transact_again_if(again, "import users", |tx| {
        let waiting = Arc::clone(&waiting);
        Box::pin(async move { write_once(tx, &waiting).await })
    })
    .await
}

async fn write_once(
    tx: &mut MySqlConnection,
    waiting: &[Waiting],
) -> Result<Vec<(u64, std::result::Result<Outcome, Refusal>)>> {
    let epoch = lock_epoch(tx).await?;
    let mut taken = Taken::read(tx, waiting).await?;
    let mut fresh = Vec::new();
    let outcomes = waiting.iter().map(|waiting| {
        let outcome = waiting.new.clone().and_then(|new| {
            let (user_id, created) = taken.place(&new)?;
            let username = new.user.username.clone();
            if created {
                fresh.push(new);
            }
            Ok(Outcome::User { user_id, username, created })
        });
        (waiting.line, outcome)
    });
    let outcomes = outcomes.collect();
    user::store::insert(tx, &fresh, epoch).await?;
    Ok(outcomes)
}

/// Names and addresses that somebody has, those of this batch included.
struct Taken {
    /// Username to e-mail and id.
    users: HashMap<String, (String, UserId)>,
    /// E-mail to username.
    emails: HashMap<String, String>,
}

impl Taken {
    async fn read(tx: &mut MySqlConnection, waiting: &[Waiting]) -> Result<Self> {
        let mut taken = Self { users: HashMap::new(), emails: HashMap::new() };
        let news: Vec<&NewUser> = waiting.iter().filter_map(|waiting| waiting.new.as_ref().ok()).collect();
        if news.is_empty() {
            return Ok(taken);
        }
        let marks = placeholders(news.len(), 1);
        // One statement for each unique key: an OR over both reads the whole table.
        let query = format!(
            "SELECT username, email, id FROM users WHERE username IN ({marks})
             UNION SELECT username, email, id FROM users WHERE email IN ({marks})"
        );
        let mut query = sqlx::query(AssertSqlSafe(query));
        for new in &news {
            query = query.bind(&new.username);
        }
        for new in &news {
            query = query.bind(&new.email);
        }
        for row in query.fetch_all(tx).await? {
            taken.add(row.get(0), row.get(1), UserId(row.get(2)));
        }
        Ok(taken)
    }

    fn add(&mut self, username: String, email: String, id: UserId) {
        self.emails.insert(email.clone(), username.clone());
        self.users.insert(username, (email, id));
    }

    /// Whose record it is, and whether they are new.
    fn place(&mut self, new: &NewUser) -> std::result::Result<(UserId, bool), Refusal> {
        if let Some((email, id)) = self.users.get(&new.username) {
            if *email == new.email {
                return Ok((*id, false));
            }
            let message = format!("username: {:?} is taken, with another e-mail", new.user.username);
            return Err(Refusal::new(Code::Conflict, message));
        }
        if let Some(owner) = self.emails.get(&new.email) {
            return Err(Refusal::new(Code::Conflict, format!("email: it is the one of {owner:?}")));
        }
        self.add(new.username.clone(), new.email.clone(), new.user.id);
        Ok((new.user.id, true))
    }
}
