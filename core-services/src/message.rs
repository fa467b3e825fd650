//! Messages: what may be sent, the writers that commit them in groups, and history.

pub mod acks;
pub mod batch;
pub mod lane;
pub mod pace;
pub mod store;
pub mod writer;

use chrono::{DateTime, Utc};
use proto::{Code, ConversationId, MessageId, UserId, rpc::v1};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    auth::tokens::Caller,
    config,
    error::{Result, refuse},
};

const MAX_CLIENT_MESSAGE_ID: usize = 128;
/// The kinds that people may send; "" means the first.
const KINDS: &[&str] = &["text"];

/// A message as history answers it.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    pub id: MessageId,
    pub conversation_id: ConversationId,
    pub seq: i64,
    pub message_no: i64,
    pub sender_id: UserId,
    pub kind: String,
    pub body: String,
    pub client_message_id: String,
    pub thread_root_id: Option<MessageId>,
    #[serde(serialize_with = "crate::rest::time")]
    pub created_at: DateTime<Utc>,
    pub deleted: bool,
}

/// A message that passed every check that needs no database.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub conversation: ConversationId,
    pub sender: UserId,
    pub body: String,
    pub kind: &'static str,
    pub client_message_id: String,
    pub thread_root: Option<MessageId>,
    pub traceparent: Option<String>,
    /// SHA-256 of the content: a retry must ask for the same.
    pub request_hash: [u8; 32],
    /// When the request was decoded, microseconds since the Unix epoch.
    pub received_us: i64,
}

/// A committed message, new or an exact retry's first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub id: MessageId,
    pub conversation: ConversationId,
    pub seq: i64,
    pub message_no: i64,
    pub created_at: DateTime<Utc>,
    pub client_message_id: String,
    pub epoch: i64,
    pub duplicate: bool,
}

/// Checks a request in the caller's name, before anything else is done with it.
pub fn validate(
    caller: &Caller,
    request: v1::CreateMessageRequest,
    limits: &config::Messages,
    metadata_traceparent: Option<&str>,
) -> Result<NewMessage> {
    let sender = sender(caller, request.sender_id)?;
    let Ok(conversation) = ConversationId::try_from(request.conversation_id) else {
        return refuse(Code::NotFound, format!("there is no conversation {}", request.conversation_id));
    };
    if request.body.is_empty() {
        return refuse(Code::InvalidBody, "body: expected text");
    }
    if request.body.len() > limits.max_body {
        let (is, limit) = (request.body.len(), limits.max_body);
        return refuse(Code::BodyTooLarge, format!("body: {is} bytes; at most {limit} are accepted"));
    }
    let kind = match request.kind.as_str() {
        "" => KINDS[0],
        asked => match KINDS.iter().find(|kind| **kind == asked) {
            Some(kind) => kind,
            None => return refuse(Code::InvalidBody, format!("kind: expected one of {KINDS:?}, got {asked:?}")),
        },
    };
    if !request.attachment_ids.is_empty() {
        return refuse(Code::InvalidBody, "attachment_ids: attachments are not accepted yet");
    }
    if request.client_message_id.len() > MAX_CLIENT_MESSAGE_ID {
        return refuse(Code::InvalidBody, format!("client_message_id: at most {MAX_CLIENT_MESSAGE_ID} bytes"));
    }
    let thread_root = match request.thread_root_id {
        0 => None,
        id => match MessageId::try_from(id) {
            Ok(id) => Some(id),
            Err(_) => return refuse(Code::NotFound, format!("thread_root_id: there is no message {id}")),
        },
    };
    let traceparent = Some(request.traceparent.as_str()).filter(|text| !text.is_empty()).or(metadata_traceparent);
    let traceparent = traceparent.filter(|text| is_traceparent(text)).map(str::to_owned);
    let request_hash = request_hash(kind, &request.body, request.thread_root_id);
    let client_message_id = match request.client_message_id {
        id if id.is_empty() => Uuid::now_v7().to_string(),
        id => id,
    };
    Ok(NewMessage {
        conversation,
        sender,
        body: request.body,
        kind,
        client_message_id,
        thread_root,
        traceparent,
        request_hash,
        received_us: chassis::now_us(),
    })
}

/// The sender is the token's subject; only a service with the scope may name another.
fn sender(caller: &Caller, named: i64) -> Result<UserId> {
    use proto::claims::{SCOPE_MESSAGES_WRITE, SCOPE_SEND_AS};
    if let Some(subject) = caller.claims.user_id() {
        caller.require(SCOPE_MESSAGES_WRITE)?;
        if named != 0 && named != subject.0 {
            return refuse(Code::SpoofedSender, format!("the token is {subject}'s; it can't send as {named}"));
        }
        return Ok(subject);
    }
    if !caller.claims.has_scope(SCOPE_SEND_AS) {
        return refuse(Code::SpoofedSender, format!("the token lacks the scope {SCOPE_SEND_AS}"));
    }
    match UserId::try_from(named) {
        Ok(user) => Ok(user),
        Err(_) => refuse(Code::InvalidBody, "sender_id: a service names the sender"),
    }
}

fn request_hash(kind: &str, body: &str, thread_root: i64) -> [u8; 32] {
    let mut hash = Sha256::new();
    // Lengths keep the parts apart.
    for part in [kind.as_bytes(), body.as_bytes(), &thread_root.to_be_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// W3C Trace Context, version 00: `00-<32 hex>-<16 hex>-<2 hex>`. Anything else is not passed on.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths = [2, 32, 16, 2];
    parts.len() == 4
        && parts.iter().zip(lengths).all(|(part, length)| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        })
}

impl Committed {
    /// The gRPC answer.
    pub fn into_response(self) -> v1::CreateMessageResponse {
        v1::CreateMessageResponse {
            message_id: self.id.0,
            conversation_id: self.conversation.0,
            seq: self.seq,
            message_no: self.message_no,
            created_at: Some(crate::grpc::timestamp(self.created_at)),
            client_message_id: self.client_message_id,
            duplicate: self.duplicate,
            epoch: self.epoch,
        }
    }
}

#[cfg(test)]
mod tests;
