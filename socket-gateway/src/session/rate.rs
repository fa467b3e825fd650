//! A token bucket, and what is told of an empty one.

use std::time::Duration;

use proto::Code;
use tokio::time::Instant;

use crate::refusal::Refusal;

/// Refills at `per_second` up to `burst`.
#[derive(Debug)]
pub struct Bucket {
    tokens: f64,
    per_second: f64,
    burst: f64,
    at: Instant,
}

impl Bucket {
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self { tokens: f64::from(burst), per_second: f64::from(per_second), burst: f64::from(burst), at: now }
    }

    /// Takes one; else says how long until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
        }
    }
}

/// The answer to a frame for which there was no token, and which may come again after `wait`.
pub fn limited(message: String, wait: Duration) -> Refusal {
    let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
    Refusal::new(Code::RateLimited, message).retry_after_ms(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_taken_at_once_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 2, start);
        assert!(bucket.take(start).is_ok() && bucket.take(start).is_ok());
        assert_eq!(bucket.take(start), Err(Duration::from_millis(100)));
        assert!(bucket.take(start + Duration::from_millis(101)).is_ok());
    }
}
