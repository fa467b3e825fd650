//! Snowflake ids: 41 bits of milliseconds since 2025-01-01, 10 bits of node, 12 bits of counter.
//!
//! An identifier, never an order. Unique because the node id is leased with the milliseconds that its holder may use
//! (see [`crate::node_lease`]), and because time is never taken to run backwards: while a clock that stepped back catches
//! up, the counter goes on from the last millisecond that was used.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Between two looks whether a node id was leased.
const LEASE_POLL: Duration = Duration::from_millis(10);

/// 2025-01-01T00:00:00Z in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_735_689_600_000;
const NODE_BITS: u32 = 10;
const COUNTER_BITS: u32 = 12;
/// Ids of one millisecond.
const FULL: i64 = 1 << COUNTER_BITS;
/// How many nodes there can be.
pub const NODES: u16 = 1 << NODE_BITS;

/// No id can be given: this process holds no node id now.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no node id is leased")]
pub struct NoNode;

/// Gives ids while it holds a node id.
#[derive(Debug, Default)]
pub struct Snowflakes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    node: Option<Node>,
    /// The millisecond of the last id, and how many it gave.
    last_ms: i64,
    counter: i64,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    id: u16,
    valid_until_ms: i64,
}

impl Snowflakes {
    /// This process owns the milliseconds (Unix) above `after_ms` and below `valid_until_ms` of the node id; what it owned
    /// of the same one before stays its own, also when the clock stepped back since. Returns up to when it owns them now.
    pub fn lease(&self, id: u16, after_ms: i64, valid_until_ms: i64) -> i64 {
        let mut state = self.lock();
        let before = state.node.filter(|node| node.id == id).map_or(i64::MIN, |node| node.valid_until_ms);
        let valid_until_ms = valid_until_ms.max(before);
        state.node = Some(Node { id, valid_until_ms });
        if state.last_ms < after_ms {
            state.last_ms = after_ms;
            // As if the millisecond were full.
            state.counter = FULL - 1;
        }
        valid_until_ms
    }

    /// Waits until ids can be given, for so long.
    pub async fn leased(&self, limit: Duration) -> Result<(), NoNode> {
        let deadline = tokio::time::Instant::now() + limit;
        while self.lock().node.is_none() {
            if tokio::time::Instant::now() >= deadline {
                return Err(NoNode);
            }
            tokio::time::sleep(LEASE_POLL).await;
        }
        Ok(())
    }

    /// A new id.
    pub fn next(&self) -> Result<i64, NoNode> {
        self.next_at(chassis::now_us() / 1000)
    }

    fn next_at(&self, now_ms: i64) -> Result<i64, NoNode> {
        let mut state = self.lock();
        let (ms, counter) = match (now_ms > state.last_ms, state.counter + 1) {
            (true, _) => (now_ms, 0),
            // A full millisecond borrows the next one: at 4096 ids a millisecond the clock catches up by itself.
            (false, FULL) => (state.last_ms + 1, 0),
            (false, next) => (state.last_ms, next),
        };
        let node = state.node.filter(|node| now_ms.max(ms) < node.valid_until_ms).ok_or(NoNode)?;
        (state.last_ms, state.counter) = (ms, counter);
        let since = state.last_ms - EPOCH_MS;
        Ok(since << (NODE_BITS + COUNTER_BITS) | i64::from(node.id) << COUNTER_BITS | state.counter)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW: i64 = EPOCH_MS + 1_000_000;

    #[test]
    fn ids_are_unique_when_the_clock_stands_still_or_steps_back() {
        let ids = Snowflakes::default();
        ids.lease(7, 0, NOW + 60_000);
        let times = std::iter::repeat_n(NOW, 5000).chain(std::iter::repeat_n(NOW - 30_000, 5000)).chain([NOW + 1]);
        let given: Vec<i64> = times.map(|now| ids.next_at(now).unwrap()).collect();
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len());
        assert!(given.is_sorted());
        assert!(given.iter().all(|id| id >> COUNTER_BITS & 0x3ff == 7));
    }

    #[test]
    fn nothing_is_given_without_a_lease_or_after_its_end() {
        let ids = Snowflakes::default();
        assert_eq!(ids.next_at(NOW), Err(NoNode));
        ids.lease(1, 0, NOW + 10);
        assert!(ids.next_at(NOW + 9).is_ok());
        assert_eq!(ids.next_at(NOW + 10), Err(NoNode));
    }

    #[test]
    fn a_renewal_behind_a_step_of_the_clock_takes_nothing_away() {
        let ids = Snowflakes::default();
        ids.lease(7, 0, NOW + 28_000);
        let first = ids.next_at(NOW).unwrap();
        assert_eq!(ids.lease(7, 0, NOW - 32_000), NOW + 28_000);
        assert!(ids.next_at(NOW - 60_000).unwrap() > first);
        // Another node's milliseconds are others.
        assert_eq!(ids.lease(8, 0, NOW - 32_000), NOW - 32_000);
        assert_eq!(ids.next_at(NOW - 60_000), Err(NoNode));
    }

    #[test]
    fn only_the_milliseconds_of_the_lease_are_used() {
        let ids = Snowflakes::default();
        ids.lease(1, NOW, NOW + 2);
        let ms = |id: i64| (id >> (NODE_BITS + COUNTER_BITS)) + EPOCH_MS;
        // A clock behind that of the holder before.
        let given: Vec<i64> = std::iter::from_fn(|| ids.next_at(NOW - 5000).ok()).collect();
        assert_eq!(given.len(), 4096, "one millisecond's");
        assert!(given.iter().all(|id| ms(*id) == NOW + 1));
    }
}
