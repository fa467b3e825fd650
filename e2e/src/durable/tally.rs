//! What a run counts, and the tag by which a delivery is told from others.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::time::Instant;

/// The start of every client message id of a run; the due time follows, in microseconds since [`origin`].
pub const TAG: &str = "durable-";

/// Counters and samples, shared by all tasks.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: AtomicUsize,
    pub created: AtomicUsize,
    pub refused: AtomicUsize,
    pub delivered: AtomicUsize,
    /// The first refusal, for people.
    pub complaint: OnceLock<String>,
    /// What is due before is not sampled, in microseconds since [`origin`].
    from_us: OnceLock<i64>,
    answers: Mutex<Vec<i64>>,
    deliveries: Mutex<Vec<i64>>,
}

/// The zero of all times of this process.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// A time as a number.
pub fn us(at: Instant) -> i64 {
    i64::try_from(at.saturating_duration_since(origin()).as_micros()).unwrap_or(i64::MAX)
}

impl Tally {
    /// Samples what is due from then on.
    pub fn measure_from(&self, at: Instant) {
        let _ = self.from_us.set(us(at));
    }

    /// One message was answered.
    pub fn answered(&self, created: bool, due_us: i64, now_us: i64) {
        if created {
            self.created.fetch_add(1, Ordering::Relaxed);
            self.sample(&self.answers, due_us, &[now_us - due_us]);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Some arrived: their due times.
    pub fn arrived(&self, due_us: &[i64], now_us: i64) {
        self.delivered.fetch_add(due_us.len(), Ordering::Relaxed);
        let mut samples = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        let from = self.from_us.get().copied().unwrap_or(i64::MAX);
        samples.extend(due_us.iter().filter(|due| **due >= from).map(|due| now_us - due));
    }

    fn sample(&self, into: &Mutex<Vec<i64>>, due_us: i64, samples: &[i64]) {
        if self.from_us.get().is_some_and(|from| due_us >= *from) {
            into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(samples);
        }
    }

    /// Deliveries that created messages still owe.
    pub fn undelivered(&self, per_message: usize) -> usize {
        let owed = self.created.load(Ordering::Relaxed) * per_message;
        owed.saturating_sub(self.delivered.load(Ordering::Relaxed))
    }

    pub fn take_answers(&self) -> Vec<i64> {
        std::mem::take(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn take_deliveries(&self) -> Vec<i64> {
        std::mem::take(&mut self.deliveries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
