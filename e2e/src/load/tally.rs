//! What all users' tasks write down while a run lasts.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

/// Counters for the progress, and the stamps of each message by its number.
#[derive(Debug)]
pub struct Tally {
    pub sent: AtomicUsize,
    pub acknowledged: AtomicUsize,
    pub refused: AtomicUsize,
    pub delivered: AtomicUsize,
    /// Deliveries that the acknowledged messages promise.
    pub expected: AtomicUsize,
    /// When each message was written, microseconds since the Unix epoch; 0: not yet.
    pub sent_us: Box<[AtomicI64]>,
    /// When each RECEIPT was read.
    pub acknowledged_us: Box<[AtomicI64]>,
    /// The seq of each RECEIPT.
    pub seqs: Box<[AtomicI64]>,
    /// What went wrong besides: refusals, connections that ended. At most [`MAX_COMPLAINTS`].
    complaints: Mutex<Vec<String>>,
}

/// Complaints that are kept; the counters know how many there were.
const MAX_COMPLAINTS: usize = 20;

impl Tally {
    pub fn new(messages: usize) -> Self {
        let stamps = || (0..messages).map(|_| AtomicI64::new(0)).collect();
        Self {
            sent: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            delivered: AtomicUsize::new(0),
            expected: AtomicUsize::new(0),
            sent_us: stamps(),
            acknowledged_us: stamps(),
            seqs: stamps(),
            complaints: Mutex::default(),
        }
    }

    pub fn complain(&self, text: String) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < MAX_COMPLAINTS {
            complaints.push(text);
        }
    }

    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The schedule was sent and answered, and what that promises has come.
    pub fn is_complete(&self) -> bool {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let answered = count(&self.acknowledged) + count(&self.refused);
        answered == self.sent_us.len() && count(&self.delivered) >= count(&self.expected)
    }
}
