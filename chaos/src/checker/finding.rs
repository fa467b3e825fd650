//! What the checker says is wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    AcknowledgedLost,
    StoredTwice,
    RefusedStored,
    NotSent,
    SendOrder,
    LogBroken,
    MembershipLost,
    Lost,
    Twice,
    Disorder,
    Gap,
    Start,
    NotRecovered,
    WrongContent,
    NotAMember,
    Late,
    NotBack,
    Lag,
    Leaked,
    TooLittle,
    BadHistory,
}

impl Kind {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 21] = [
        Self::AcknowledgedLost,
        Self::StoredTwice,
        Self::RefusedStored,
        Self::NotSent,
        Self::SendOrder,
        Self::LogBroken,
        Self::MembershipLost,
        Self::Lost,
        Self::Twice,
        Self::Disorder,
        Self::Gap,
        Self::Start,
        Self::NotRecovered,
        Self::WrongContent,
        Self::NotAMember,
        Self::Late,
        Self::NotBack,
        Self::Lag,
        Self::Leaked,
        Self::TooLittle,
        Self::BadHistory,
    ];

    /// The name that it has in `verdict.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AcknowledgedLost => "acknowledged_lost",
            Self::StoredTwice => "stored_twice",
            Self::RefusedStored => "refused_stored",
            Self::NotSent => "not_sent",
            Self::SendOrder => "send_order",
            Self::LogBroken => "log_broken",
            Self::MembershipLost => "membership_lost",
            Self::Lost => "lost",
            Self::Twice => "twice",
            Self::Disorder => "disorder",
            Self::Gap => "gap",
            Self::Start => "start",
            Self::NotRecovered => "not_recovered",
            Self::WrongContent => "wrong_content",
            Self::NotAMember => "not_a_member",
            Self::Late => "late",
            Self::NotBack => "not_back",
            Self::Lag => "lag",
            Self::Leaked => "leaked",
            Self::TooLittle => "too_little",
            Self::BadHistory => "bad_history",
        }
    }

    /// The promise, as a sentence.
    pub fn promise(self) -> &'static str {
        match self {
            Self::AcknowledgedLost => "A message whose RECEIPT was seen is stored, at the seq that the RECEIPT says.",
            Self::StoredTwice => "A message that is sent again with its client_message_id is stored once.",
            Self::RefusedStored => "A message that was refused for good is not stored.",
            Self::NotSent => "Every stored message was sent, with the content that was sent.",
            Self::SendOrder => {
                "Messages of one session to one conversation are committed in the order in which they were sent, and \
                 one that was sent after another was answered comes behind it."
            }
            Self::LogBroken => {
                "The seqs of a conversation have no gaps; every message has its event, and every event its row."
            }
            Self::MembershipLost => "A membership change that was answered is stored.",
            Self::Lost => "Every client of a member gets every event of the membership, live or by resuming.",
            Self::Twice => "No client gets an event twice on one subscription.",
            Self::Disorder => "Events of a conversation come in the order of their seq.",
            Self::Gap => "No event is passed over within a session.",
            Self::Start => {
                "RESUMED comes first on every subscription and conversation, and says where delivery starts."
            }
            Self::NotRecovered => "A client that resumes from what it was given is told recovered: true.",
            Self::WrongContent => "What is delivered is what was stored, byte for byte.",
            Self::NotAMember => "Nothing is shown to, or taken from, somebody who is no member.",
            Self::Late => "After a fault's end everything is with every connected client in time.",
            Self::NotBack => "Every client can come back and resume when the faults are over.",
            Self::Lag => "The consumers' lag goes back to zero.",
            Self::Leaked => {
                "Nothing stays in Redis of clients and gateways that are gone, nor in a gateway of clients that are gone."
            }
            Self::TooLittle => "The run has shown enough to say something.",
            Self::BadHistory => "The histories can be judged.",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A record of a client's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which client, as in [`Histories::clients`](crate::history::Histories).
    pub client: usize,
    /// Which of its records.
    pub record: usize,
}

/// One breach: what was seen, and where to look.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub kind: Kind,
    pub text: String,
    pub conversation: Option<i64>,
    /// The first one, where it is several.
    pub seq: Option<i64>,
    pub user: Option<i64>,
    pub subscription: Option<String>,
    pub client_message_id: Option<String>,
    pub place: Option<Place>,
}

impl Finding {
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            conversation: None,
            seq: None,
            user: None,
            subscription: None,
            client_message_id: None,
            place: None,
        }
    }

    pub fn conversation(self, conversation: i64) -> Self {
        Self { conversation: Some(conversation), ..self }
    }

    pub fn seq(self, seq: i64) -> Self {
        Self { seq: Some(seq), ..self }
    }

    pub fn user(self, user: i64) -> Self {
        Self { user: Some(user), ..self }
    }

    pub fn subscription(self, subscription: &str) -> Self {
        Self { subscription: Some(subscription.to_owned()), ..self }
    }

    pub fn client_message_id(self, id: &str) -> Self {
        Self { client_message_id: Some(id.to_owned()), ..self }
    }

    pub fn place(self, client: usize, record: usize) -> Self {
        Self { place: Some(Place { client, record }), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_finding_with_its_promise() {
        let page = include_str!("../../../docs/delivery.md");
        let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| `") && line.contains("` | ")).collect();
        let expected: Vec<String> =
            Kind::ALL.iter().map(|kind| format!("| `{}` | {} |", kind.name(), kind.promise())).collect();
        for line in &expected {
            assert!(listed.contains(&line.as_str()), "docs/delivery.md lacks: {line}");
        }
    }

    #[test]
    fn a_kind_has_one_name() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
        }
    }
}
