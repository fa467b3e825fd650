//! An event as it is kept and delivered here: what delivery needs to know, and the part of its MESSAGE frame that is
//! the same for everyone.

use std::{ops::Range, str};

use bytes::Bytes;
use proto::{EventType, rpc::v1::LoggedEvent, stream_entry::StreamEntry};

use super::Head;
use crate::{
    stomp::{Version, Writer},
    transport::Encoding,
};

/// The event that makes memories of another be dropped.
const MESSAGE_DELETED: &str = "MESSAGE_DELETED";

/// What delivery treats specially.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The subject's membership ends here.
    UserLeft,
    /// The first event: to initial members it is their join.
    Created,
    /// The text of `target_seq` must not be remembered.
    Deleted,
    Other,
}

/// A sequenced event. `tail` is the MESSAGE frame from its `message-id` header on, NUL included; in front of it come
/// a subscriber's [`Head`], and `user-seq` for the subject.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub seq: i64,
    pub epoch: i64,
    pub kind: Kind,
    /// Who joined or left; 0: nobody.
    pub subject: i64,
    /// 0: none.
    pub target_seq: i64,
    /// The subject's `user_seq`; 0: none.
    pub user_seq: i64,
    tail: Box<str>,
}

/// A payload that is no text can't be delivered.
#[derive(Debug, thiserror::Error)]
#[error("the payload of {conversation}-{seq} is no UTF-8")]
pub struct NotText {
    pub conversation: i64,
    pub seq: i64,
}

impl Event {
    /// A live event; its header `epoch` is its own.
    pub fn live(conversation: i64, seq: i64, entry: &StreamEntry) -> Result<Self, NotText> {
        let r = &entry.routing;
        let numbers = [r.subject_id, r.target_seq, r.user_seq].map(Option::unwrap_or_default);
        Self::new(conversation, seq, (r.epoch, r.epoch), (&r.event_type, &r.event_id), numbers, &entry.payload)
    }

    /// An event of the log, delivered under the current epoch.
    pub fn logged(conversation: i64, epoch: i64, event: &LoggedEvent) -> Result<Self, NotText> {
        let numbers = [event.subject_id, event.target_seq, event.user_seq];
        let names = (event.r#type.as_str(), event.event_id.as_str());
        Self::new(conversation, event.seq, (event.epoch, epoch), names, numbers, &event.payload)
    }

    fn new(
        conversation: i64,
        seq: i64,
        (epoch, header_epoch): (i64, i64),
        (event_type, event_id): (&str, &str),
        [subject, target_seq, user_seq]: [i64; 3],
        payload: &[u8],
    ) -> Result<Self, NotText> {
        let body = str::from_utf8(payload).map_err(|_| NotText { conversation, seq })?;
        let tail = Writer::headers_only(Version::V1_2)
            .header("message-id", &format!("{conversation}-{seq}"))
            .header("content-type", "application/json")
            .header("event-type", event_type)
            .header("event-id", event_id)
            .number("conversation-id", conversation)
            .number("seq", seq)
            .number("epoch", header_epoch)
            .text(body);
        let kind = match EventType::from_wire(event_type) {
            Some(EventType::UserLeft) => Kind::UserLeft,
            Some(EventType::ConversationCreated) => Kind::Created,
            _ if event_type == MESSAGE_DELETED => Kind::Deleted,
            _ => Kind::Other,
        };
        Ok(Self { seq, epoch, kind, subject, target_seq, user_seq, tail: tail.as_str().into() })
    }

    /// The frame for subscribers with that head.
    pub fn frame(&self, head: &Head, encoding: Encoding) -> Bytes {
        head.encoded("", &self.tail, encoding)
    }

    /// The frame for the one whose memberships it changes.
    pub fn frame_for_subject(&self, head: &Head, user_seq: i64, encoding: Encoding) -> Bytes {
        head.encoded(&format!("user-seq:{user_seq}\n"), &self.tail, encoding)
    }

    /// What it costs to keep, bytes.
    pub fn size(&self) -> usize {
        self.tail.len() + size_of::<Self>()
    }
}

/// The frame's tail of an unsequenced event.
pub fn unsequenced_tail(entry: &StreamEntry) -> Option<Box<str>> {
    let body = str::from_utf8(&entry.payload).ok()?;
    let tail = Writer::headers_only(Version::V1_2)
        .header("message-id", &format!("u-{}", entry.routing.event_id))
        .header("content-type", "application/json")
        .header("event-type", &entry.routing.event_type)
        .header("event-id", &entry.routing.event_id)
        .text(body);
    Some(tail.as_str().into())
}

/// What one user may see of a conversation: ascending ranges of seqs; the last may be open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visible(Vec<Range<i64>>);

impl Visible {
    /// From ranges with ends included; an end of 0 is open.
    pub fn new(ranges: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let end = |to: i64| if to == 0 { i64::MAX } else { to + 1 };
        Self(ranges.into_iter().map(|(from, to)| from..end(to)).collect())
    }

    /// The first visible seq above `seq`.
    pub fn next_after(&self, seq: i64) -> Option<i64> {
        self.0.iter().find(|range| range.end > seq + 1).map(|range| range.start.max(seq + 1))
    }

    /// Whether all that comes from `seq` on is visible.
    pub fn is_open_from(&self, seq: i64) -> bool {
        self.0.last().is_some_and(|range| range.end == i64::MAX && range.start <= seq)
    }

    /// What between `after` (excluded) and `to` (included) is not visible, ends included.
    pub fn skipped(&self, after: i64, to: i64) -> Vec<[i64; 2]> {
        let mut skipped = Vec::new();
        let mut next = after + 1;
        for range in &self.0 {
            if range.end <= next {
                continue;
            }
            if range.start > next && next <= to {
                skipped.push([next, (range.start - 1).min(to)]);
            }
            next = range.end;
            if next > to {
                return skipped;
            }
        }
        if next <= to {
            skipped.push([next, to]);
        }
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visibility_is_a_union_of_intervals() {
        let visible = Visible::new([(3, 5), (9, 0)]);
        assert_eq!([0, 2, 3, 5, 8, 20].map(|seq| visible.next_after(seq)), [3, 3, 4, 9, 9, 21].map(Some));
        assert!(visible.is_open_from(9) && !visible.is_open_from(8));
        assert_eq!(visible.skipped(0, 12), [[1, 2], [6, 8]]);
        assert_eq!(visible.skipped(4, 7), [[6, 7]]);
        assert_eq!(visible.skipped(9, 12), Vec::<[i64; 2]>::new());
        let former = Visible::new([(1, 5)]);
        assert_eq!((former.next_after(4), former.next_after(5)), (Some(5), None));
        assert_eq!(former.skipped(3, 7), [[6, 7]]);
    }
}
