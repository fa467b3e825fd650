//! The recent events of a conversation, without a gap, bounded in number, bytes and age.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::event::Event;

#[derive(Debug)]
pub struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
    /// What is at or below that seq was here at that time.
    aging: Option<(Instant, i64)>,
}

impl Ring {
    pub fn new(max_events: usize, max_bytes: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, max_events, max_bytes, aging: None }
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

    /// Drops what is older than `max_age`, before it is twice as old; to be called now and then. Events have no time of
    /// their own.
    pub fn age(&mut self, now: Instant, max_age: Duration) {
        if let Some((since, seq)) = self.aging {
            if now.duration_since(since) < max_age {
                return;
            }
            while self.first_seq().is_some_and(|first| first <= seq) {
                self.drop_first();
            }
            if self.events.is_empty() {
                self.clear();
            }
        }
        self.aging = self.events.back().map(|last| (now, last.seq));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64) -> Arc<Event> {
        Arc::new(Event::logged(7, 1, &proto::rpc::v1::LoggedEvent { seq, ..Default::default() }).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_kept_for_their_age_and_not_for_twice_as_long() {
        let (mut ring, age) = (Ring::new(100, 1 << 20), Duration::from_secs(60));
        // One a second, numbered by it.
        for second in 1..=200 {
            ring.push(event(second));
            ring.age(Instant::now(), age);
            assert!(ring.get((second - 59).max(1)).is_some() && ring.get(second - 120).is_none(), "at {second}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        for _ in 0..2 {
            tokio::time::advance(age).await;
            ring.age(Instant::now(), age);
        }
        assert_eq!((ring.first_seq(), ring.bytes), (None, 0));
        ring.push(event(500));
        assert_eq!(ring.first_seq(), Some(500));
    }
}
