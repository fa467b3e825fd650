//! Frames to typed commands: what each needs is there, and nothing else is looked at again.

use bytes::Bytes;

use super::{Frame, Headers, Verb, Version};

/// Headers that name a sender; one that is not the token's subject is refused.
const IDENTITY_HEADERS: [&str; 5] = ["sender", "sender-id", "sender_id", "user-id", "user_id"];

/// A client's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Connect(Connect),
    Send(Send),
    Subscribe(Subscribe),
    /// By the subscription's id; in 1.0 by its destination where it has none.
    Unsubscribe {
        id: String,
        receipt: Option<String>,
    },
    Disconnect {
        receipt: Option<String>,
    },
    /// ACK, NACK, BEGIN, COMMIT, ABORT: known, but not served.
    Unserved {
        verb: Verb,
        receipt: Option<String>,
    },
}

/// CONNECT or STOMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    pub accept_version: Option<String>,
    /// The access token: of `Authorization: Bearer`, else the `passcode`.
    pub token: Option<String>,
    /// What the client can send and wants to get, milliseconds; 0: nothing.
    pub heart_beat: (u32, u32),
    pub device_id: Option<String>,
}

/// SEND.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub destination: String,
    pub body: Bytes,
    pub receipt: Option<String>,
    pub transaction: Option<String>,
    /// A sender that a header names.
    pub claimed_sender: Option<String>,
}

/// The `ack` header of SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    Auto,
    Client,
    ClientIndividual,
}

/// SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The client's id; in 1.0 the destination where it has none.
    pub id: String,
    /// False: 1.0 without an id; MESSAGE frames then have no `subscription` header.
    pub has_id: bool,
    pub destination: String,
    pub ack: AckMode,
    pub after_seq: Option<i64>,
    pub after_epoch: Option<i64>,
    pub receipt: Option<String>,
}

/// A breach of the protocol, with the receipt id of the frame for the ERROR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    pub message: String,
    pub receipt: Option<String>,
}

impl Command {
    /// Reads a frame of a client that speaks `version`.
    pub fn parse(frame: Frame, version: Version) -> Result<Self, CommandError> {
        let Frame { verb, mut headers, body } = frame;
        let receipt = headers.take("receipt");
        let fail = |message: String| CommandError { message, receipt: receipt.clone() };
        Ok(match verb {
            Verb::Connect | Verb::Stomp => Command::Connect(connect(headers).map_err(fail)?),
            Verb::Send => Command::Send(Send {
                destination: required(&mut headers, "destination", verb).map_err(fail)?,
                body,
                transaction: headers.take("transaction"),
                claimed_sender: IDENTITY_HEADERS.iter().find_map(|name| headers.take(name)),
                receipt,
            }),
            Verb::Subscribe => Command::Subscribe(subscribe(headers, version, receipt.clone()).map_err(fail)?),
            Verb::Unsubscribe => {
                let id = match headers.take("id") {
                    None if version == Version::V1_0 => required(&mut headers, "destination", verb),
                    id => id.ok_or_else(|| missing("id", verb)),
                };
                Command::Unsubscribe { id: id.map_err(fail)?, receipt }
            }
            Verb::Disconnect => Command::Disconnect { receipt },
            Verb::Ack | Verb::Nack | Verb::Begin | Verb::Commit | Verb::Abort => Command::Unserved { verb, receipt },
            Verb::Connected | Verb::Message | Verb::Receipt | Verb::Error => {
                return Err(fail(format!("{} is a server's frame", verb.as_str())));
            }
        })
    }
}

fn connect(mut headers: Headers) -> Result<Connect, String> {
    let heart_beat = match headers.get("heart-beat") {
        None => (0, 0),
        Some(text) => text
            .split_once(',')
            .and_then(|(sends, wants)| Some((sends.trim().parse().ok()?, wants.trim().parse().ok()?)))
            .ok_or_else(|| format!("heart-beat is {text:?}; expected two numbers of milliseconds, e.g. 10000,10000"))?,
    };
    let authorization = headers.take("Authorization").or_else(|| headers.take("authorization"));
    let bearer = authorization.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    Ok(Connect {
        accept_version: headers.take("accept-version"),
        token: bearer.or_else(|| headers.take("passcode")).filter(|token| !token.is_empty()),
        heart_beat,
        device_id: headers.take("device-id"),
    })
}

fn subscribe(mut headers: Headers, version: Version, receipt: Option<String>) -> Result<Subscribe, String> {
    let destination = required(&mut headers, "destination", Verb::Subscribe)?;
    let id = headers.take("id");
    if id.is_none() && version > Version::V1_0 {
        return Err(missing("id", Verb::Subscribe));
    }
    let ack = match headers.get("ack") {
        None | Some("auto") => AckMode::Auto,
        Some("client") => AckMode::Client,
        Some("client-individual") => AckMode::ClientIndividual,
        Some(other) => return Err(format!("ack is {other:?}; expected auto, client or client-individual")),
    };
    let number = |name: &str| match headers.get(name) {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(number) if number >= 0 => Ok(Some(number)),
            _ => Err(format!("{name} is {text:?}; expected a decimal number from 0 on")),
        },
    };
    Ok(Subscribe {
        after_seq: number("after-seq")?,
        after_epoch: number("after-epoch")?,
        has_id: id.is_some(),
        id: id.unwrap_or_else(|| destination.clone()),
        destination,
        ack,
        receipt,
    })
}

fn required(headers: &mut Headers, name: &str, verb: Verb) -> Result<String, String> {
    headers.take(name).ok_or_else(|| missing(name, verb))
}

fn missing(name: &str, verb: Verb) -> String {
    format!("{} needs the header {name}", verb.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(verb: Verb, headers: &[(&str, &str)], version: Version) -> Result<Command, CommandError> {
        let headers = headers.iter().copied().collect();
        Command::parse(Frame { verb, headers, body: Bytes::new() }, version)
    }

    fn fault(verb: Verb, headers: &[(&str, &str)]) -> CommandError {
        parse(verb, headers, Version::V1_2).unwrap_err()
    }

    #[test]
    fn the_token_is_the_bearer_or_the_passcode() {
        let token = |headers: &[(&str, &str)]| match parse(Verb::Connect, headers, Version::V1_2).unwrap() {
            Command::Connect(connect) => connect.token,
            other => panic!("{other:?}"),
        };
        assert_eq!(token(&[("Authorization", "Bearer abc"), ("passcode", "p")]).as_deref(), Some("abc"));
        assert_eq!(token(&[("Authorization", "Basic abc"), ("passcode", "p")]).as_deref(), Some("p"));
        assert_eq!(token(&[("passcode", "")]), None);
    }

    #[test]
    fn a_missing_or_wrong_header_is_named_with_the_receipt_of_the_frame() {
        let no_id = fault(Verb::Subscribe, &[("destination", "/x"), ("receipt", "r1")]);
        assert_eq!((no_id.message.as_str(), no_id.receipt.as_deref()), ("SUBSCRIBE needs the header id", Some("r1")));
        assert!(fault(Verb::Send, &[]).message.contains("destination"));
        assert!(fault(Verb::Unsubscribe, &[]).message.contains("id"));
        assert!(fault(Verb::Connect, &[("heart-beat", "10")]).message.contains("heart-beat"));
        let bad_seq = [("destination", "/x"), ("id", "1"), ("after-seq", "-2")];
        assert!(fault(Verb::Subscribe, &bad_seq).message.contains("after-seq"));
        assert!(fault(Verb::Subscribe, &[("destination", "/x"), ("id", "1"), ("ack", "no")]).message.contains("ack"));
        assert!(fault(Verb::Message, &[]).message.contains("server's frame"));
    }

    #[test]
    fn in_version_1_0_a_subscription_is_named_by_its_destination() {
        let Command::Subscribe(subscribe) = parse(Verb::Subscribe, &[("destination", "/x")], Version::V1_0).unwrap()
        else {
            panic!("expected SUBSCRIBE");
        };
        assert_eq!((subscribe.id.as_str(), subscribe.has_id), ("/x", false));
        let unsubscribe = parse(Verb::Unsubscribe, &[("destination", "/x")], Version::V1_0).unwrap();
        assert_eq!(unsubscribe, Command::Unsubscribe { id: "/x".into(), receipt: None });
    }
}
