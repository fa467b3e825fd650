//! When a writer begins its next transaction: at once while little comes, else at a steady pace.
//!
//! A transaction costs the database, the connector, the broker and the workers much the same whether it holds one
//! message or thirty. Waiting makes batches, but whoever sends one message has no use for it: so a writer waits only
//! when its messages come so fast that the wait would bring several. The rate is that of the last few batches.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;

/// How much of the estimate is the latest batch.
const WEIGHT: f64 = 0.25;

/// The pace of one writer.
#[derive(Debug)]
pub struct Pace {
    config: config::Pace,
    /// When the latest transaction began.
    began: Option<Instant>,
    /// Messages a second, averaged.
    rate: f64,
}

impl Pace {
    pub fn new(config: config::Pace) -> Self {
        Self { config, began: None, rate: 0.0 }
    }

    /// Until when to let more come, if `waiting` messages wait now; `None`: begin at once.
    pub fn wait(&self, waiting: usize, now: Instant) -> Option<Instant> {
        let interval = self.config.interval;
        let due = self.began? + interval;
        let expected = self.rate * interval.as_secs_f64();
        let loaded = expected.max(waiting as f64) >= f64::from(self.config.from_messages);
        (loaded && now < due).then_some(due)
    }

    /// A transaction with so many messages begins.
    pub fn began(&mut self, messages: usize, now: Instant) {
        if let Some(before) = self.began {
            // Within less than a millisecond nothing can be told about a rate.
            let since = now.saturating_duration_since(before).max(Duration::from_millis(1));
            self.rate += WEIGHT * (messages as f64 / since.as_secs_f64() - self.rate);
        }
        self.began = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace() -> Pace {
        Pace::new(config::Pace { interval: 10 * MS, from_messages: 4 })
    }

    #[tokio::test]
    async fn who_sends_little_never_waits() {
        let (mut pace, mut now) = (pace(), Instant::now());
        for _ in 0..100 {
            assert_eq!(pace.wait(1, now), None);
            pace.began(1, now);
            now += 5 * MS;
        }
    }

    #[tokio::test]
    async fn under_load_transactions_begin_at_the_interval() {
        let (mut pace, mut now) = (pace(), Instant::now());
        pace.began(1, now);
        // Three messages each 3 ms.
        for _ in 0..20 {
            now += 3 * MS;
            pace.began(3, now);
        }
        assert_eq!(pace.wait(3, now + 3 * MS), Some(now + 10 * MS));
        assert_eq!(pace.wait(3, now + 11 * MS), None, "the transaction itself took that long");
    }

    #[tokio::test]
    async fn the_load_is_forgotten_when_it_ends() {
        let (mut pace, mut now) = (pace(), Instant::now());
        for _ in 0..20 {
            pace.began(30, now);
            now += 10 * MS;
        }
        let mut waits = 0;
        for _ in 0..50 {
            now += 5 * MS;
            waits += u32::from(pace.wait(1, now).is_some());
            pace.began(1, now);
        }
        assert!(waits < 12, "{waits}");
    }
}
