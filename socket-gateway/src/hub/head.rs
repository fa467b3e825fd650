//! The start of a subscriber's MESSAGE frames: what differs from one subscriber to the next.

use std::sync::Arc;

use bytes::Bytes;

use crate::transport::Encoding;

/// The first header of every tail; its value is also what an `ack` header ends with.
const MESSAGE_ID: &str = "message-id:";

/// Verb, subscription, destination; where messages are acknowledged also `ack:<number of the subscription>-`, which
/// each frame completes with its message id. Subscribers with equal heads share their encoded frames. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    text: Arc<str>,
    with_ack: bool,
}

impl Head {
    /// Of a subscription that acknowledges nothing; `text` ends with a whole line.
    pub fn plain(text: &str) -> Self {
        Self { text: text.into(), with_ack: false }
    }

    /// Of one that acknowledges by ids that begin with the number `no`; `text` ends with a whole line.
    pub fn with_ack(text: &str, no: u32) -> Self {
        Self { text: format!("{text}ack:{no}-").into(), with_ack: true }
    }

    /// The session wants to know what was queued for the subscription.
    pub fn acknowledges(&self) -> bool {
        self.with_ack
    }

    /// A frame: this, `more` header lines, and a tail that begins with its `message-id` and ends with the NUL.
    pub fn frame(&self, more: &str, tail: &str) -> String {
        self.parts(more, tail).concat()
    }

    /// The same, as it goes out.
    pub fn encoded(&self, more: &str, tail: &str, encoding: Encoding) -> Bytes {
        encoding.encode(&self.parts(more, tail))
    }

    fn parts<'a>(&'a self, more: &'a str, tail: &'a str) -> [&'a str; 4] {
        let ack = if self.with_ack { message_id_line(tail) } else { "" };
        [&self.text, ack, more, tail]
    }
}

/// The tail's message id with its line end.
fn message_id_line(tail: &str) -> &str {
    let end = tail.find('\n').map_or(tail.len(), |end| end + 1);
    tail.get(MESSAGE_ID.len()..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "message-id:7-12\nseq:12\n\n{}\0";

    #[test]
    fn an_ack_header_is_the_number_of_the_subscription_and_the_message_id() {
        let text = "MESSAGE\nsubscription:a\n";
        assert_eq!(Head::plain(text).frame("", TAIL), format!("{text}{TAIL}"));
        assert_eq!(Head::with_ack(text, 3).frame("x:1\n", TAIL), format!("{text}ack:3-7-12\nx:1\n{TAIL}"));
    }

    #[test]
    fn heads_are_equal_where_their_frames_are() {
        assert_eq!(Head::with_ack("M\n", 3), Head::with_ack("M\n", 3));
        assert_ne!(Head::with_ack("M\n", 3), Head::with_ack("M\n", 4));
        assert_ne!(Head::plain("M\nack:3-"), Head::with_ack("M\n", 3));
    }
}
