//! How far a partition is acknowledged: the offset that may be stored.
//!
//! The partition's executor moves it forward, after the writes of a batch were acknowledged; the poll thread reads it
//! and stores it. Nothing else decides what is committed.

use std::sync::atomic::{AtomicI64, Ordering};

const NONE: i64 = -1;

/// The next offset to read after a restart; it never moves backwards.
#[derive(Debug)]
pub struct Watermark {
    next: AtomicI64,
    stored: AtomicI64,
}

impl Default for Watermark {
    fn default() -> Self {
        Self { next: AtomicI64::new(NONE), stored: AtomicI64::new(NONE) }
    }
}

impl Watermark {
    /// Everything up to and including `offset` is where it has to be.
    pub fn acknowledge_through(&self, offset: i64) {
        self.next.fetch_max(offset + 1, Ordering::Release);
    }

    /// The next offset to read; `None` before the first acknowledgement.
    pub fn next(&self) -> Option<i64> {
        Some(self.next.load(Ordering::Acquire)).filter(|next| *next != NONE)
    }

    /// The next offset to read, if it was not stored yet.
    pub fn unstored(&self) -> Option<i64> {
        self.next().filter(|next| *next != self.stored.load(Ordering::Relaxed))
    }

    /// `next` was stored.
    pub fn mark_stored(&self, next: i64) {
        self.stored.fetch_max(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_stored_before_the_first_acknowledgement() {
        assert_eq!(Watermark::default().unstored(), None);
    }

    #[test]
    fn what_is_stored_is_the_offset_behind_the_last_acknowledged_one() {
        let watermark = Watermark::default();
        watermark.acknowledge_through(6);
        assert_eq!(watermark.unstored(), Some(7));
        watermark.mark_stored(7);
        assert_eq!(watermark.unstored(), None);
        watermark.acknowledge_through(9);
        assert_eq!(watermark.unstored(), Some(10));
    }

    #[test]
    fn it_never_moves_backwards() {
        let watermark = Watermark::default();
        watermark.acknowledge_through(9);
        watermark.acknowledge_through(3);
        assert_eq!(watermark.next(), Some(10));
    }
}
