//! Events that came before those in front of them: they wait for the gap to be filled.

use std::{collections::BTreeMap, sync::Arc};

use super::{Stamp, event::Event};

/// Bounded in bytes: over the bound an event is dropped, and read again from the log.
#[derive(Debug)]
pub struct Pending {
    events: BTreeMap<i64, (Arc<Event>, Stamp)>,
    bytes: usize,
    max_bytes: usize,
}

impl Pending {
    pub fn new(max_bytes: usize) -> Self {
        Self { events: BTreeMap::new(), bytes: 0, max_bytes }
    }

    /// Keeps the event; of two with one seq, the one of the newer epoch. False when there is no room.
    pub fn insert(&mut self, event: Arc<Event>, stamp: Stamp) -> bool {
        if self.events.get(&event.seq).is_some_and(|(there, _)| there.epoch >= event.epoch) {
            return true;
        }
        if self.bytes + event.size() > self.max_bytes {
            return false;
        }
        self.bytes += event.size();
        if let Some((older, _)) = self.events.insert(event.seq, (event, stamp)) {
            self.bytes -= older.size();
        }
        true
    }

    pub fn first_seq(&self) -> Option<i64> {
        self.events.keys().next().copied()
    }

    pub fn last_seq(&self) -> Option<i64> {
        self.events.keys().next_back().copied()
    }

    pub fn pop_first(&mut self) -> Option<(Arc<Event>, Stamp)> {
        let (_, (event, stamp)) = self.events.pop_first()?;
        self.bytes -= event.size();
        Some((event, stamp))
    }

    /// Drops the events with `above < seq <= up_to`; says how many.
    pub fn drop_range(&mut self, above: i64, up_to: i64) -> u64 {
        let before = self.events.len();
        self.events.retain(|seq, _| *seq <= above || *seq > up_to);
        self.bytes = self.events.values().map(|(event, _)| event.size()).sum();
        (before - self.events.len()) as u64
    }

    pub fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }
}
