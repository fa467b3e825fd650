//! What was sent and what came, for all clients; and from that, when delivery was normal.
//!
//! Messages are numbered from 0 in the order in which they are due. All times are µs of one clock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::history::Clock;

/// Complaints that are kept for people.
const COMPLAINTS: usize = 10;

/// What counts as late, and for how long nothing may be late before delivery counts as normal.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub bound: u64,
    pub quiet: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub due: u64,
    /// Members who don't have it yet.
    missing: usize,
    /// The last delivery so far.
    last: u64,
    /// As the RECEIPT or the first delivery said.
    seq: Option<i64>,
    answered: Option<u64>,
}

impl Message {
    /// When the last member got it; `None` while one has not.
    pub fn arrived(&self) -> Option<u64> {
        (self.missing == 0).then_some(self.last)
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// The gateway where it is subscribed.
    pub gateway: Option<usize>,
    /// Since when.
    pub since: u64,
}

/// What must not be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Faults {
    /// Deliveries of a seq that this client had.
    pub duplicates: u64,
    /// Deliveries before which one was left out.
    pub gaps: u64,
    /// Messages with two seqs: stored twice, or another one than the RECEIPT said.
    pub two_seqs: u64,
    /// Resumptions that were not answered with `recovered: true` from where the client was.
    pub not_recovered: u64,
    /// SENDs that were refused for good.
    pub refused: u64,
    /// Messages that were not answered, or not delivered to everybody.
    pub lost: u64,
}

impl Faults {
    pub fn are_none(&self) -> bool {
        let Self { duplicates, gaps, two_seqs, not_recovered, refused, lost } = self;
        [duplicates, gaps, two_seqs, not_recovered, refused, lost].into_iter().all(|count| *count == 0)
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    pub sent: u64,
    pub acknowledged: u64,
    pub expected: u64,
    pub delivered: u64,
}

#[derive(Debug, Default)]
struct Books {
    messages: Vec<Message>,
    seats: Vec<Seat>,
    totals: Totals,
    faults: Faults,
    complaints: Vec<String>,
    /// How often an attempt was refused for a reason that passes, by code.
    put_off: BTreeMap<String, u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    clock: Clock,
    books: Mutex<Books>,
}

impl Ledger {
    pub fn new(clock: Clock) -> Self {
        Self { clock, books: Mutex::default() }
    }

    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message is due at that time, for so many members; gives its number.
    pub fn add(&self, due: u64, members: usize) -> usize {
        let mut books = self.books();
        books.messages.push(Message { due, missing: members, last: 0, seq: None, answered: None });
        books.totals.sent += 1;
        books.totals.expected += members as u64;
        books.messages.len() - 1
    }

    /// Seats for so many more clients; gives the number of the first.
    pub fn add_seats(&self, count: usize) -> usize {
        let mut books = self.books();
        let first = books.seats.len();
        books.seats.resize(first + count, Seat::default());
        first
    }

    pub fn sit(&self, seat: usize, gateway: Option<usize>) {
        let since = self.now();
        self.books().seats[seat] = Seat { gateway, since };
    }

    pub fn seats(&self) -> Vec<Seat> {
        self.books().seats.clone()
    }

    /// The RECEIPT of a SEND was read.
    pub fn answered(&self, message: usize, seq: i64) {
        let now = self.now();
        let mut books = self.books();
        books.check_seq(message, seq);
        if let Some(message) = books.messages.get_mut(message)
            && message.answered.is_none()
        {
            message.answered = Some(now);
            books.totals.acknowledged += 1;
        }
    }

    /// A member has read it, who had not before: clients see to that by `seq`.
    pub fn delivered(&self, message: usize, seq: i64) {
        let now = self.now();
        let mut books = self.books();
        if !books.check_seq(message, seq) {
            return;
        }
        books.totals.delivered += 1;
        if let Some(message) = books.messages.get_mut(message) {
            message.missing = message.missing.saturating_sub(1);
            message.last = now;
        }
    }

    pub fn put_off(&self, code: &str) {
        *self.books().put_off.entry(code.to_owned()).or_default() += 1;
    }

    /// Counts a fault, and keeps what is said of it if it is one of the first.
    pub fn complain(&self, which: impl FnOnce(&mut Faults) -> &mut u64, text: String) {
        self.books().complain(which, text);
    }

    pub fn totals(&self) -> Totals {
        self.books().totals
    }

    /// What went wrong, in numbers and, the first of it, in words.
    pub fn faults(&self) -> (Faults, Vec<String>) {
        let books = self.books();
        (books.faults.clone(), books.complaints.clone())
    }

    /// Refusals that pass, by code, since the last time this was asked.
    pub fn take_put_off(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.books().put_off)
    }

    /// The first message that was not answered, or is not with everybody.
    pub fn first_open(&self) -> usize {
        let books = self.books();
        let open = |message: &Message| message.missing > 0 || message.answered.is_none();
        books.messages.iter().position(open).unwrap_or(books.messages.len())
    }

    pub fn len(&self) -> usize {
        self.books().messages.len()
    }

    /// Messages from `first` to before `end`, as they are now.
    pub fn messages(&self, first: usize, end: usize) -> Vec<Message> {
        let books = self.books();
        let end = end.min(books.messages.len());
        books.messages[first.min(end)..end].to_vec()
    }

    pub fn normal_again(&self, first: usize, from: u64, watched: u64, rule: Rule) -> Option<u64> {
        normal_again(&self.books().messages[first..], from, watched, rule)
    }

    /// Everything that was sent and has not come, or got no answer, is lost.
    pub fn close(&self) {
        let mut books = self.books();
        let lost: Vec<usize> = (books.messages.iter().enumerate())
            .filter(|(_, message)| message.missing > 0 || message.answered.is_none())
            .map(|(number, _)| number)
            .collect();
        for number in lost {
            let message = books.messages[number];
            let text = format!("message {number} was due at {:.1} s: {message:?}", message.due as f64 / 1e6);
            books.complain(|faults| &mut faults.lost, text);
        }
    }
}

impl Books {
    /// Whether it is the only seq of that message so far.
    fn check_seq(&mut self, number: usize, seq: i64) -> bool {
        let known = self.messages.get_mut(number).map(|message| *message.seq.get_or_insert(seq));
        if known == Some(seq) {
            return true;
        }
        self.complain(|faults| &mut faults.two_seqs, format!("message {number} has seq {seq} and seq {known:?}"));
        false
    }

    fn complain(&mut self, which: impl FnOnce(&mut Faults) -> &mut u64, text: String) {
        *which(&mut self.faults) += 1;
        if self.complaints.len() < COMPLAINTS {
            self.complaints.push(text);
        }
    }
}

/// The last late delivery after `from`, or `from` if there is none, once it is known to be the last: nothing was late
/// that was due until `watched`, and for `rule.quiet` after it. `None` while that is not known.
fn normal_again(messages: &[Message], from: u64, watched: u64, rule: Rule) -> Option<u64> {
    let mut normal = from;
    for message in messages {
        if message.due > watched.max(normal + rule.quiet) {
            return Some(normal);
        }
        let arrived = message.arrived()?;
        if arrived > message.due + rule.bound {
            normal = normal.max(arrived);
        }
    }
    None
}

/// How long each message took to the last of its members, in µs.
pub fn delays(messages: &[Message]) -> Vec<u64> {
    messages.iter().filter_map(|message| Some(message.arrived()?.saturating_sub(message.due))).collect()
}

/// When the first of these messages was with everybody, and when all of them were.
pub fn arrivals(messages: &[Message]) -> Option<(u64, u64)> {
    let arrived: Option<Vec<u64>> = messages.iter().map(Message::arrived).collect();
    let arrived = arrived?;
    Some((*arrived.iter().min()?, *arrived.iter().max()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { bound: 500, quiet: 1000 };

    /// Due every 100, from 0; each takes 10, but for those that are told to arrive at another time.
    fn messages(count: usize, others: &[(usize, Option<u64>)]) -> Vec<Message> {
        let message = |number: usize| {
            let due = number as u64 * 100;
            let arrived = match others.iter().find(|(other, _)| *other == number) {
                Some((_, arrived)) => *arrived,
                None => Some(due + 10),
            };
            let missing = usize::from(arrived.is_none());
            Message { due, missing, last: arrived.unwrap_or(0), seq: Some(1), answered: Some(due) }
        };
        (0..count).map(message).collect()
    }

    #[test]
    fn where_nothing_is_late_delivery_was_normal_all_the_time() {
        // 600 after it was due is late, 500 is not.
        assert_eq!(normal_again(&messages(50, &[(12, Some(1700))]), 1000, 1000, RULE), Some(1000));
    }

    #[test]
    fn delivery_is_normal_with_the_last_late_delivery() {
        let held_up = messages(50, &[(9, Some(2400)), (10, Some(2500)), (15, Some(2300))]);
        assert_eq!(normal_again(&held_up, 1000, 1000, RULE), Some(2500));
    }

    #[test]
    fn what_is_late_within_the_quiet_second_is_part_of_it_and_what_is_late_after_it_is_not() {
        let again = messages(80, &[(12, Some(2000)), (29, Some(3600))]);
        assert_eq!(normal_again(&again, 1000, 1000, RULE), Some(3600));
        let much_later = messages(80, &[(12, Some(2000)), (31, Some(3800))]);
        assert_eq!(normal_again(&much_later, 1000, 1000, RULE), Some(2000));
        assert_eq!(normal_again(&much_later, 1000, 3100, RULE), Some(3800), "it was still watched");
    }

    #[test]
    fn as_long_as_something_is_missing_or_too_little_was_seen_it_is_not_known() {
        assert_eq!(normal_again(&messages(80, &[(12, None)]), 1000, 1000, RULE), None);
        assert_eq!(normal_again(&messages(20, &[]), 1000, 1000, RULE), None);
        assert_eq!(normal_again(&messages(22, &[]), 1000, 1000, RULE), Some(1000));
    }

    #[test]
    fn a_message_is_there_when_every_member_has_it_and_has_one_seq() {
        let ledger = Ledger::new(Clock::new());
        let number = ledger.add(0, 2);
        ledger.delivered(number, 7);
        assert_eq!((ledger.first_open(), arrivals(&ledger.messages(0, 1))), (0, None));
        ledger.delivered(number, 7);
        assert!(arrivals(&ledger.messages(0, 1)).is_some());
        assert_eq!(ledger.first_open(), 0, "no answer yet");
        ledger.answered(number, 7);
        ledger.close();
        assert!((ledger.first_open() == 1) && ledger.faults().0.are_none());
        ledger.delivered(number, 8);
        assert_eq!(ledger.faults().0.two_seqs, 1);
    }

    #[test]
    fn what_has_not_come_by_the_end_is_lost() {
        let ledger = Ledger::new(Clock::new());
        let number = ledger.add(0, 1);
        ledger.answered(number, 1);
        ledger.close();
        let (faults, complaints) = ledger.faults();
        assert_eq!((faults.lost, complaints.len()), (1, 1));
    }
}
