//! What a subscription was sent and has not acknowledged, and how far its user has got in each conversation.
//!
//! Pure. Of each conversation the unacknowledged seqs are kept as ranges: one for a client that acknowledges in order,
//! or not at all. What an ACK moves is the *prefix*: the seq up to which everything that was sent is acknowledged.
//! [`Reports`] puts prefixes on their way to core, one at a time for each conversation.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::stomp::AckMode;

/// A prefix that core could not take is reported again after this.
const RETRY: Duration = Duration::from_secs(1);

/// A message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub conversation: i64,
    pub seq: i64,
}

impl Message {
    /// Reads a `message-id`: `None` if it is none, `Some(None)` if it is one of an event without a seq, or a refusal.
    pub fn parse(id: &str) -> Option<Option<Self>> {
        if id.len() > 2 && (id.starts_with("u-") || id.starts_with("e-")) {
            return Some(None);
        }
        let (conversation, seq) = id.split_once('-')?;
        Some(Some(Self { conversation: number(conversation)?, seq: number(seq)? }))
    }
}

/// As this gateway writes it: digits, and nothing else.
fn number(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if digits { text.parse().ok() } else { None }
}

/// An ACK that would need more memory than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// The acknowledgements of one subscription.
#[derive(Debug)]
pub struct Acks {
    individual: bool,
    conversations: HashMap<i64, Unacknowledged>,
    /// Where an ACK also covers what was sent before it of other conversations: what was sent, in order.
    order: Option<Order>,
    /// Ranges beyond the first of a conversation.
    gaps: usize,
}

/// One conversation of a subscription.
#[derive(Debug)]
struct Unacknowledged {
    /// Ascending, ends included.
    ranges: VecDeque<(i64, i64)>,
    first: i64,
    last: i64,
    /// The highest that was ever sent: lower again after the history was reset.
    highest: i64,
    acknowledged: i64,
    prefix: i64,
    /// Sent before everything that `order` still holds.
    forgotten: i64,
}

/// Messages of a subscription to many conversations in the order in which they were sent; runs of one conversation
/// are one entry.
#[derive(Debug)]
struct Order {
    runs: VecDeque<Run>,
    max: usize,
}

#[derive(Debug)]
struct Run {
    from: i64,
    last: Message,
}

impl Acks {
    /// `max`: entries of the order of messages of `many` conversations. What is older is only covered by an ACK of its
    /// own conversation, or of something newer than it.
    pub fn new(mode: AckMode, many: bool, max: usize) -> Option<Self> {
        let individual = match mode {
            AckMode::Auto => return None,
            AckMode::Client => false,
            AckMode::ClientIndividual => true,
        };
        let order = (many && !individual).then(|| Order { runs: VecDeque::new(), max });
        Some(Self { individual, conversations: HashMap::new(), order, gaps: 0 })
    }

    /// What is bounded: gaps between acknowledged messages.
    pub fn gaps(&self) -> usize {
        self.gaps
    }

    pub fn sent(&mut self, message: Message) {
        let Message { conversation, seq } = message;
        let state = self.conversations.entry(conversation).or_insert_with(|| Unacknowledged::new(seq));
        self.gaps -= state.gaps();
        state.sent(seq);
        self.gaps += state.gaps();
        let Some(order) = &mut self.order else { return };
        match order.runs.back_mut() {
            Some(run) if run.last.conversation == conversation && run.last.seq < seq => run.last = message,
            _ => order.runs.push_back(Run { from: seq, last: message }),
        }
        if order.runs.len() > order.max
            && let Some(Run { last: oldest, .. }) = order.runs.pop_front()
            && let Some(state) = self.conversations.get_mut(&oldest.conversation)
        {
            state.forgotten = oldest.seq;
        }
    }

    pub fn was_sent(&self, message: Message) -> bool {
        let state = self.conversations.get(&message.conversation);
        state.is_some_and(|state| (state.first..=state.highest).contains(&message.seq))
    }

    /// Takes an ACK; gives the prefixes that it has moved. `room`: gaps that there may be more.
    pub fn acknowledge(&mut self, message: Message, room: usize) -> Result<Vec<Message>, TooMany> {
        let mut moved = Vec::new();
        if self.individual {
            if let Some(state) = self.conversations.get_mut(&message.conversation) {
                let before = state.gaps();
                state.acknowledge_one(message.seq, room)?;
                self.gaps = self.gaps - before + state.gaps();
                moved.extend(state.moved(message.conversation));
            }
            return Ok(moved);
        }
        for message in self.covered(message) {
            if let Some(state) = self.conversations.get_mut(&message.conversation) {
                let before = state.gaps();
                state.acknowledge_up_to(message.seq);
                self.gaps = self.gaps - before + state.gaps();
                moved.extend(state.moved(message.conversation));
            }
        }
        Ok(moved)
    }

    /// The last of each conversation that was sent before the message, and itself.
    fn covered(&mut self, message: Message) -> Vec<Message> {
        let Some(Order { runs, .. }) = &mut self.order else { return vec![message] };
        let holds = |Run { from, last }: &Run| {
            last.conversation == message.conversation && (*from..=last.seq).contains(&message.seq)
        };
        let Some(index) = runs.iter().position(holds) else { return vec![message] };
        let whole = runs[index].last == message;
        let mut covered: Vec<Message> = runs.drain(..index + usize::from(whole)).map(|Run { last, .. }| last).collect();
        covered.push(message);
        for (conversation, state) in &mut self.conversations {
            if state.forgotten > 0 {
                covered.push(Message { conversation: *conversation, seq: state.forgotten });
                state.forgotten = 0;
            }
        }
        covered
    }
}

impl Unacknowledged {
    fn new(seq: i64) -> Self {
        let ranges = VecDeque::new();
        let before = seq - 1;
        Self { ranges, first: seq, last: before, highest: before, acknowledged: before, prefix: before, forgotten: 0 }
    }

    fn gaps(&self) -> usize {
        self.ranges.len().saturating_sub(1)
    }

    fn sent(&mut self, seq: i64) {
        if seq <= self.last {
            // Another history: seqs are used again.
            *self = Self { highest: self.highest, first: self.first.min(seq), ..Self::new(seq) };
        }
        match self.ranges.back_mut() {
            Some((_, to)) if *to + 1 == seq => *to = seq,
            _ => self.ranges.push_back((seq, seq)),
        }
        self.last = seq;
        self.highest = self.highest.max(seq);
    }

    fn acknowledge_up_to(&mut self, seq: i64) {
        while self.ranges.front().is_some_and(|(_, to)| *to <= seq) {
            self.ranges.pop_front();
        }
        if let Some((from, _)) = self.ranges.front_mut() {
            *from = (*from).max(seq + 1);
        }
        self.acknowledged = self.acknowledged.max(seq.min(self.last));
    }

    fn acknowledge_one(&mut self, seq: i64, room: usize) -> Result<(), TooMany> {
        let index = self.ranges.partition_point(|(_, to)| *to < seq);
        let Some((from, to)) = self.ranges.get(index).copied().filter(|(from, _)| *from <= seq) else {
            // Acknowledged before.
            return Ok(());
        };
        match (from == seq, to == seq) {
            (true, true) => drop(self.ranges.remove(index)),
            (true, false) => self.ranges[index].0 = seq + 1,
            (false, true) => self.ranges[index].1 = seq - 1,
            (false, false) if room == 0 => return Err(TooMany),
            (false, false) => {
                self.ranges[index].1 = seq - 1;
                self.ranges.insert(index + 1, (seq + 1, to));
            }
        }
        self.acknowledged = self.acknowledged.max(seq);
        Ok(())
    }

    /// The prefix, if it is another than before. What does not come to this user is passed over.
    fn moved(&mut self, conversation: i64) -> Option<Message> {
        let prefix = self.ranges.front().map_or(self.last, |(from, _)| from - 1).min(self.acknowledged);
        if prefix <= self.prefix {
            return None;
        }
        self.prefix = prefix;
        Some(Message { conversation, seq: prefix })
    }
}

/// Prefixes on their way to core: at most one of a conversation, the latest wins.
#[derive(Debug, Default)]
pub struct Reports {
    conversations: HashMap<i64, Report>,
    pub retry_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Report {
    in_flight: bool,
    /// To be reported next; 0: nothing.
    next: i64,
}

impl Reports {
    /// Something is on its way.
    pub fn is_waited_for(&self) -> bool {
        self.conversations.values().any(|report| report.in_flight)
    }

    /// A prefix has moved: what is to be sent now.
    pub fn report(&mut self, message: Message) -> Option<Message> {
        let report = self.conversations.entry(message.conversation).or_default();
        report.next = report.next.max(message.seq);
        report.take(message.conversation)
    }

    /// Core has taken or refused one; `again`: it could not answer.
    pub fn answered(&mut self, message: Message, again: bool, now: Instant) -> Option<Message> {
        let report = self.conversations.get_mut(&message.conversation)?;
        report.in_flight = false;
        if again {
            report.next = report.next.max(message.seq);
            self.retry_at = Some(now + RETRY);
            return None;
        }
        if report.next == 0 {
            self.conversations.remove(&message.conversation);
            return None;
        }
        report.take(message.conversation)
    }

    /// Everything that waits for another try.
    pub fn retry(&mut self) -> Vec<Message> {
        self.retry_at = None;
        self.conversations.iter_mut().filter_map(|(id, report)| report.take(*id)).collect()
    }

    /// What is still to be reported when the session ends.
    pub fn rest(&mut self) -> Vec<Message> {
        let rest = self.conversations.drain().filter(|(_, report)| report.next > 0);
        rest.map(|(conversation, report)| Message { conversation, seq: report.next }).collect()
    }
}

impl Report {
    fn take(&mut self, conversation: i64) -> Option<Message> {
        if self.in_flight || self.next == 0 {
            return None;
        }
        self.in_flight = true;
        Some(Message { conversation, seq: std::mem::take(&mut self.next) })
    }
}

#[cfg(test)]
mod tests;
