//! A core: the writer of the conversation, and the answers on their way to the gateway.

use crate::{
    database::{Owner, Phase},
    lane::Item,
    setup::{Change, Setup},
    state::State,
};

/// A message in a writer's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    pub message: u8,
    pub key: u8,
    /// Its stream is gone: nobody hears the answer.
    pub stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    pub key: u8,
    pub committed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Core {
    pub queue: Vec<Job>,
    /// So many at the front of the queue are tried one by one.
    pub singly: u8,
    /// The lane of the sender is closed by this message.
    pub closed_by: Option<u8>,
    pub answers: Vec<Answer>,
    /// Only with the bug that splits the transaction: seqs whose outbox rows are still to be inserted.
    pub unlogged: u16,
}

impl Core {
    /// A request of the stream: queued, or refused because its lane is closed.
    fn submit(&mut self, item: Item) {
        if let Some(closed_by) = self.closed_by {
            let in_flight = self.queue.iter().any(|job| !job.stale) || !self.answers.is_empty();
            // With nothing in flight and everything heard it opens by itself, in time.
            if closed_by != item.key && in_flight {
                return self.answers.push(Answer { key: item.key, committed: false });
            }
            self.closed_by = None;
        }
        self.queue.push(Job { message: item.message, key: item.key, stale: false });
    }

    /// What one transaction takes.
    fn take(&mut self, batch: u8) -> Vec<Job> {
        let count = if self.singly > 0 { 1 } else { self.queue.len().min(usize::from(batch)) };
        self.singly = self.singly.saturating_sub(1);
        self.queue.drain(..count).collect()
    }

    /// A transaction failed: several are tried one by one; one alone closes its lane, and those behind it fail unread.
    fn failed(&mut self, jobs: Vec<Job>) {
        if jobs.len() > 1 {
            self.singly = jobs.len() as u8;
            self.queue.splice(0..0, jobs);
            return;
        }
        for job in jobs {
            if !job.stale {
                self.closed_by = Some(job.key);
            }
            let (behind, others) = self.queue.drain(..).partition(|other: &Job| other.stale == job.stale);
            self.queue = others;
            self.singly = self.singly.min(self.queue.len() as u8);
            let failed = [job].into_iter().chain::<Vec<Job>>(behind).filter(|job| !job.stale);
            self.answers.extend(failed.map(|job| Answer { key: job.key, committed: false }));
        }
    }
}

impl State {
    pub fn submit(&mut self, core: u8, items: &[Item]) {
        for item in items {
            self.cores[usize::from(core)].submit(*item);
        }
    }

    pub fn may_write(&self, core: u8) -> bool {
        let core = &self.cores[usize::from(core)];
        self.database.is_unlocked() && !core.queue.is_empty() && core.unlogged == 0
    }

    pub fn write(&mut self, core: u8, setup: &Setup) {
        let jobs = self.cores[usize::from(core)].take(setup.batch);
        self.database.write(Owner::Writer(core), jobs);
    }

    pub fn change_membership(&mut self, change: Change) {
        let next = |user: u8, state: &Self| state.database.user_seqs[usize::from(user)] + 1;
        let what = match change {
            Change::Join { user } => crate::database::What::Joined { user, user_seq: next(user, self) },
            Change::Leave { user } => crate::database::What::Left { user, user_seq: next(user, self) },
        };
        self.database.change(what);
    }

    /// COMMIT is over: the core answers.
    pub fn show(&mut self, setup: &Setup) {
        let (Some(transaction), unlogged) = self.database.show(setup) else { return };
        match transaction.owner {
            Owner::Writer(core) => {
                let core = &mut self.cores[usize::from(core)];
                core.unlogged |= unlogged;
                let heard = transaction.jobs.iter().filter(|job| !job.stale);
                core.answers.extend(heard.map(|job| Answer { key: job.key, committed: true }));
            }
            Owner::Request => self.changes_made += 1,
            Owner::Nobody => {}
        }
        while !setup.lanes && !self.cores[0].answers.is_empty() {
            self.hear(0, setup);
        }
    }

    pub fn insert_outbox_rows(&mut self, core: u8) {
        let seqs = std::mem::take(&mut self.cores[usize::from(core)].unlogged);
        self.database.insert_outbox_rows(seqs);
    }

    pub fn hear(&mut self, core: u8, setup: &Setup) {
        let answer = self.cores[usize::from(core)].answers.remove(0);
        self.lane.answered(answer.key, answer.committed, setup);
    }

    /// Killed, and started again: what it had in memory is gone; MySQL rolls back what was not committed.
    pub fn crash_core(&mut self, core: u8, setup: &Setup) {
        self.cores[usize::from(core)] = Core::default();
        if let Some(transaction) = &mut self.database.transaction
            && transaction.owner == Owner::Writer(core)
        {
            match transaction.phase {
                Phase::Locked => drop(self.database.roll_back()),
                Phase::InBinlog => transaction.owner = Owner::Nobody,
            }
        }
        self.lane.stream_broke(core, setup);
    }

    /// What the core has taken goes on, but nobody hears of it.
    pub fn break_stream(&mut self, core: u8, setup: &Setup) {
        let writer = Owner::Writer(core);
        let at = &mut self.cores[usize::from(core)];
        at.answers.clear();
        at.closed_by = None;
        at.queue.iter_mut().for_each(|job| job.stale = true);
        if let Some(transaction) = &mut self.database.transaction
            && transaction.owner == writer
        {
            transaction.jobs.iter_mut().for_each(|job| job.stale = true);
        }
        self.lane.stream_broke(core, setup);
    }

    pub fn may_time_out(&self, core: u8) -> bool {
        let held = self.database.transaction.as_ref().is_some_and(|held| held.owner != Owner::Writer(core));
        held && !self.cores[usize::from(core)].queue.is_empty()
    }

    /// The row is held by somebody else for too long.
    pub fn time_out(&mut self, core: u8, setup: &Setup) {
        let core = &mut self.cores[usize::from(core)];
        let jobs = core.take(setup.batch);
        core.failed(jobs);
    }

    /// Recovery commits what is in the binlog and rolls back the rest; whoever waited for COMMIT knows nothing.
    pub fn crash_mysql(&mut self, setup: &Setup) {
        let Some(transaction) = &self.database.transaction else { return };
        let lost = match transaction.phase {
            Phase::Locked => self.database.roll_back(),
            Phase::InBinlog => self.database.show(setup).0,
        };
        let Some(transaction) = lost else { return };
        match transaction.owner {
            Owner::Writer(core) => self.cores[usize::from(core)].failed(transaction.jobs),
            Owner::Request if transaction.phase == Phase::InBinlog => self.changes_made += 1,
            Owner::Request | Owner::Nobody => {}
        }
    }
}
