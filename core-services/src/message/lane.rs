//! The order of one sender's messages to one conversation on one stream.
//!
//! After a retryable failure the messages behind it fail too, or a retry would come after them. So the messages of one
//! (sender, conversation) share a lane; a writer that fails one of them retryably closes the lane, and every later one
//! of it fails unread. The failed message, sent again, opens it: those behind it come after. For a sender that gives up
//! it opens by itself, [`REOPEN`] after the last of those in flight was answered: by then that answer was heard.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use proto::{ConversationId, UserId};

use crate::error::Refusal;

/// How long a closed lane stays closed behind its last answer when the failed message does not come again. Messages
/// refused meanwhile do not count, or one who goes on sending would never get through.
const REOPEN: Duration = Duration::from_secs(1);
/// Closed lanes that nobody came back to are cleared away when there are more.
const MAX_CLOSED: usize = 4096;

/// Whether messages of the lane are still taken. Shared by the messages in flight.
#[derive(Clone, Debug, Default)]
pub struct Lane(Arc<OnceLock<String>>);

impl Lane {
    /// This message failed retryably: those behind it must not overtake its retry.
    pub fn close(&self, client_message_id: &str) {
        self.0.get_or_init(|| client_message_id.to_owned());
    }

    pub fn is_closed(&self) -> bool {
        self.0.get().is_some()
    }
}

/// What a message behind a failed one is answered.
pub fn refusal() -> Refusal {
    Refusal::unavailable("a message before this one failed; send both again, in order")
}

/// The lanes of one stream.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<(UserId, ConversationId), Entry>,
}

#[derive(Debug)]
struct Entry {
    lane: Lane,
    in_flight: usize,
    last: Instant,
}

impl Lanes {
    /// One more in flight; `None` when its lane is closed: it is to be refused.
    pub fn enter(
        &mut self,
        sender: UserId,
        conversation: ConversationId,
        client_message_id: &str,
        now: Instant,
    ) -> Option<Lane> {
        if self.lanes.len() > MAX_CLOSED {
            self.lanes.retain(|_, entry| entry.in_flight > 0 || now.duration_since(entry.last) < REOPEN);
        }
        let fresh = || Entry { lane: Lane::default(), in_flight: 0, last: now };
        let entry = self.lanes.entry((sender, conversation)).or_insert_with(fresh);
        if let Some(failed) = entry.lane.0.get() {
            let retried = failed == client_message_id;
            let given_up = entry.in_flight == 0 && now.duration_since(entry.last) >= REOPEN;
            if !retried && !given_up {
                return None;
            }
            entry.lane = Lane::default();
        }
        entry.in_flight += 1;
        Some(entry.lane.clone())
    }

    /// One answered.
    pub fn leave(&mut self, sender: UserId, conversation: ConversationId, now: Instant) {
        if let Some(entry) = self.lanes.get_mut(&(sender, conversation)) {
            entry.in_flight -= 1;
            entry.last = now;
            if entry.in_flight == 0 && !entry.lane.is_closed() {
                self.lanes.remove(&(sender, conversation));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: UserId = UserId(1);
    const GENERAL: ConversationId = ConversationId(1);

    #[test]
    fn a_closed_lane_opens_for_the_message_that_closed_it() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let first = lanes.enter(ALICE, GENERAL, "m-1", now).unwrap();
        let second = lanes.enter(ALICE, GENERAL, "m-2", now).unwrap();
        first.close("m-1");
        second.close("m-2");
        assert!(lanes.enter(ALICE, ConversationId(2), "m-1", now).is_some(), "another conversation is another lane");
        for _ in 0..2 {
            lanes.leave(ALICE, GENERAL, now);
        }
        assert!(lanes.enter(ALICE, GENERAL, "m-3", now).is_none(), "sent before the failure was heard");
        assert!(lanes.enter(ALICE, GENERAL, "m-1", now).is_some());
        assert!(lanes.enter(ALICE, GENERAL, "m-2", now).is_some());
    }

    #[test]
    fn a_sender_that_gives_up_and_goes_on_sending_finds_the_lane_open_after_a_while() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let first = lanes.enter(ALICE, GENERAL, "m-1", now).unwrap();
        let second = lanes.enter(ALICE, GENERAL, "m-2", now).unwrap();
        first.close("m-1");
        assert!(second.is_closed());
        assert!(lanes.enter(ALICE, GENERAL, "m-3", now + REOPEN).is_none(), "two are in flight");
        lanes.leave(ALICE, GENERAL, now);
        lanes.leave(ALICE, GENERAL, now);
        assert!(lanes.enter(ALICE, GENERAL, "m-4", now + REOPEN / 2).is_none());
        assert!(lanes.enter(ALICE, GENERAL, "m-5", now + REOPEN).is_some());
    }
}
