//! The connector and Kafka: the binlog in order, at least once.

use crate::{database::Record, setup::Setup, state::State};

/// Topics, each with one partition here.
pub const CONVERSATION: usize = 0;
pub const USER: usize = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kafka {
    /// How much of the binlog was captured.
    pub captured: u8,
    /// Connect has stored this position or one behind it, up to `captured`: which, is chosen when somebody reads it.
    pub saved: u8,
    /// `chat.message.events`, by seq, and `chat.user.events`, by `user_seq`.
    pub topics: [Vec<u8>; 2],
}

impl State {
    /// Where nothing repeats, a record is in Kafka as soon as it is in the binlog: that it may be later, is seen by
    /// nobody but the worker, who may be late as well.
    pub fn capture_at_once(&mut self, setup: &Setup) {
        while setup.faults.connector_restart == 0 && self.may_capture() {
            self.capture();
        }
    }

    pub fn may_capture(&self) -> bool {
        usize::from(self.kafka.captured) < self.database.binlog.len()
    }

    pub fn capture(&mut self) {
        match self.database.binlog[usize::from(self.kafka.captured)] {
            Record::Conversation { seq } => self.kafka.topics[CONVERSATION].push(seq),
            Record::User { user_seq } => self.kafka.topics[USER].push(user_seq),
        }
        self.kafka.captured += 1;
    }

    /// It goes on from the position that was stored: a suffix is repeated.
    pub fn restart_connector(&mut self, stored: u8) {
        (self.kafka.saved, self.kafka.captured) = (stored, stored);
    }
}
