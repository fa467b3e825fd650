//! What pages of the event log may take in memory, those of all replays of this process together.
//!
//! A page that is read for clients that come back gets its room first, in the order asked, and waits while there is
//! none. The room is given back with the page.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    total: usize,
    page: u32,
}

/// The room of one page.
#[derive(Debug)]
pub struct Room {
    bytes: OwnedSemaphorePermit,
    total: usize,
}

impl Budget {
    /// `total` and `page` in bytes; a page is not above the total.
    pub fn new(total: usize, page: usize) -> Self {
        let page = u32::try_from(page.min(total)).unwrap_or(u32::MAX);
        Self { bytes: Arc::new(Semaphore::new(total)), total, page }
    }

    /// Room for a page of the full size.
    pub async fn room(&self) -> Room {
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.page).await.expect("it is never closed");
        Room { bytes, total: self.total }
    }
}

impl Room {
    /// The page takes so many bytes: the rest is free.
    pub fn keep(&mut self, bytes: usize) {
        drop(self.bytes.split(self.bytes.num_permits().saturating_sub(bytes)));
    }

    /// More than half of all there is, is taken.
    pub fn is_short(&self) -> bool {
        self.bytes.semaphore().available_permits() < self.total / 2
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_page_waits_for_room_and_gives_back_what_it_does_not_take() {
        let budget = Budget::new(1000, 400);
        let (mut first, second) = (budget.room().await, budget.room().await);
        assert!(first.is_short() && budget.room().now_or_never().is_none());
        first.keep(150);
        let third = budget.room().now_or_never().expect("150 + 400 + 400 are below 1000");
        drop((second, third));
        assert!(!first.is_short());
    }
}
