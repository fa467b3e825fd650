//! The fanout worker: for each partition a batch is taken, interest read, entries appended, the offset stored.

use crate::{
    redis::{Entry, Incarnation},
    setup::{SeededBug, Setup},
    state::State,
};

/// A batch at work: records from an offset up to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    from: u8,
    to: u8,
    /// Who is interested, once that was read.
    audience: Option<Vec<Incarnation>>,
    /// Writes that Redis has acknowledged.
    written: u8,
}

/// A partition, and who works on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Executor {
    /// Kafka has stored this offset for the group or one behind it, up to the watermark: which, is chosen when
    /// somebody reads it.
    pub stored: u8,
    /// The next offset that the owner reads.
    pub next: u8,
    pub batch: Option<Batch>,
    /// What a worker still holds that lost the partition without knowing.
    pub late: Option<Batch>,
}

impl Batch {
    fn writes(&self) -> u8 {
        self.audience.as_ref().map_or(0, |audience| (self.to - self.from) * audience.len() as u8)
    }

    fn is_written(&self) -> bool {
        self.audience.is_some() && self.written == self.writes()
    }
}

impl Executor {
    /// What was on its way is tried again from the start.
    pub fn redis_disconnected(&mut self) {
        for batch in [&mut self.batch, &mut self.late].into_iter().flatten() {
            batch.audience = None;
            batch.written = 0;
        }
    }

    pub fn reads_interest(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.audience.is_none())
    }

    pub fn appends(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.audience.is_some())
    }

    pub fn appends_late(&self) -> bool {
        self.late.as_ref().is_some_and(|batch| batch.audience.is_some())
    }

    /// Everything before this offset was acknowledged.
    pub fn watermark(&self, setup: &Setup) -> u8 {
        match &self.batch {
            Some(batch) if !setup.has(SeededBug::OffsetBeforeXadd) => batch.from,
            _ => self.next,
        }
    }

    fn done(&mut self) {
        if self.batch.as_ref().is_some_and(Batch::is_written) {
            self.batch = None;
        }
        if self.late.as_ref().is_some_and(Batch::is_written) {
            self.late = None;
        }
    }

    /// The owner is killed: the next one reads from the stored offset.
    pub fn crash(&mut self, stored: u8) {
        self.batch = None;
        (self.stored, self.next) = (stored, stored);
    }

    /// The owner is paused, and the group gives the partition away; it may still write what it holds.
    pub fn moved(&mut self, stored: u8) {
        self.late = self.batch.take();
        (self.stored, self.next) = (stored, stored);
    }

    /// The first record of the batch can't be decoded: it goes to the dead letters.
    pub fn bury(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.from += 1;
            if batch.from == batch.to {
                self.batch = None;
            }
        }
    }
}

impl State {
    pub fn may_take(&self, topic: usize) -> bool {
        let executor = &self.executors[topic];
        executor.batch.is_none() && usize::from(executor.next) < self.kafka.topics[topic].len()
    }

    pub fn take_batch(&mut self, topic: usize, setup: &Setup) {
        let executor = &mut self.executors[topic];
        let from = executor.next;
        let to = (self.kafka.topics[topic].len() as u8).min(from + setup.batch);
        executor.batch = Some(Batch { from, to, audience: None, written: 0 });
        executor.next = to;
    }

    pub fn read_interest(&mut self, topic: usize) {
        let executor = &mut self.executors[topic];
        if let Some(batch) = &mut executor.batch {
            batch.audience = Some(self.redis.interest[topic].iter().copied().collect());
        }
        executor.done();
    }

    /// The next XADD; the last one acknowledges the batch.
    pub fn append(&mut self, topic: usize, late: bool, setup: &Setup) {
        let executor = &mut self.executors[topic];
        let batch = if late { &mut executor.late } else { &mut executor.batch };
        let Some(batch) = batch else { return };
        let Some(audience) = &batch.audience else { return };
        let of = |index: u8| usize::from(index);
        let record = batch.from + batch.written / audience.len() as u8;
        let to = audience[of(batch.written) % audience.len()];
        let entry = Entry { topic: topic as u8, number: self.kafka.topics[topic][of(record)] };
        if !self.redis.append(to, entry, setup.has(SeededBug::XaddMakesStreams)) {
            self.redis.interest[topic].remove(&to);
        }
        batch.written += 1;
        executor.done();
    }
}
