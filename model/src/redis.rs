//! Redis: who is interested in what, a stream and a lease for each incarnation; and its loss.

use std::collections::{BTreeMap, BTreeSet};

use crate::{gateway::Gateway, state::State};

/// One life of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation {
    pub gateway: u8,
    pub no: u8,
}

/// An entry of a stream: an event of the conversation by its seq, or of the user by their `user_seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub topic: u8,
    pub number: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Of the conversation, and of the user.
    pub interest: [BTreeSet<Incarnation>; 2],
    /// What was not read yet.
    pub streams: BTreeMap<Incarnation, Vec<Entry>>,
    pub leases: BTreeSet<Incarnation>,
    pub gateways: BTreeSet<Incarnation>,
}

/// What a restart loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The last entry of each stream.
    Entries,
    /// The interest sets.
    Interest,
}

impl Redis {
    /// A stream, then a lease, then a place in the set; the stream of the incarnation before goes, if it is known.
    pub fn enter(&mut self, incarnation: Incarnation, before: Option<Incarnation>) {
        self.streams.insert(incarnation, Vec::new());
        self.leases.insert(incarnation);
        self.gateways.insert(incarnation);
        if let Some(before) = before {
            self.streams.remove(&before);
        }
    }

    /// XADD; false: nil, there is no such stream.
    pub fn append(&mut self, incarnation: Incarnation, entry: Entry, makes_streams: bool) -> bool {
        match self.streams.get_mut(&incarnation) {
            Some(stream) => stream.push(entry),
            None if makes_streams => drop(self.streams.insert(incarnation, vec![entry])),
            None => return false,
        }
        true
    }

    /// The sweeper forgets an incarnation without a lease.
    pub fn sweep(&mut self, incarnation: Incarnation) {
        self.streams.remove(&incarnation);
        self.gateways.remove(&incarnation);
    }
}

impl State {
    /// Leases that nobody renews.
    pub fn abandoned_leases(&self) -> impl Iterator<Item = Incarnation> + '_ {
        let renewed = |lease: &Incarnation| {
            let gateway = &self.gateways[usize::from(lease.gateway)];
            gateway.live && gateway.incarnation == lease.no
        };
        self.redis.leases.iter().copied().filter(move |lease| !renewed(lease))
    }

    /// FLUSHALL: connections stay, everything is gone.
    pub fn flush_redis(&mut self) {
        self.redis = Redis::default();
    }

    /// Killed, and started again from what it had saved: all connections break, and the last writes are lost.
    pub fn restart_redis(&mut self, loss: Loss) {
        match loss {
            Loss::Entries => self.redis.streams.values_mut().for_each(|stream| {
                stream.pop();
            }),
            Loss::Interest => self.redis.interest.iter_mut().for_each(BTreeSet::clear),
        }
        self.gateways.iter_mut().for_each(Gateway::disconnected);
        self.executors.iter_mut().for_each(|executor| executor.redis_disconnected());
    }
}
