//! Destinations: what a SEND or SUBSCRIBE names.

use proto::{Code, ConversationId};

use crate::refusal::Refusal;

/// What one may SEND to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendTo {
    Messages(i64),
    Typing(i64),
    Read(i64),
    Token,
    Resume,
}

/// What one may SUBSCRIBE to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Conversation(i64),
    /// Every event of every conversation of mine.
    UserEvents,
    Errors,
}

const SEND_TO: &str = "/app/conversations/{id}/messages, /app/conversations/{id}/typing, \
                       /app/conversations/{id}/read, /app/resume, /app/token";
const SUBSCRIBE_TO: &str = "/topic/conversations/{id}, /user/queue/events, /user/queue/errors";

impl SendTo {
    pub fn parse(destination: &str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = destination.split('/').collect();
        match parts[..] {
            ["", "app", "token"] => Ok(SendTo::Token),
            ["", "app", "resume"] => Ok(SendTo::Resume),
            ["", "app", "conversations", id, "messages"] => Ok(SendTo::Messages(conversation(destination, id)?)),
            ["", "app", "conversations", id, "typing"] => Ok(SendTo::Typing(conversation(destination, id)?)),
            ["", "app", "conversations", id, "read"] => Ok(SendTo::Read(conversation(destination, id)?)),
            _ => Err(unknown(destination, "SEND", SEND_TO)),
        }
    }
}

impl Topic {
    pub fn parse(destination: &str) -> Result<Self, Refusal> {
        match destination {
            "/user/queue/events" => return Ok(Topic::UserEvents),
            "/user/queue/errors" => return Ok(Topic::Errors),
            _ => {}
        }
        match destination.strip_prefix("/topic/conversations/") {
            Some(id) => Ok(Topic::Conversation(conversation(destination, id)?)),
            None => Err(unknown(destination, "SUBSCRIBE", SUBSCRIBE_TO)),
        }
    }
}

fn conversation(destination: &str, id: &str) -> Result<i64, Refusal> {
    let parsed: Result<ConversationId, _> = id.parse();
    parsed.map(|id| id.0).map_err(|error| {
        Refusal::new(Code::InvalidDestination, format!("{destination}: {id:?} is no conversation id: {error}"))
    })
}

fn unknown(destination: &str, command: &str, known: &str) -> Refusal {
    Refusal::new(Code::InvalidDestination, format!("{command} to {destination:?} is not served; served are {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_destinations_are_read() {
        assert_eq!(SendTo::parse("/app/conversations/7/messages"), Ok(SendTo::Messages(7)));
        assert_eq!(SendTo::parse("/app/conversations/7/typing"), Ok(SendTo::Typing(7)));
        assert_eq!(SendTo::parse("/app/token"), Ok(SendTo::Token));
        assert_eq!(Topic::parse("/topic/conversations/7"), Ok(Topic::Conversation(7)));
        assert_eq!(Topic::parse("/user/queue/events"), Ok(Topic::UserEvents));
    }

    #[test]
    fn others_are_refused_with_what_exists() {
        for destination in ["/app/conversations/7/edit", "/app", "", "/topic/conversations/7", "/app/conversations//x"]
        {
            let refusal = SendTo::parse(destination).unwrap_err();
            assert_eq!(refusal.code, Code::InvalidDestination);
            assert!(refusal.message.contains("/app/conversations/{id}/messages"), "{refusal}");
        }
        for destination in ["/user/queue/notifications", "/topic/presence/5", "/topic/workspaces/1/presence", "topic"] {
            assert!(Topic::parse(destination).unwrap_err().message.contains("/topic/conversations/{id}"));
        }
        for id in ["x", "", "0", "-1", "9223372036854775808", "7/8"] {
            let refusal = Topic::parse(&format!("/topic/conversations/{id}")).unwrap_err();
            assert_eq!(refusal.code, Code::InvalidDestination);
            assert!(refusal.message.contains("no conversation id"), "{refusal}");
        }
    }
}
