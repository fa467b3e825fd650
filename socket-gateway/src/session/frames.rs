//! The server's frames of a session.

use std::{borrow::Cow, str};

use proto::rpc::v1::CreateMessageResponse;

use crate::{
    disconnect::ErrorFrame,
    hub::Head,
    refusal::Refusal,
    stomp::{AckMode, Verb, Version, Writer},
};

/// What this server calls itself in CONNECTED.
const SERVER: &str = concat!("switchboard/", env!("CARGO_PKG_VERSION"));

/// What a refusal was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub receipt: Option<String>,
    pub subscription: Option<String>,
    pub conversation: Option<i64>,
}

/// STOMP 1.0 knows no heart-beats.
pub fn connected(version: Version, session: &str, user: i64, heart_beat: (u32, u32)) -> String {
    let heart_beat = (version > Version::V1_0).then(|| format!("{},{}", heart_beat.0, heart_beat.1));
    Writer::new(Verb::Connected, version)
        .header("version", version.as_str())
        .header("session", session)
        .header("server", SERVER)
        .number("user-name", user)
        .header_if("heart-beat", heart_beat.as_deref())
        .text("")
}

pub fn receipt(version: Version, id: &str) -> String {
    Writer::new(Verb::Receipt, version).header("receipt-id", id).text("")
}

/// The RECEIPT of a committed SEND.
pub fn message_receipt(version: Version, id: &str, created: &CreateMessageResponse) -> String {
    let (conversation, seq) = (created.conversation_id, created.seq);
    Writer::new(Verb::Receipt, version)
        .header("receipt-id", id)
        .header("message-id", &format!("{conversation}-{seq}"))
        .number("message", created.message_id)
        .number("conversation-id", conversation)
        .number("seq", seq)
        .number("epoch", created.epoch)
        .text("")
}

/// A refusal, as a MESSAGE on the session's subscription to `/user/queue/errors`; `head` is that subscription's start
/// of a MESSAGE.
pub fn refusal(version: Version, head: &Head, no: u64, refusal: &Refusal, about: &About) -> String {
    let body = refusal.to_json();
    let headers = Writer::headers_only(version)
        .header("message-id", &format!("e-{no}"))
        .header("content-type", "application/json")
        .header("code", refusal.code.as_str())
        .header_if("receipt-id", about.receipt.as_deref())
        .header_if("subscription-id", about.subscription.as_deref())
        .header_if("conversation-id", about.conversation.map(|id| id.to_string()).as_deref())
        .text(&body);
    head.frame("", &headers)
}

pub fn error(version: Version, error: &ErrorFrame) -> String {
    let ErrorFrame { code, message, receipt, version: versions } = error;
    let headline: Cow<'_, str> = message.lines().next().unwrap_or_default().into();
    Writer::new(Verb::Error, version)
        .header_if("receipt-id", receipt.as_deref())
        .header_if("version", *versions)
        .header("code", code.as_str())
        .header("message", &headline)
        .header("content-type", "text/plain")
        .text(message)
}

/// The start of a subscription's MESSAGE frames: verb, subscription, destination, and in modes that acknowledge the ack
/// id, which begins with the subscription's number.
pub fn message_head(
    version: Version,
    subscription: Option<&str>,
    destination: &str,
    (ack, no): (AckMode, u32),
) -> Head {
    let head = Writer::new(Verb::Message, version)
        .header_if("subscription", subscription)
        .header("destination", destination)
        .into_head();
    let text = str::from_utf8(&head).expect("headers are text");
    if ack == AckMode::Auto { Head::plain(text) } else { Head::with_ack(text, no) }
}
