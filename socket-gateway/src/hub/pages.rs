//! Pages of the event log that the followers of one conversation have in common.
//!
//! A page stays while it is used: one that nobody needed between two ticks is dropped, and while the budget is short
//! only the latest is kept. Who still needs an older one has it read again.

use std::sync::Arc;

use super::{budget::Room, event::Event};
use crate::metrics::Metrics;

#[derive(Debug, Default)]
pub struct Pages(Vec<Page>);

/// Events in order, at least one; a seq may be missing.
#[derive(Debug)]
struct Page {
    events: Vec<Arc<Event>>,
    readers: usize,
    used: bool,
    _room: Option<Room>,
}

impl Page {
    fn first(&self) -> i64 {
        self.events.first().map_or(i64::MAX, |event| event.seq)
    }

    fn last(&self) -> i64 {
        self.events.last().map_or(0, |event| event.seq)
    }
}

impl Pages {
    pub fn add(&mut self, events: Vec<Arc<Event>>, room: Option<Room>) {
        if room.as_ref().is_some_and(Room::is_short) {
            self.0.clear();
        }
        if !events.is_empty() {
            self.0.push(Page { events, readers: 0, used: true, _room: room });
        }
    }

    /// An event, if a page has it. `within`: the last seq of the page that its reader was in, and is in now.
    pub fn get(&mut self, seq: i64, within: &mut i64, metrics: &Metrics) -> Option<Arc<Event>> {
        let page = self.0.iter_mut().find(|page| page.first() <= seq && seq <= page.last())?;
        let index = page.events.binary_search_by_key(&seq, |event| event.seq).ok()?;
        page.used = true;
        if seq > *within {
            *within = page.last();
            page.readers += 1;
            if page.readers > 1 {
                metrics.log_pages_shared.inc();
            }
        }
        page.events.get(index).cloned()
    }

    /// The lowest seq above `seq` with which a page begins.
    pub fn first_above(&self, seq: i64) -> Option<i64> {
        self.0.iter().map(Page::first).filter(|first| *first > seq).min()
    }

    /// Drops what nobody has needed since the last tick.
    pub fn tick(&mut self) {
        self.0.retain_mut(|page| std::mem::take(&mut page.used));
        if self.0.is_empty() {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }
}
