//! The order of one session's SENDs: the gateway's side of a retry.

use crate::setup::{SeededBug, Setup};

/// A SEND that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    pub message: u8,
    pub key: u8,
    pub in_flight: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    Flowing,
    /// Something failed: what is in flight is awaited.
    Failing,
    BackingOff,
}

/// The lane of the one sender, and what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    pub items: Vec<Item>,
    pub flow: Flow,
    /// Which core.
    pub core: u8,
    /// Messages given to the gateway so far.
    pub sent: u8,
    /// Messages whose RECEIPT was seen, a bit for each.
    pub acknowledged: u16,
    /// Keys made for retries.
    fresh: u8,
}

impl Lane {
    pub fn new() -> Self {
        Self { items: Vec::new(), flow: Flow::Flowing, core: 0, sent: 0, acknowledged: 0, fresh: 0 }
    }

    /// The next message; what is to be submitted.
    pub fn push(&mut self) -> Option<Item> {
        let (message, in_flight) = (self.sent, self.flow == Flow::Flowing);
        self.sent += 1;
        let item = Item { message, key: message, in_flight };
        self.items.push(item);
        in_flight.then_some(item)
    }

    pub fn answered(&mut self, key: u8, committed: bool, setup: &Setup) {
        let Some(index) = self.items.iter().position(|item| item.key == key && item.in_flight) else { return };
        if committed {
            self.acknowledged |= 1 << self.items[index].message;
            self.items.remove(index);
        } else {
            self.items[index].in_flight = false;
            self.flow = Flow::Failing;
        }
        self.settle(setup);
    }

    /// The stream to a core broke: all in flight there fail.
    pub fn stream_broke(&mut self, core: u8, setup: &Setup) {
        if self.core != core || self.items.iter().all(|item| !item.in_flight) {
            return;
        }
        self.items.iter_mut().for_each(|item| item.in_flight = false);
        self.flow = Flow::Failing;
        self.settle(setup);
    }

    fn settle(&mut self, setup: &Setup) {
        if self.flow != Flow::Failing || self.items.iter().any(|item| item.in_flight) {
            return;
        }
        self.core = (self.core + 1) % setup.cores;
        self.flow = if self.items.is_empty() { Flow::Flowing } else { Flow::BackingOff };
    }

    /// All again, in order, to the next core.
    pub fn retry(&mut self, setup: &Setup) -> Vec<Item> {
        self.flow = Flow::Flowing;
        for item in &mut self.items {
            item.in_flight = true;
            if setup.has(SeededBug::FreshMessageId) {
                self.fresh += 1;
                item.key = setup.messages + self.fresh;
            }
        }
        self.items.clone()
    }

    /// The session is gone with its gateway; the client sends again what it saw no RECEIPT of, with the same keys.
    pub fn session_lost(&mut self) {
        self.items.clear();
        self.flow = Flow::Flowing;
        self.sent = self.acknowledged.trailing_ones() as u8;
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self::new()
    }
}
