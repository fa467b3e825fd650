//! MySQL: the conversation's row and its lock, message rows, outbox rows, memberships, the binlog.
//!
//! One conversation, so at most one transaction holds its row. A transaction is in the binlog, flushed, *before* it is
//! visible to other sessions and gives its lock back: that is the moment that locking reads are there for.

use crate::{
    core::Job,
    setup::{SeededBug, Setup},
};

/// No end.
pub const OPEN: u8 = u8::MAX;

/// Who sees what: see `visible`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Channel,
    Group,
}

/// What stands at a seq of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Created,
    Message(u8),
    Joined { user: u8, user_seq: u8 },
    Left { user: u8, user_seq: u8 },
}

/// A row of `messages`; `key` is its `client_message_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub message: u8,
    pub key: u8,
    pub seq: u8,
}

/// A membership: first and last seq, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval {
    pub joined: u8,
    pub left: u8,
    pub joined_user_seq: u8,
}

/// A record of the binlog that the connector streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    Conversation { seq: u8 },
    User { user_seq: u8 },
}

/// Whose session a transaction is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A core's writer.
    Writer(u8),
    /// A request of REST, which changes memberships.
    Request,
    /// COMMIT was sent by a core that is gone.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has the row's lock, and has written; nobody sees it.
    Locked,
    /// It is durable, and binlog readers have it; other sessions do not see it, and the lock is held.
    InBinlog,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    pub owner: Owner,
    pub phase: Phase,
    pub jobs: Vec<Job>,
    events: Vec<What>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    /// What stands at each seq from 1 on, as other sessions see it; its length is `last_seq`.
    pub events: Vec<What>,
    /// Which seqs have an outbox row, a bit for each.
    pub logged: u16,
    pub rows: Vec<Row>,
    /// By user.
    pub memberships: Vec<Vec<Interval>>,
    pub user_seqs: Vec<u8>,
    pub transaction: Option<Transaction>,
    pub binlog: Vec<Record>,
}

pub fn bit(seq: u8) -> u16 {
    1 << seq
}

impl Transaction {
    /// It holds the lock of the user's row.
    pub fn changes_user(&self, of: u8) -> bool {
        let changes = |what: &What| matches!(what, What::Joined { user, .. } | What::Left { user, .. } if *user == of);
        self.events.iter().any(changes)
    }
}

impl Database {
    /// A conversation whose CONVERSATION_CREATED was delivered long ago.
    pub fn new(setup: &Setup) -> Self {
        let first = Interval { joined: 1, left: OPEN, joined_user_seq: 1 };
        let of = |member: bool| if member { vec![first] } else { Vec::new() };
        Self {
            events: vec![What::Created],
            logged: bit(1),
            rows: Vec::new(),
            memberships: setup.clients.iter().map(|client| of(client.member)).collect(),
            user_seqs: vec![1; setup.clients.len()],
            transaction: None,
            binlog: Vec::new(),
        }
    }

    /// `last_seq` as other sessions see it.
    pub fn head(&self) -> u8 {
        self.events.len() as u8
    }

    /// The highest seq that is durable.
    pub fn durable_head(&self) -> u8 {
        self.head() + self.in_binlog().len() as u8
    }

    fn in_binlog(&self) -> &[What] {
        match &self.transaction {
            Some(transaction) if transaction.phase == Phase::InBinlog => &transaction.events,
            _ => &[],
        }
    }

    /// What stands at a durable seq.
    pub fn what(&self, seq: u8) -> What {
        let index = usize::from(seq) - 1;
        self.events.get(index).copied().unwrap_or_else(|| self.in_binlog()[index - self.events.len()])
    }

    /// Whether a locking read gets the row now, or has to wait.
    pub fn is_unlocked(&self) -> bool {
        self.transaction.is_none()
    }

    /// A writer takes the lock, looks up retries, takes seqs for what is new, and inserts.
    pub fn write(&mut self, owner: Owner, jobs: Vec<Job>) {
        let mut rows = Vec::new();
        let mut events = Vec::new();
        for job in &jobs {
            let known = self.rows.iter().chain(&rows).any(|row| row.key == job.key);
            if !known {
                events.push(What::Message(job.message));
                let seq = self.head() + events.len() as u8;
                rows.push(Row { message: job.message, key: job.key, seq });
            }
        }
        self.transaction = Some(Transaction { owner, phase: Phase::Locked, jobs, events, rows });
    }

    /// The same for a change of memberships: it takes a `user_seq` too.
    pub fn change(&mut self, what: What) {
        let (events, rows, jobs) = (vec![what], Vec::new(), Vec::new());
        self.transaction = Some(Transaction { owner: Owner::Request, phase: Phase::Locked, jobs, events, rows });
    }

    /// The transaction is flushed to the binlog.
    pub fn flush(&mut self, setup: &Setup) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.phase = Phase::InBinlog;
        for (no, what) in (1..).zip(&transaction.events) {
            match what {
                What::Message(_) if setup.has(SeededBug::OutboxRowOnItsOwn) => {}
                _ => self.binlog.push(Record::Conversation { seq: self.events.len() as u8 + no }),
            }
            if let What::Joined { user_seq, .. } | What::Left { user_seq, .. } = *what
                && !(setup.has(SeededBug::JoinWithoutUserSeq) && matches!(what, What::Joined { .. }))
            {
                self.binlog.push(Record::User { user_seq });
            }
        }
    }

    /// Everybody sees the transaction, and its lock is free. Says which seqs have no outbox row yet.
    pub fn show(&mut self, setup: &Setup) -> (Option<Transaction>, u16) {
        let Some(transaction) = self.transaction.take() else { return (None, 0) };
        let mut unlogged = 0;
        for what in &transaction.events {
            self.events.push(*what);
            let seq = self.head();
            match *what {
                What::Message(_) if setup.has(SeededBug::OutboxRowOnItsOwn) => unlogged |= bit(seq),
                _ => self.logged |= bit(seq),
            }
            match *what {
                What::Joined { user, user_seq } => {
                    let of_user = usize::from(user);
                    self.memberships[of_user].push(Interval { joined: seq, left: OPEN, joined_user_seq: user_seq });
                    if !setup.has(SeededBug::JoinWithoutUserSeq) {
                        self.user_seqs[of_user] = user_seq;
                    }
                }
                What::Left { user, user_seq } => {
                    if let Some(last) = self.memberships[usize::from(user)].last_mut() {
                        last.left = seq;
                    }
                    self.user_seqs[usize::from(user)] = user_seq;
                }
                What::Created | What::Message(_) => {}
            }
        }
        self.rows.extend(&transaction.rows);
        (Some(transaction), unlogged)
    }

    /// Nothing of the transaction is left, and its lock is free.
    pub fn roll_back(&mut self) -> Option<Transaction> {
        self.transaction.take()
    }

    /// The transaction behind the message row's, of the bug that splits them.
    pub fn insert_outbox_rows(&mut self, seqs: u16) {
        self.logged |= seqs;
        self.binlog.extend((1..16).filter(|seq| seqs & bit(*seq) != 0).map(|seq| Record::Conversation { seq }));
    }

    /// What a user may see, by memberships as other sessions see them.
    pub fn visible(&self, kind: Kind, user: u8) -> Vec<(u8, u8)> {
        visible(kind, &self.memberships[usize::from(user)])
    }

    /// The same by all that is durable: what must be true of a delivery.
    pub fn durably_visible(&self, kind: Kind, user: u8) -> Vec<(u8, u8)> {
        visible(kind, &self.durable_memberships(user))
    }

    /// What came while a user was a member, by all that is durable: what is promised.
    pub fn durably_owed(&self, user: u8) -> Vec<(u8, u8)> {
        visible(Kind::Group, &self.durable_memberships(user))
    }

    fn durable_memberships(&self, user: u8) -> Vec<Interval> {
        let mut intervals = self.memberships[usize::from(user)].clone();
        for (no, what) in (1..).zip(self.in_binlog()) {
            let seq = self.head() + no;
            match *what {
                What::Joined { user: joined, user_seq } if joined == user => {
                    intervals.push(Interval { joined: seq, left: OPEN, joined_user_seq: user_seq });
                }
                What::Left { user: left, .. } if left == user => {
                    if let Some(last) = intervals.last_mut() {
                        last.left = seq;
                    }
                }
                _ => {}
            }
        }
        intervals
    }

    /// Memberships that began behind that `user_seq` and are over.
    pub fn ended_since(&self, user: u8, user_seq: u8) -> Vec<Interval> {
        let of_user = self.memberships[usize::from(user)].iter();
        of_user.filter(|one| one.left != OPEN && one.joined_user_seq > user_seq).copied().collect()
    }

    /// The open membership.
    pub fn membership(&self, user: u8) -> Option<Interval> {
        self.memberships[usize::from(user)].last().copied().filter(|last| last.left == OPEN)
    }
}

/// Ascending ranges, ends included: in a channel all up to the end of the last membership, in a group one's own.
fn visible(kind: Kind, intervals: &[Interval]) -> Vec<(u8, u8)> {
    match kind {
        Kind::Channel => intervals.last().map(|last| (1, last.left)).into_iter().collect(),
        Kind::Group => intervals.iter().map(|interval| (interval.joined, interval.left)).collect(),
    }
}

/// The first visible seq above `seq`.
pub fn next_after(visible: &[(u8, u8)], seq: u8) -> Option<u8> {
    visible.iter().find(|(_, to)| *to > seq).map(|(from, _)| (*from).max(seq + 1))
}

/// Whether all from `seq` on is visible.
pub fn is_open_from(visible: &[(u8, u8)], seq: u8) -> bool {
    visible.last().is_some_and(|(from, to)| *to == OPEN && *from <= seq)
}
