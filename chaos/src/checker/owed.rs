//! What should have come: every event of a user's memberships, on each of their subscriptions, by the end of the run, and
//! in time after each fault.
//!
//! A chain of attachments is owed what lies behind its start. On a single conversation that is the cursor that it began
//! with, else where its first RESUMED said that delivery starts. On the user's queue a conversation that was joined
//! later is owed from the join on, seen or not: later means behind the `user_seq` that the chain began with.

use std::collections::BTreeMap;

use super::{
    delivery::Track,
    finding::{Finding, Kind},
    ledger::{Conversation, Interval, Ledger},
    streams::{Attachment, Chain, What},
    timeline::Timeline,
};
use crate::history::{At, Change, RunRecord};

/// What joins on a queue are measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// The chain began when the user's memberships had come so far.
    UserSeq(i64),
    /// Nothing was ever told; what was asked for from this time on came later, for sure.
    Since(u64),
}

pub struct Owed<'o, 'a> {
    pub ledger: &'o Ledger<'a>,
    pub timeline: &'o Timeline,
    pub run: &'o [At<RunRecord>],
}

impl Owed<'_, '_> {
    pub fn check(&self, chain: &Chain, tracks: &BTreeMap<i64, Track>, findings: &mut Vec<Finding>) {
        self.check_answers(chain, findings);
        let none = Track::default();
        match chain.topic {
            Some(topic) => {
                let track = tracks.get(&topic).unwrap_or(&none);
                if let Some(conversation) = self.ledger.conversations.get(&topic) {
                    self.topic(chain, conversation, track, findings);
                }
            }
            None => {
                let base = base(chain);
                for conversation in self.ledger.conversations.values() {
                    let track = tracks.get(&conversation.id).unwrap_or(&none);
                    self.queue(chain, conversation, track, base, findings);
                }
            }
        }
    }

    /// Each SUBSCRIBE is answered in time.
    fn check_answers(&self, chain: &Chain, findings: &mut Vec<Finding>) {
        for attachment in &chain.attachments {
            let Some(deadline) = self.timeline.deadline(attachment.subscribed_at) else { continue };
            if attachment.attached_at.unwrap_or(attachment.until) > deadline {
                let text = format!(
                    "SUBSCRIBE of {:?} in session {} of {}, sent at {}, had no RECEIPT at {}",
                    chain.subscription,
                    attachment.session,
                    chain.whose(),
                    seconds(attachment.subscribed_at),
                    seconds(deadline)
                );
                let finding = Finding::new(Kind::Late, text).user(chain.user).subscription(chain.subscription);
                findings.push(finding.place(chain.client, attachment.record));
            }
        }
    }

    fn topic(&self, chain: &Chain, conversation: &Conversation, track: &Track, findings: &mut Vec<Finding>) {
        let Some(start) = track.named.or(track.first_resumed) else {
            return self.no_start(chain, conversation, findings);
        };
        // Where it was subscribed to again after an end, it goes on.
        let ended = track.ended.filter(|(number, _)| number + 1 == chain.attachments.len());
        let last = ended.map_or(i64::MAX, |(_, left)| left);
        let mut owed = Vec::new();
        for interval in conversation.intervals(chain.user) {
            owed.extend(seqs(conversation, interval, start, last));
        }
        self.no_start_at_the_end(chain, conversation, track, findings);
        self.judge(chain, conversation, track, &owed, ended.is_some() || self.is_open(chain), findings);
    }

    fn queue(
        &self,
        chain: &Chain,
        conversation: &Conversation,
        track: &Track,
        base: Base,
        findings: &mut Vec<Finding>,
    ) {
        let mut owed = Vec::new();
        for interval in conversation.intervals(chain.user) {
            let later = match base {
                Base::UserSeq(user_seq) => interval.joined_user_seq > user_seq,
                Base::Since(time) => self.all_asked_since(conversation.id, chain.user, time),
            };
            let start = match track.named {
                Some(cursor) => Some(cursor),
                None if later => Some(interval.joined_seq - 1),
                None => track.first_resumed,
            };
            if let Some(start) = start {
                owed.extend(seqs(conversation, interval, start, i64::MAX));
            }
        }
        self.no_start_at_the_end(chain, conversation, track, findings);
        self.judge(chain, conversation, track, &owed, self.is_open(chain), findings);
    }

    /// Nothing was asked before that time that could have made the user a member.
    fn all_asked_since(&self, conversation: i64, user: i64, time: u64) -> bool {
        let asked = self.run.iter().filter_map(|at| match &at.record {
            RunRecord::Conversation { id, members, asked, .. } if *id == conversation && members.contains(&user) => {
                Some(*asked)
            }
            RunRecord::Membership { conversation: of, user: who, change: Change::Joined, asked, .. }
                if (*of, *who) == (conversation, user) =>
            {
                Some(*asked)
            }
            _ => None,
        });
        asked.min().is_some_and(|first| first >= time)
    }

    /// The chain lasted to the end of the run.
    fn is_open(&self, chain: &Chain) -> bool {
        chain.attachments.last().is_some_and(|last| last.until >= self.timeline.closed)
    }

    /// Who is a member at the end has a RESUMED in the session that lasted.
    fn no_start_at_the_end(
        &self,
        chain: &Chain,
        conversation: &Conversation,
        track: &Track,
        findings: &mut Vec<Finding>,
    ) {
        let is_member = conversation.intervals(chain.user).last().is_some_and(|last| last.left_seq.is_none());
        let resumed = track.resumed_in.is_some_and(|number| number + 1 == chain.attachments.len());
        if is_member && !resumed {
            self.no_start(chain, conversation, findings);
        }
    }

    fn no_start(&self, chain: &Chain, conversation: &Conversation, findings: &mut Vec<Finding>) {
        let Some(last) = chain.attachments.last().filter(|_| self.is_open(chain)) else { return };
        let text = format!(
            "no RESUMED of {} came on {:?} of {}, session {}",
            conversation.id,
            chain.subscription,
            chain.whose(),
            last.session
        );
        let finding = Finding::new(Kind::Start, text).conversation(conversation.id).user(chain.user);
        findings.push(finding.subscription(chain.subscription).place(chain.client, last.record));
    }

    /// Never came, or came too late.
    fn judge(
        &self,
        chain: &Chain,
        conversation: &Conversation,
        track: &Track,
        owed: &[i64],
        to_the_end: bool,
        findings: &mut Vec<Finding>,
    ) {
        let mut lost: Vec<i64> = Vec::new();
        let mut late: BTreeMap<usize, Vec<(i64, u64)>> = BTreeMap::new();
        for seq in owed.iter().copied().filter(|seq| !track.is_excused(*seq)) {
            let delivered = track.delivered.get(&seq);
            if delivered.is_none() && to_the_end {
                lost.push(seq);
            } else if let Some((number, deadline)) = self.late_in(chain, conversation, seq, delivered) {
                late.entry(number).or_default().push((seq, deadline));
            }
        }
        for run in lost.chunk_by(|one, next| one + 1 == *next) {
            let text = format!(
                "{} never came on {:?} of {}",
                range(conversation.id, run[0], run[run.len() - 1]),
                chain.subscription,
                chain.whose()
            );
            findings.push(self.about(Kind::Lost, chain, conversation, run[0], text, None));
        }
        for (number, seqs) in late {
            let (seq, deadline) = seqs[0];
            let more = if seqs.len() > 1 { format!(", as were {} more", seqs.len() - 1) } else { String::new() };
            let text = format!(
                "{}-{seq} was not with {:?} of {} in session {} at {}, and should have been{more}",
                conversation.id,
                chain.subscription,
                chain.whose(),
                chain.attachments[number].session,
                seconds(deadline),
            );
            findings.push(self.about(Kind::Late, chain, conversation, seq, text, Some((number, deadline))));
        }
    }

    /// The attachment that had to have it by then and had not.
    fn late_in(
        &self,
        chain: &Chain,
        conversation: &Conversation,
        seq: i64,
        delivered: Option<&Vec<(usize, u64)>>,
    ) -> Option<(usize, u64)> {
        let committed = conversation.known_by(seq);
        if committed == u64::MAX {
            return None;
        }
        for (number, attachment) in chain.attachments.iter().enumerate() {
            let came = delivered.and_then(|came| came.iter().find(|(of, _)| *of == number)).map(|(_, at)| *at);
            let from = attachment.attached_at.unwrap_or(attachment.subscribed_at).max(committed);
            if let Some(deadline) = self.timeline.deadline(from)
                && came.unwrap_or(attachment.until) > deadline
            {
                return Some((number, deadline));
            }
            if came.is_some() {
                return None;
            }
        }
        None
    }

    /// Points to the last thing that came before the time, or at all.
    fn about(
        &self,
        kind: Kind,
        chain: &Chain,
        conversation: &Conversation,
        seq: i64,
        text: String,
        late: Option<(usize, u64)>,
    ) -> Finding {
        let (number, until) = late.unwrap_or_else(|| (passed_over(chain, conversation.id, seq), u64::MAX));
        let attachment = &chain.attachments[number];
        let before = attachment.arrivals.iter().rev().find(|arrival| {
            let lower = match arrival.what {
                What::Event { seq: came, .. } => came < seq,
                What::Resumed { .. } => true,
            };
            arrival.conversation == conversation.id && arrival.at <= until && lower
        });
        let record = before.map_or(attachment.record, |arrival| arrival.record);
        Finding::new(kind, text)
            .conversation(conversation.id)
            .seq(seq)
            .user(chain.user)
            .subscription(chain.subscription)
            .place(chain.client, record)
    }
}

/// The first attachment in which delivery went on behind that seq, else the last one.
fn passed_over(chain: &Chain, conversation: i64, seq: i64) -> usize {
    let behind = |what: &What| match what {
        What::Event { seq: came, .. } => *came > seq,
        What::Resumed { after_seq, .. } => *after_seq >= seq,
    };
    let passes = |attachment: &Attachment| {
        attachment.arrivals.iter().any(|arrival| arrival.conversation == conversation && behind(&arrival.what))
    };
    chain.attachments.iter().position(passes).unwrap_or(chain.attachments.len() - 1)
}

/// The `user_seq` that the client resumed its queue with, or was told first.
fn base(chain: &Chain) -> Base {
    for attachment in &chain.attachments {
        let told = attachment.arrivals.iter().filter_map(|arrival| match arrival.what {
            What::Resumed { user_seq, .. } => user_seq,
            What::Event { .. } => None,
        });
        if let Some(user_seq) = attachment.user_seq().or(told.min()) {
            return Base::UserSeq(user_seq);
        }
    }
    Base::Since(chain.attachments.iter().find_map(|attachment| attachment.attached_at).unwrap_or(u64::MAX))
}

/// What of a membership is owed behind `start`, up to `last`.
fn seqs(conversation: &Conversation, interval: &Interval, start: i64, last: i64) -> impl Iterator<Item = i64> {
    let from = interval.joined_seq.max(start + 1);
    let to = interval.left_seq.unwrap_or(conversation.last_seq).min(conversation.last_seq).min(last);
    from..=to
}

fn range(conversation: i64, from: i64, to: i64) -> String {
    if from == to { format!("{conversation}-{from}") } else { format!("{conversation}-{from} to {to}") }
}

fn seconds(time: u64) -> String {
    format!("{}.{:03} s", time / 1_000_000, time / 1000 % 1000)
}
