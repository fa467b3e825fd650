//! One line of an import and its answer.

use proto::{Code, ConversationId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    conversation::{Kind, Visibility},
    error::Refusal,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    User(User),
    Conversation(Conversation),
}

/// `{"user": {"username": "alice", "email": "alice@example.com"}}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub username: String,
    pub email: String,
    /// The username, when it is not given.
    pub display_name: Option<String>,
    /// argon2 in PHC form. Without one no password fits.
    pub password_hash: Option<String>,
}

/// `{"conversation": {"kind": "channel", "name": "general", "creator": "alice", "members": ["bob"]}}`; people by
/// their usernames.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    pub kind: Kind,
    /// Required unless it is a dm: it is what a second import finds the conversation by.
    pub name: Option<String>,
    pub visibility: Option<Visibility>,
    pub creator: String,
    #[serde(default)]
    pub members: Vec<String>,
}

/// What a record has become.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    User {
        user_id: UserId,
        username: String,
        /// False: was there before.
        created: bool,
    },
    Conversation {
        conversation_id: ConversationId,
        created: bool,
    },
}

/// One line of the answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Of the input, from 1.
    line: u64,
    #[serde(flatten)]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Answer {
    pub fn new(line: u64, outcome: Result<Outcome, Refusal>) -> Self {
        match outcome {
            Ok(outcome) => Self { line, outcome: Some(outcome), code: None, detail: None },
            Err(refusal) => {
                Self { line, outcome: None, code: Some(refusal.code.as_str()), detail: Some(refusal.message) }
            }
        }
    }
}

pub fn parse(line: &[u8]) -> Result<Record, Refusal> {
    serde_json::from_slice(line).map_err(|error| {
        Refusal::new(Code::InvalidBody, format!("expected {{\"user\": …}} or {{\"conversation\": …}}: {error}"))
    })
}
