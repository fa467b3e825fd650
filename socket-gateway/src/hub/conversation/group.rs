//! Members: subscribers whose cursor is the conversation's position.

use std::sync::Arc;

use bytes::Bytes;
use proto::event::ResumedData;

use crate::{
    hub::{
        Head, Scope, SubscriptionKey,
        event::{Event, Kind},
    },
    metrics::{Dropped, Metrics},
    session::{self, Class, Outgoing, Pushed, Unflushed},
    stomp::{Version, Writer},
    transport::Encoding,
};

/// One subscriber.
#[derive(Debug)]
pub struct Member {
    pub key: SubscriptionKey,
    pub user: i64,
    pub scope: Scope,
    pub outgoing: Arc<Outgoing>,
}

/// Members by the start of their frames: those with equal heads share each encoded frame.
#[derive(Debug, Default)]
pub struct Groups(Vec<Group>);

#[derive(Debug)]
struct Group {
    head: Head,
    encoding: Encoding,
    members: Vec<Member>,
}

impl Groups {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, head: &Head, member: Member) {
        let encoding = member.outgoing.encoding();
        match self.0.iter_mut().find(|group| group.head == *head && group.encoding == encoding) {
            Some(group) => group.members.push(member),
            None => self.0.push(Group { head: head.clone(), encoding, members: vec![member] }),
        }
    }

    pub fn remove(&mut self, key: SubscriptionKey) {
        for group in &mut self.0 {
            if let Some(index) = group.members.iter().position(|member| member.key == key) {
                group.members.swap_remove(index);
                break;
            }
        }
        self.0.retain(|group| !group.members.is_empty());
    }

    /// Takes all members out, each with the start of its frames.
    pub fn drain(&mut self) -> impl Iterator<Item = (Head, Member)> + use<> {
        std::mem::take(&mut self.0)
            .into_iter()
            .flat_map(|Group { head, members, .. }| members.into_iter().map(move |member| (head.clone(), member)))
    }

    /// Queues the event for every member; says for how many. The subject of a USER_LEFT is a member no more.
    pub fn push(&mut self, conversation: i64, event: &Event, metrics: &Metrics, unflushed: &mut Unflushed) -> u64 {
        let mut queued = 0;
        for group in &mut self.0 {
            let frame = event.frame(&group.head, group.encoding);
            group.members.retain(|member| {
                let frame = if event.user_seq > 0 && member.user == event.subject {
                    event.frame_for_subject(&group.head, event.user_seq, group.encoding)
                } else {
                    frame.clone()
                };
                let note = group.head.acknowledges().then(|| delivered(member.key, conversation, event.seq));
                let pushed = member.outgoing.deliver(Class::Sequenced, frame, note, unflushed);
                queued += u64::from(pushed == Pushed::Queued);
                let left = event.kind == Kind::UserLeft && member.user == event.subject;
                if left {
                    member.outgoing.notify(session::Event::Ended {
                        subscription: member.key.subscription,
                        conversation,
                        at_seq: event.seq,
                        removed: true,
                    });
                }
                pushed != Pushed::Closed && !left
            });
        }
        self.0.retain(|group| !group.members.is_empty());
        metrics.deliveries.inc_by(queued);
        queued
    }

    pub fn push_unsequenced(&mut self, tail: &str, metrics: &Metrics, unflushed: &mut Unflushed) {
        for group in &self.0 {
            let frame = group.head.encoded("", tail, group.encoding);
            for member in &group.members {
                if member.outgoing.deliver(Class::Unsequenced, frame.clone(), None, unflushed) == Pushed::Dropped {
                    metrics.dropped(Dropped::QueueFull);
                }
            }
        }
    }

    pub fn push_resumed(&mut self, resumed: &ResumedData, epoch: i64) {
        for group in &self.0 {
            let frame = resumed_frame(&group.head, resumed, epoch, group.encoding);
            for member in &group.members {
                member.outgoing.push(Class::Control, frame.clone());
            }
        }
    }
}

/// What a session that acknowledges is told.
pub fn delivered(key: SubscriptionKey, conversation: i64, seq: i64) -> session::Event {
    session::Event::Delivered { subscription: key.subscription, conversation, seq }
}

/// A RESUMED event: made here, unsequenced, of the current epoch.
pub fn resumed_frame(head: &Head, resumed: &ResumedData, epoch: i64, encoding: Encoding) -> Bytes {
    let event_id = uuid::Uuid::now_v7().to_string();
    let event_type = proto::EventType::Resumed.as_str();
    let envelope = serde_json::json!({
        "type": event_type,
        "event_id": event_id,
        "epoch": epoch,
        "conversation_id": resumed.conversation_id,
        "at": at_now(),
        "data": resumed,
    });
    let tail = Writer::headers_only(Version::V1_2)
        .header("message-id", &format!("u-{event_id}"))
        .header("content-type", "application/json")
        .header("event-type", event_type)
        .header("event-id", &event_id)
        .number("conversation-id", resumed.conversation_id.0)
        .number("epoch", epoch)
        .text(&envelope.to_string());
    head.encoded("", &tail, encoding)
}

fn at_now() -> String {
    proto::event::format_time(std::time::SystemTime::now().into())
}
