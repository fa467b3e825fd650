//! The recent events of a conversation, without a gap, bounded in number and bytes.

use std::{collections::VecDeque, sync::Arc};

use super::event::Event;

#[derive(Debug)]
pub struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
}

impl Ring {
    pub fn new(max_events: usize, max_bytes: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, max_events, max_bytes }
    }

    /// Adds the next event; the oldest go when it is full.
    pub fn push(&mut self, event: Arc<Event>) {
        if self.events.back().is_some_and(|last| last.seq + 1 != event.seq) {
            self.clear();
        }
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > self.max_events || self.bytes > self.max_bytes {
            self.drop_first();
        }
    }

    pub fn get(&self, seq: i64) -> Option<&Arc<Event>> {
        let first = self.events.front()?.seq;
        self.events.get(usize::try_from(seq - first).ok()?)
    }

    /// The first seq that is kept.
    pub fn first_seq(&self) -> Option<i64> {
        self.events.front().map(|event| event.seq)
    }

    /// Drops every event with that `seq` or `target_seq`, and what is older than the last of them.
    pub fn forget(&mut self, seq: i64) {
        let keep_from = self.events.iter().rposition(|event| event.seq == seq || event.target_seq == seq);
        for _ in 0..keep_from.map_or(0, |index| index + 1) {
            self.drop_first();
        }
    }

    pub fn clear(&mut self) {
        self.events = VecDeque::new();
        self.bytes = 0;
    }

    fn drop_first(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.size();
        }
    }
}
