//! Exponential back-off with full jitter.

use std::time::Duration;

use rand::Rng as _;

/// Delays between tries: each is drawn from zero to a bound that doubles up to a maximum.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, tries: 0 }
    }

    /// The delay before the next try; never under a tenth of its bound, so that a loop can't spin.
    pub fn next_delay(&mut self) -> Duration {
        let bound = self.base.saturating_mul(1 << self.tries.min(20)).min(self.max);
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(rand::rng().random_range(0.1..=1.0))
    }

    /// Starts from the base again, after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(80));
        for bound in [10, 20, 40, 80, 80] {
            let delay = backoff.next_delay();
            assert!(delay >= Duration::from_millis(bound / 10) && delay <= Duration::from_millis(bound), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(10));
    }
}
