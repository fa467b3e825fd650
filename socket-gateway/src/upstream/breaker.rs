//! A breaker for each core, shared by calls and by SENDs: a core that was silent, or whose connection broke, is not asked
//! for a while where another can be.
//!
//! When the while is over, one try is let through, and nobody else until it is over too; any answer closes the breaker.
//! Where the stream of SENDs is down, that try is its opening, which goes on whatever the breaker says and costs nobody a
//! wait. With all breakers open nothing is kept back: that is as good a guess as any.

use std::{
    error::Error as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tonic::Status;
use tracing::{info, warn};

use crate::{config, metrics::Metrics};

/// Of one core.
#[derive(Debug, Default)]
struct Breaker {
    /// `None`: closed.
    open_until: Option<Instant>,
}

impl Breaker {
    fn holds_back(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    /// Where it is open and its time is over, a try that may last so long is let through.
    fn lets_through(&mut self, now: Instant, lasts: Duration) -> bool {
        if self.holds_back(now) {
            return false;
        }
        if let Some(until) = &mut self.open_until {
            *until = now + lasts;
        }
        true
    }

    /// Whether it was closed.
    fn open(&mut self, until: Instant) -> bool {
        self.open_until.replace(until).is_none()
    }

    /// Whether it was open.
    fn close(&mut self) -> bool {
        self.open_until.take().is_some()
    }
}

/// Of all cores, by their place in `core.endpoints`.
#[derive(Debug)]
pub struct Breakers {
    cores: Box<[Mutex<Breaker>]>,
    /// How long one is open after a failure.
    time: Duration,
    /// How long a try may last.
    try_time: Duration,
    metrics: Arc<Metrics>,
}

impl Breakers {
    pub fn new(config: &config::Core, metrics: &Arc<Metrics>) -> Self {
        Self {
            cores: config.endpoints.iter().map(|_| Mutex::default()).collect(),
            time: config.breaker_time,
            try_time: config.request_timeout,
            metrics: Arc::clone(metrics),
        }
    }

    /// Which of these to call next, as an index: the first that may be asked, or else the first.
    pub fn choose(&self, cores: &[usize]) -> usize {
        let now = Instant::now();
        cores.iter().position(|core| self.lock(*core).lets_through(now, self.try_time)).unwrap_or(0)
    }

    /// Whether a SEND for this core is better tried at another.
    pub fn holds_back(&self, core: usize) -> bool {
        let now = Instant::now();
        let holds_back = |core| self.lock(core).holds_back(now);
        holds_back(core) && !(0..self.cores.len()).all(holds_back)
    }

    pub fn is_closed(&self, core: usize) -> bool {
        self.lock(core).open_until.is_none()
    }

    /// A core is being tried and has not answered yet: nobody else waits for it, for as long as that may last.
    pub fn waiting(&self, core: usize) {
        self.open(core, self.try_time, "it takes its time");
    }

    /// A core was silent.
    pub fn timed_out(&self, core: usize) {
        self.open(core, self.time, "no answer in time");
    }

    /// A call failed. What the core itself says is an answer; what this side found has a cause.
    pub fn failed(&self, core: usize, status: &Status) {
        match status.source() {
            Some(_) => self.open(core, self.time, status.message()),
            None => self.answered(core),
        }
    }

    pub fn answered(&self, core: usize) {
        if self.lock(core).close() {
            info!(core, "core answers again");
        }
    }

    fn open(&self, core: usize, time: Duration, reason: &str) {
        if self.lock(core).open(Instant::now() + time) {
            self.metrics.breaker_opened(core);
            warn!(core, reason, "core does not answer: others are asked before it");
        }
    }

    fn lock(&self, core: usize) -> MutexGuard<'_, Breaker> {
        self.cores[core].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(2);
    const LASTS: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_lets_one_try_through_when_its_time_is_over() {
        let (mut breaker, began) = (Breaker::default(), Instant::now());
        assert!(breaker.lets_through(began, LASTS) && breaker.lets_through(began, LASTS));
        assert!(breaker.open(began + TIME));
        assert!(!breaker.open(began + TIME), "that is no other opening");
        assert!(!breaker.lets_through(began, LASTS));
        let over = began + TIME;
        assert!(breaker.lets_through(over, LASTS));
        assert!(breaker.holds_back(over) && !breaker.lets_through(over, LASTS), "one is being tried");
        // Of a try that was given up nothing is heard.
        assert!(breaker.lets_through(over + LASTS, LASTS));
        assert!(breaker.close());
        assert!(!breaker.close());
        assert!(breaker.lets_through(over + LASTS, LASTS) && breaker.lets_through(over + LASTS, LASTS));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_sends_leave_out_whose_breaker_is_open_but_never_all() {
        let mut config = config::tests::load(&[]).unwrap().core;
        config.endpoints = vec![String::new(); 3];
        let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
        let breakers = Breakers::new(&config, &metrics);
        assert_eq!(breakers.choose(&[1, 2, 0]), 0);
        breakers.timed_out(1);
        breakers.waiting(2);
        assert_eq!(breakers.choose(&[1, 2, 0]), 2);
        assert_eq!([0, 1, 2].map(|core| breakers.holds_back(core)), [false, true, true]);
        // What the core said itself; the second is what tonic makes of a connection that can't be made.
        breakers.failed(0, &Status::unavailable("the database is away"));
        assert!(breakers.is_closed(0));
        breakers.failed(0, &Status::from_error(Box::new(tonic::ConnectError("refused".into()))));
        assert_eq!(breakers.choose(&[1, 2, 0]), 0, "all are open");
        assert_eq!([0, 1, 2].map(|core| breakers.holds_back(core)), [false; 3]);
        breakers.answered(2);
        assert_eq!(breakers.choose(&[1, 2, 0]), 1);
        assert!(breakers.holds_back(1));
        tokio::time::advance(config.breaker_time).await;
        assert_eq!(breakers.choose(&[1, 2, 0]), 0);
        assert_eq!(breakers.choose(&[1, 2, 0]), 1, "one is being tried");
    }
}
