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
    Ack(Ack),
    Begin(Transaction),
    Commit(Transaction),
    Abort(Transaction),
    Disconnect {
        receipt: Option<String>,
    },
}

/// CONNECT or STOMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The access token: of `Authorization: Bearer`, else the `passcode`.
    pub token: Option<String>,
    /// What the client can send and wants to get, milliseconds; 0: nothing.
    pub heart_beat: (u32, u32),
    pub device_id: Option<String>,
    /// CONNECT gets no RECEIPT, but its ERROR names the one that it asked for.
    pub receipt: Option<String>,
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

impl Send {
    /// About what it costs to keep, bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.destination.len() + self.body.len() + self.receipt.as_ref().map_or(0, String::len)
    }
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

/// ACK or NACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// False: NACK.
    pub positive: bool,
    pub of: AckOf,
    pub transaction: Option<String>,
    pub receipt: Option<String>,
}

/// The message that an ACK or NACK is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckOf {
    /// 1.2: the `ack` header of the MESSAGE.
    Id(String),
    /// 1.1 and 1.0, where the subscription may be left out.
    Message { message_id: String, subscription: Option<String> },
}

/// BEGIN, COMMIT or ABORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub id: String,
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
    /// The receipt that it asks for.
    pub fn receipt(&self) -> Option<&String> {
        match self {
            Command::Connect(Connect { receipt, .. })
            | Command::Send(Send { receipt, .. })
            | Command::Subscribe(Subscribe { receipt, .. })
            | Command::Unsubscribe { receipt, .. }
            | Command::Ack(Ack { receipt, .. })
            | Command::Begin(Transaction { receipt, .. })
            | Command::Commit(Transaction { receipt, .. })
            | Command::Abort(Transaction { receipt, .. })
            | Command::Disconnect { receipt } => receipt.as_ref(),
        }
    }

    /// Reads a frame of a client that speaks `version`.
    pub fn parse(frame: Frame, version: Version) -> Result<Self, CommandError> {
        let Frame { verb, mut headers, body } = frame;
        let receipt = headers.take("receipt");
        let fail = |message: String| CommandError { message, receipt: receipt.clone() };
        // STOMP 1.1 and 1.2: of a client's frames only SEND may have a body. 1.0 ignores what others have.
        if verb != Verb::Send && !body.is_empty() && version > Version::V1_0 {
            return Err(fail(format!("{} has a body, which only SEND may have", verb.as_str())));
        }
        Ok(match verb {
            Verb::Connect | Verb::Stomp => Command::Connect(connect(headers, receipt.clone()).map_err(fail)?),
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
            Verb::Nack if version == Version::V1_0 => return Err(fail("STOMP 1.0 has no NACK".to_owned())),
            Verb::Ack | Verb::Nack => Command::Ack(Ack {
                positive: verb == Verb::Ack,
                of: ack_of(&mut headers, version, verb).map_err(fail)?,
                transaction: headers.take("transaction"),
                receipt,
            }),
            Verb::Begin | Verb::Commit | Verb::Abort => {
                let id = required(&mut headers, "transaction", verb).map_err(fail)?;
                let transaction = Transaction { id, receipt };
                match verb {
                    Verb::Begin => Command::Begin(transaction),
                    Verb::Commit => Command::Commit(transaction),
                    _ => Command::Abort(transaction),
                }
            }
            Verb::Connected | Verb::Message | Verb::Receipt | Verb::Error => {
                return Err(fail(format!("{} is a server's frame", verb.as_str())));
            }
        })
    }
}

/// A 1.0 client may pad values; and nobody knows yet whether it is one.
fn connect(mut headers: Headers, receipt: Option<String>) -> Result<Connect, String> {
    let heart_beat = match headers.get("heart-beat") {
        None => (0, 0),
        Some(text) => text
            .split_once(',')
            .and_then(|(sends, wants)| Some((sends.trim().parse().ok()?, wants.trim().parse().ok()?)))
            .ok_or_else(|| format!("heart-beat is {text:?}; expected two numbers of milliseconds, e.g. 10000,10000"))?,
    };
    let authorization = headers.take("Authorization").or_else(|| headers.take("authorization"));
    let bearer = authorization.and_then(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    Ok(Connect {
        token: bearer
            .or_else(|| headers.take("passcode"))
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty()),
        heart_beat,
        device_id: headers.take("device-id"),
        receipt,
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

fn ack_of(headers: &mut Headers, version: Version, verb: Verb) -> Result<AckOf, String> {
    if version == Version::V1_2 {
        return required(headers, "id", verb).map(AckOf::Id);
    }
    let message_id = required(headers, "message-id", verb)?;
    let subscription = headers.take("subscription");
    if subscription.is_none() && version > Version::V1_0 {
        return Err(missing("subscription", verb));
    }
    Ok(AckOf::Message { message_id, subscription })
}

fn required(headers: &mut Headers, name: &str, verb: Verb) -> Result<String, String> {
    headers.take(name).ok_or_else(|| missing(name, verb))
}

fn missing(name: &str, verb: Verb) -> String {
    format!("{} needs the header {name}", verb.as_str())
}

#[cfg(test)]
mod tests;
