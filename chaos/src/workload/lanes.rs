//! What a client has to send: for each conversation a lane, so that what is sent again keeps its order.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// Before a message that was refused for a reason that passes is sent again.
const BACK_OFF: Duration = Duration::from_millis(300);

/// A message that has no answer yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub client_message_id: String,
    pub text: String,
    /// It was written to the current connection.
    sent: Option<Instant>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Outgoing>,
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct Lanes {
    lanes: BTreeMap<i64, Lane>,
}

impl Lanes {
    pub fn add(&mut self, conversation: i64, client_message_id: String, text: String) {
        let outgoing = Outgoing { client_message_id, text, sent: None };
        self.lanes.entry(conversation).or_default().waiting.push_back(outgoing);
    }

    /// Without an answer.
    pub fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.waiting.len()).sum()
    }

    /// What is to be written now, in order; it counts as written.
    pub fn take_due(&mut self, now: Instant) -> Vec<(i64, Outgoing)> {
        let mut due = Vec::new();
        for (conversation, lane) in &mut self.lanes {
            if lane.not_before.is_some_and(|from| now < from) {
                continue;
            }
            lane.not_before = None;
            for outgoing in lane.waiting.iter_mut().filter(|outgoing| outgoing.sent.is_none()) {
                outgoing.sent = Some(now);
                due.push((*conversation, outgoing.clone()));
            }
        }
        due
    }

    /// When something that was refused may be sent again.
    pub fn next_due(&self) -> Option<Instant> {
        self.lanes.values().filter_map(|lane| lane.not_before).min()
    }

    /// Since when the oldest one that was written has no answer.
    pub fn oldest(&self) -> Option<Instant> {
        self.lanes.values().flat_map(|lane| &lane.waiting).filter_map(|outgoing| outgoing.sent).min()
    }

    /// It was answered, and will not be sent again.
    pub fn done(&mut self, conversation: i64, client_message_id: &str) {
        if let Some(lane) = self.lanes.get_mut(&conversation) {
            lane.waiting.retain(|outgoing| outgoing.client_message_id != client_message_id);
        }
    }

    /// It was refused for a reason that passes: its lane waits, then it is sent again.
    pub fn again_later(&mut self, conversation: i64, client_message_id: &str, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&conversation) else { return };
        for outgoing in lane.waiting.iter_mut().filter(|one| one.client_message_id == client_message_id) {
            outgoing.sent = None;
        }
        lane.not_before = Some(now + BACK_OFF);
    }

    /// The connection is gone: everything has to be written again. Gives what had been.
    pub fn forget_connection(&mut self) -> Vec<(i64, String)> {
        let mut unanswered = Vec::new();
        for (conversation, lane) in &mut self.lanes {
            lane.not_before = None;
            for outgoing in &mut lane.waiting {
                if outgoing.sent.take().is_some() {
                    unanswered.push((*conversation, outgoing.client_message_id.clone()));
                }
            }
        }
        unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(due: &[(i64, Outgoing)]) -> Vec<&str> {
        due.iter().map(|(_, outgoing)| outgoing.client_message_id.as_str()).collect()
    }

    #[test]
    fn what_has_no_answer_is_sent_again_in_order_and_what_has_is_not() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for name in ["a", "b", "c"] {
            lanes.add(1, name.to_owned(), name.to_owned());
        }
        assert_eq!(names(&lanes.take_due(now)), ["a", "b", "c"]);
        assert!(lanes.take_due(now).is_empty());
        lanes.done(1, "b");
        assert_eq!(lanes.forget_connection().len(), 2);
        assert_eq!(names(&lanes.take_due(now)), ["a", "c"]);
    }

    #[test]
    fn behind_a_refused_one_its_lane_waits_and_others_go_on() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.add(1, "a".to_owned(), String::new());
        lanes.take_due(now);
        lanes.again_later(1, "a", now);
        lanes.add(1, "b".to_owned(), String::new());
        lanes.add(2, "c".to_owned(), String::new());
        assert_eq!(names(&lanes.take_due(now)), ["c"]);
        let later = lanes.next_due().unwrap();
        assert_eq!(names(&lanes.take_due(later)), ["a", "b"]);
    }
}
