//! The JSON bodies of SENDs.

use std::{collections::HashMap, str};

use proto::{Code, ConversationId, MessageId};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::refusal::Refusal;

/// `/app/conversations/{id}/messages`. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
pub struct Message {
    pub body: String,
    pub client_message_id: Option<String>,
    pub thread_root_id: Option<MessageId>,
    #[serde(default)]
    pub attachment_ids: Vec<MessageId>,
    pub kind: Option<String>,
}

/// `/app/conversations/{id}/read`.
#[derive(Debug, Deserialize)]
pub struct Read {
    pub seq: i64,
    pub epoch: Option<i64>,
}

/// `/app/token`.
#[derive(Debug, Deserialize)]
pub struct Token {
    pub access_token: String,
}

/// `/app/resume`.
#[derive(Debug, Deserialize)]
pub struct Resume {
    #[serde(default)]
    pub conversations: HashMap<ConversationId, Position>,
    pub user_seq: Option<i64>,
}

/// How far a client has got in a conversation.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Position {
    pub seq: i64,
    pub epoch: Option<i64>,
}

/// Fields that name a sender.
const IDENTITY: [&str; 3] = ["sender_id", "user_id", "actor_id"];

/// Parses a JSON object; one that names another sender than `subject` is refused. An empty body is `{}`.
pub fn parse<T: DeserializeOwned>(body: &[u8], subject: i64) -> Result<T, Refusal> {
    let invalid = |message: String| Refusal::new(Code::InvalidBody, message);
    let body = if body.is_empty() { b"{}" } else { body };
    let value: Value =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the body is no JSON object: {error}")))?;
    let Value::Object(fields) = &value else {
        return Err(invalid("the body is JSON, but no object".to_owned()));
    };
    for name in IDENTITY {
        let named = match fields.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(id)) => id.clone(),
            Some(other) => other.to_string(),
        };
        check_sender(name, &named, subject)?;
    }
    T::deserialize(value).map_err(|error| invalid(format!("the body does not fit: {error}")))
}

/// Refuses a sender that is not the token's subject.
pub fn check_sender(place: &str, named: &str, subject: i64) -> Result<(), Refusal> {
    if named.parse() == Ok(subject) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::SpoofedSender,
        format!("{place} names {named:?}, but you are {subject}: leave it out, the sender is the token's subject"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> Code {
        parse::<Message>(body.as_bytes(), 5).unwrap_err().code
    }

    #[test]
    fn a_message_needs_a_body_and_may_have_unknown_fields() {
        let message: Message = parse(br#"{"body":"hi","later":1,"thread_root_id":"9","sender_id":"5"}"#, 5).unwrap();
        assert_eq!((message.body.as_str(), message.thread_root_id), ("hi", Some(MessageId(9))));
        for body in ["", "hello", "[]", "{}", r#"{"body":5}"#, r#"{"body":"x","thread_root_id":"no"}"#, "\u{0}"] {
            assert_eq!(code(body), Code::InvalidBody, "{body}");
        }
    }

    #[test]
    fn another_sender_in_the_body_is_refused() {
        assert_eq!(code(r#"{"body":"x","sender_id":"6"}"#), Code::SpoofedSender);
        assert_eq!(code(r#"{"body":"x","user_id":6}"#), Code::SpoofedSender);
        assert_eq!(code(r#"{"body":"x","actor_id":{}}"#), Code::SpoofedSender);
        assert!(parse::<Message>(br#"{"body":"x","sender_id":5,"user_id":null}"#, 5).is_ok());
    }

    #[test]
    fn a_resume_names_conversations_by_their_id() {
        let resume: Resume = parse(br#"{"conversations":{"7":{"seq":12,"epoch":1}},"user_seq":5}"#, 5).unwrap();
        assert_eq!(resume.conversations[&ConversationId(7)], Position { seq: 12, epoch: Some(1) });
        assert!(parse::<Resume>(br#"{"conversations":{"x":{"seq":12}}}"#, 5).is_err());
    }
}
