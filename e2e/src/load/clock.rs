//! One clock for what is sent and what is read: the monotonic one, told as microseconds since the Unix epoch so that
//! it can be compared with the stamps of other processes on this machine.

use std::time::{Duration, Instant};

/// Fixed at the start of a run; later steps of the wall clock don't show.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Instant,
    anchor_us: i64,
    start: Instant,
}

impl Clock {
    /// A clock whose schedule starts after `lead`.
    pub fn starting_in(lead: Duration) -> Self {
        let anchor = Instant::now();
        Self { anchor, anchor_us: chrono::Utc::now().timestamp_micros(), start: anchor + lead }
    }

    /// When the schedule starts.
    pub fn start(&self) -> Instant {
        self.start
    }

    pub fn now_us(&self) -> i64 {
        self.us(Instant::now())
    }

    pub fn us(&self, at: Instant) -> i64 {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        match at.checked_duration_since(self.anchor) {
            Some(span) => self.anchor_us + micros(span),
            None => self.anchor_us - micros(self.anchor - at),
        }
    }
}
