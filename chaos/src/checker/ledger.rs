//! What is stored, arranged for questions: is this seq there, who was a member at it, who may see it, since when is it
//! known to be committed.

use std::collections::{BTreeMap, HashMap};

use crate::{
    history::{At, Change, ClientRecord, Histories, Outcome, RunRecord},
    truth::{Says, TruthRecord},
};

/// An event of the log.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub event_id: &'a str,
    pub event_type: &'a str,
    pub epoch: i64,
    pub subject: Option<i64>,
    pub user_seq: Option<i64>,
    pub body: &'a str,
    pub says: Option<&'a Says>,
}

/// A row of a message.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub seq: i64,
    pub id: i64,
    pub message_no: i64,
    pub sender: i64,
    pub client_message_id: &'a str,
    pub text: &'a str,
    pub epoch: i64,
}

/// One membership, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub joined_seq: i64,
    pub left_seq: Option<i64>,
    pub joined_user_seq: i64,
    pub left_user_seq: Option<i64>,
}

impl Interval {
    pub fn holds(&self, seq: i64) -> bool {
        self.joined_seq <= seq && self.left_seq.is_none_or(|left| seq <= left)
    }
}

/// One conversation.
#[derive(Debug)]
pub struct Conversation<'a> {
    pub id: i64,
    pub kind: &'a str,
    pub last_seq: i64,
    pub message_no: i64,
    /// More than one of a seq is a finding of its own.
    pub events: BTreeMap<i64, Vec<Event<'a>>>,
    pub rows: Vec<Row<'a>>,
    /// Ascending.
    pub members: HashMap<i64, Vec<Interval>>,
    /// By seq: from this time on it was certainly committed (`u64::MAX`: never seen).
    known_by: Vec<u64>,
    /// By seq: until this time it was certainly not committed.
    not_before: Vec<u64>,
}

impl<'a> Conversation<'a> {
    fn new(id: i64, kind: &'a str, last_seq: i64, message_no: i64) -> Self {
        let seqs = index(last_seq) + 1;
        let (known_by, not_before) = (vec![u64::MAX; seqs], vec![0; seqs]);
        let (events, members) = (BTreeMap::new(), HashMap::new());
        Self { id, kind, last_seq, message_no, events, rows: Vec::new(), members, known_by, not_before }
    }

    pub fn intervals(&self, user: i64) -> &[Interval] {
        self.members.get(&user).map_or(&[], Vec::as_slice)
    }

    /// Whether the user was a member at that seq: it is owed to them.
    pub fn was_member(&self, user: i64, seq: i64) -> bool {
        self.intervals(user).iter().any(|interval| interval.holds(seq))
    }

    /// Whether the user may see it by now. In a channel a member sees everything, a former member what came until the
    /// end of their last membership; elsewhere everyone sees their own memberships.
    pub fn may_see(&self, user: i64, seq: i64) -> bool {
        match self.kind {
            "channel" => {
                self.intervals(user).last().is_some_and(|last| last.left_seq.is_none_or(|left| 1 <= seq && seq <= left))
            }
            _ => self.was_member(user, seq),
        }
    }

    pub fn event(&self, seq: i64) -> Option<&Event<'a>> {
        self.events.get(&seq)?.first()
    }

    pub fn known_by(&self, seq: i64) -> u64 {
        self.known_by.get(index(seq)).copied().unwrap_or(u64::MAX)
    }

    pub fn not_before(&self, seq: i64) -> u64 {
        self.not_before.get(index(seq)).or(self.not_before.last()).copied().unwrap_or(0)
    }

    fn saw(&mut self, seq: i64, at: u64) {
        if let Some(known) = self.known_by.get_mut(index(seq)) {
            *known = at.min(*known);
        }
    }

    /// Commits are in the order of seqs: what is known of one bounds the others.
    fn close(&mut self) {
        for seq in (1..self.known_by.len()).rev() {
            self.known_by[seq - 1] = self.known_by[seq - 1].min(self.known_by[seq]);
        }
        for seq in 1..self.not_before.len() {
            self.not_before[seq] = self.not_before[seq].max(self.not_before[seq - 1]);
        }
    }

    fn sort(&mut self) {
        self.members.values_mut().for_each(|intervals| intervals.sort_by_key(|interval| interval.joined_seq));
        self.rows.sort_by_key(|row| row.seq);
    }
}

fn index(seq: i64) -> usize {
    usize::try_from(seq).unwrap_or(0)
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub struct Ledger<'a> {
    pub epoch: i64,
    pub conversations: BTreeMap<i64, Conversation<'a>>,
    /// `user_seq` of each user.
    pub users: BTreeMap<i64, i64>,
    /// Type of each event with a `user_seq`, in the order of these.
    pub user_events: BTreeMap<i64, Vec<(i64, &'a str)>>,
    pub lag: Vec<(&'a str, i64)>,
    pub left_over: Vec<(&'a str, &'a str, &'a str)>,
    /// Records of a conversation that is not there.
    pub orphans: Vec<String>,
}

impl<'a> Ledger<'a> {
    pub fn of(truth: &'a [TruthRecord], histories: &Histories) -> Self {
        let mut ledger = Self::default();
        for record in truth {
            if let TruthRecord::Conversation { id, kind, last_seq, message_no } = record {
                ledger.conversations.insert(*id, Conversation::new(*id, kind, *last_seq, *message_no));
            }
        }
        truth.iter().for_each(|record| ledger.take(record));
        ledger.user_events.values_mut().for_each(|events| events.sort_unstable());
        ledger.conversations.values_mut().for_each(Conversation::sort);
        ledger.take_times(histories);
        ledger.take_answers(&histories.run);
        ledger.conversations.values_mut().for_each(Conversation::close);
        ledger
    }

    fn take(&mut self, record: &'a TruthRecord) {
        match record {
            TruthRecord::Truth { epoch } => self.epoch = *epoch,
            TruthRecord::Conversation { .. } => {}
            TruthRecord::Event { conversation, seq, event_id, event_type, epoch, subject, user_seq, body, says } => {
                let event = Event {
                    event_id,
                    event_type,
                    epoch: *epoch,
                    subject: *subject,
                    user_seq: *user_seq,
                    body,
                    says: says.as_ref(),
                };
                match self.conversations.get_mut(conversation) {
                    Some(found) => found.events.entry(*seq).or_default().push(event),
                    None => self.orphans.push(format!("the event {conversation}-{seq}")),
                }
            }
            TruthRecord::Message { conversation, seq, id, message_no, sender, client_message_id, text, epoch } => {
                let (seq, id, message_no, sender, epoch) = (*seq, *id, *message_no, *sender, *epoch);
                match self.conversations.get_mut(conversation) {
                    Some(found) => {
                        found.rows.push(Row { seq, id, message_no, sender, client_message_id, text, epoch });
                    }
                    None => self.orphans.push(format!("the message {conversation}-{seq}")),
                }
            }
            TruthRecord::Member { conversation, user, joined_seq, left_seq, joined_user_seq, left_user_seq } => {
                let interval = Interval {
                    joined_seq: *joined_seq,
                    left_seq: *left_seq,
                    joined_user_seq: *joined_user_seq,
                    left_user_seq: *left_user_seq,
                };
                match self.conversations.get_mut(conversation) {
                    Some(found) => found.members.entry(*user).or_default().push(interval),
                    None => self.orphans.push(format!("a membership of {user} in {conversation}")),
                }
            }
            TruthRecord::User { id, user_seq } => {
                self.users.insert(*id, *user_seq);
            }
            TruthRecord::UserEvent { user, user_seq, event_type } => {
                self.user_events.entry(*user).or_default().push((*user_seq, event_type));
            }
            TruthRecord::Lag { topic, records } => self.lag.push((topic, *records)),
            TruthRecord::LeftOver { what, key, detail } => self.left_over.push((what, key, detail)),
        }
    }

    /// A message is committed between its first SEND and whatever was seen of it first.
    fn take_times(&mut self, histories: &Histories) {
        let mut sent: HashMap<(i64, i64, &str), u64> = HashMap::new();
        for client in &histories.clients {
            for at in &client.records {
                match &at.record {
                    ClientRecord::Message { conversation, seq, .. }
                    | ClientRecord::Acknowledged { conversation, seq, .. } => {
                        if let Some(found) = self.conversations.get_mut(conversation) {
                            found.saw(*seq, at.at);
                        }
                    }
                    ClientRecord::Resumed { conversation, head, .. } => {
                        if let Some(found) = self.conversations.get_mut(conversation) {
                            found.saw(*head, at.at);
                        }
                    }
                    ClientRecord::Send { conversation, client_message_id, .. } => {
                        let first = sent.entry((client.user, *conversation, client_message_id)).or_insert(u64::MAX);
                        *first = at.at.min(*first);
                    }
                    _ => {}
                }
            }
        }
        for conversation in self.conversations.values_mut() {
            for row in &conversation.rows {
                let first = sent.get(&(row.sender, conversation.id, row.client_message_id));
                if let (Some(first), Some(slot)) = (first, conversation.not_before.get_mut(index(row.seq))) {
                    *slot = *first;
                }
            }
        }
    }

    /// So many memberships have begun, and ended, by the time of each answer; more may have.
    fn take_answers(&mut self, run: &[At<RunRecord>]) {
        let mut known: HashMap<(i64, i64), Known> = HashMap::new();
        for At { at, record } in run {
            match record {
                RunRecord::Conversation { id, members, asked, .. } => {
                    let Some(found) = self.conversations.get_mut(id) else { continue };
                    // Whoever is added when a conversation is made has its first seq.
                    found.saw(1, *at);
                    if let Some(first) = found.not_before.get_mut(1) {
                        *first = *asked;
                    }
                    for user in members {
                        known.entry((*id, *user)).or_default().take(Change::Joined, &Outcome::Acknowledged);
                    }
                }
                RunRecord::Membership { conversation, user, change, outcome, .. } => {
                    let Some(found) = self.conversations.get_mut(conversation) else { continue };
                    let known = known.entry((*conversation, *user)).or_default();
                    known.take(*change, outcome);
                    let interval =
                        known.begun.checked_sub(1).and_then(|last| found.intervals(*user).get(last)).copied();
                    let (Outcome::Acknowledged, Some(interval)) = (outcome, interval) else { continue };
                    found.saw(interval.joined_seq, *at);
                    if let (Change::Left, Some(left)) = (change, interval.left_seq) {
                        found.saw(left, *at);
                    }
                }
                _ => {}
            }
        }
    }
}

/// What the answers to one user's changes in one conversation say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// So many memberships have begun at least.
    pub begun: usize,
    /// By the last answer.
    pub member: bool,
    /// A request that was not answered may still be carried out, at any later time.
    stray_join: bool,
    stray_leave: bool,
}

impl Known {
    pub fn take(&mut self, change: Change, outcome: &Outcome) {
        match (outcome, change) {
            (Outcome::Refused(_), _) => {}
            (Outcome::Unanswered, Change::Joined) => self.stray_join = true,
            (Outcome::Unanswered, Change::Left) => self.stray_leave = true,
            (Outcome::Acknowledged, Change::Joined) => {
                self.begun += usize::from(!self.member);
                self.member = true;
            }
            (Outcome::Acknowledged, Change::Left) => self.member = false,
        }
    }

    /// Whether the last answer says how it is.
    pub fn is_sure(&self) -> bool {
        if self.member { !self.stray_leave } else { !self.stray_join }
    }
}
