//! The shortest piece of history that shows a finding: what the client has seen of that conversation, without all that
//! the checker can do without; what was sent and answered, what is stored, and the faults that were on.

use std::{collections::BTreeSet, ops::Range};

use serde::Serialize;

use crate::{
    checker::{self, Finding, Kind, Place},
    history::{At, ClientRecord, Histories, History, RunRecord},
    truth::TruthRecord,
};

use super::{Line, seconds};

/// So many arrivals before the place, and so many behind it, are shown where none can be told to be needed.
const NEARBY: usize = 3;
/// A fault that ended so long before is shown, in µs.
const NEAR: u64 = 10_000_000;
/// More lines than this nobody reads.
const LINES: usize = 40;

pub struct Evidence<'a> {
    histories: &'a Histories,
    truth: &'a [TruthRecord],
}

/// Records of clients: which client, which of its records.
type Records = BTreeSet<(usize, usize)>;

impl<'a> Evidence<'a> {
    pub fn new(histories: &'a Histories, truth: &'a [TruthRecord]) -> Self {
        Self { histories, truth }
    }

    pub fn of(&self, finding: &Finding) -> Vec<Line> {
        let mut places = self.of_message(finding);
        if let Some(place) = finding.place {
            let whole = self.around(finding, place, usize::MAX);
            let seen = self.shortest(finding, whole, &places);
            places.extend(seen.unwrap_or_else(|| self.around(finding, place, NEARBY)));
        }
        let mut lines: Vec<(u64, Line)> = Vec::new();
        let mut time = None;
        for (client, record) in places {
            let history = &self.histories.clients[client];
            let Some(at) = history.records.get(record) else { continue };
            let here = finding.place == Some(Place { client, record });
            if here {
                time = Some(at.at);
            }
            // The first line of a file says whose it is.
            let line = Line { here, ..line(&format!("clients/{}.ndjson", history.name), record + 2, at) };
            lines.push((at.at, line));
        }
        if let Some(time) = time {
            lines.extend(self.faults(time));
        }
        lines.extend(self.memberships(finding));
        lines.sort_by_key(|(at, _)| *at);
        let mut lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
        lines.extend(self.stored(finding));
        lines.truncate(LINES);
        lines
    }

    /// Of what was seen, what can't be left out: without any of it, the checker would no longer say the same. `None`: it
    /// does not say so even with all of it, because that takes more than these sessions.
    fn shortest(&self, finding: &Finding, seen: Records, story: &Records) -> Option<Records> {
        let concerns = |record: &&TruthRecord| match record {
            TruthRecord::Conversation { id, .. } => finding.conversation == Some(*id),
            TruthRecord::Event { conversation, .. }
            | TruthRecord::Message { conversation, .. }
            | TruthRecord::Member { conversation, .. } => finding.conversation == Some(*conversation),
            _ => true,
        };
        // What is stored, and who was a member, stays: without it something else would be true.
        let truth: Vec<TruthRecord> = self.truth.iter().filter(concerns).cloned().collect();
        let shows = |seen: &Records| self.is_found(finding, &seen.union(story).copied().collect(), &truth);
        let mut needed = seen;
        if !shows(&needed) {
            return None;
        }
        loop {
            let before = needed.len();
            // A session's beginning can be left out only behind what was in it.
            for record in needed.clone().into_iter().rev() {
                needed.remove(&record);
                if !shows(&needed) {
                    needed.insert(record);
                }
            }
            if needed.len() == before {
                return Some(needed);
            }
        }
    }

    /// Whether the checker finds the same in these records alone.
    fn is_found(&self, finding: &Finding, kept: &Records, truth: &[TruthRecord]) -> bool {
        let of_client = |(client, history): (usize, &History)| {
            let kept = kept.range((client, 0)..(client + 1, 0));
            let records = kept.filter_map(|(_, record)| history.records.get(*record).cloned()).collect();
            History { name: history.name.clone(), user: history.user, records }
        };
        let clients = self.histories.clients.iter().enumerate().map(of_client).collect();
        let histories = Histories { run: self.histories.run.clone(), clients };
        let whole = |Place { client, record }: Place| kept.range((client, 0)..).nth(record).copied();
        let same = |found: &Finding| {
            let place = found.place.and_then(whole).map(|(client, record)| Place { client, record });
            Finding { text: finding.text.clone(), place, ..found.clone() } == *finding
        };
        checker::check(&histories, truth).findings.iter().any(same)
    }

    /// What the client saw on that subscription and conversation in the session of the place, at most so many arrivals on
    /// either side; and wherever else the event came.
    fn around(&self, finding: &Finding, place: Place, arrivals: usize) -> Records {
        let Some(history) = self.histories.clients.get(place.client) else { return Records::new() };
        let records = &history.records;
        let is_arrival = |at: &At<ClientRecord>| match &at.record {
            ClientRecord::Message { subscription, conversation, .. }
            | ClientRecord::Resumed { subscription, conversation, .. } => {
                finding.subscription.as_ref().is_none_or(|of| of == subscription)
                    && finding.conversation.is_none_or(|of| of == *conversation)
            }
            _ => false,
        };
        let frames = |at: &At<ClientRecord>| match &at.record {
            ClientRecord::Subscribed { subscription, .. }
            | ClientRecord::Attached { subscription, .. }
            | ClientRecord::Unsubscribed { subscription, .. } => {
                finding.subscription.as_ref().is_some_and(|of| of == subscription)
            }
            ClientRecord::Connected { .. } | ClientRecord::Disconnected { .. } => true,
            ClientRecord::Resumed { .. } => is_arrival(at),
            _ => false,
        };
        let again = |at: &At<ClientRecord>| match &at.record {
            ClientRecord::Message { seq, .. } => finding.seq == Some(*seq) && is_arrival(at),
            _ => false,
        };
        let others = records.iter().enumerate().filter(|(_, at)| again(at)).map(|(record, _)| record);
        let session = |record: usize| -> Range<usize> {
            let began = |at: &At<ClientRecord>| matches!(at.record, ClientRecord::Connected { .. });
            let ended = |at: &At<ClientRecord>| matches!(at.record, ClientRecord::Disconnected { .. });
            let first = records.iter().take(record + 1).rposition(began).unwrap_or(0);
            let rest = records.iter().skip(record).position(ended);
            first..rest.map_or(records.len(), |rest| record + rest + 1)
        };
        let mut found = BTreeSet::from([place.record]);
        for record in others.chain([place.record]) {
            found.insert(record);
            found.extend(session(record).filter(|record| frames(&records[*record])));
        }
        let Range { start, end } = session(place.record);
        let of = |range: Range<usize>| range.filter(|record| is_arrival(&records[*record]));
        found.extend(of(start..place.record.min(end)).rev().take(arrivals));
        found.extend(of(place.record + 1..end).take(arrivals));
        found.into_iter().map(|record| (place.client, record)).collect()
    }

    /// Everything about the message: sent, answered.
    fn of_message(&self, finding: &Finding) -> Records {
        let named = finding.client_message_id.as_deref();
        let stored = self.truth.iter().find_map(|record| match record {
            TruthRecord::Message { conversation, seq, client_message_id, .. }
                if finding.conversation == Some(*conversation) && finding.seq == Some(*seq) =>
            {
                Some(client_message_id.as_str())
            }
            _ => None,
        });
        let mut found = Records::new();
        for (client, history) in self.histories.clients.iter().enumerate() {
            for (record, at) in history.records.iter().enumerate() {
                let (of, id, seq) = match &at.record {
                    ClientRecord::Send { conversation, client_message_id, .. }
                    | ClientRecord::Refused { conversation, client_message_id, .. }
                    | ClientRecord::Unanswered { conversation, client_message_id, .. } => {
                        (*conversation, client_message_id, None)
                    }
                    ClientRecord::Acknowledged { conversation, client_message_id, seq, .. } => {
                        (*conversation, client_message_id, Some(*seq))
                    }
                    _ => continue,
                };
                let is_named = named.or(stored).is_some_and(|named| named == id);
                if finding.conversation == Some(of) && (is_named || (seq.is_some() && seq == finding.seq)) {
                    found.insert((client, record));
                }
            }
        }
        found
    }

    /// Faults that were on at that time, or just over.
    fn faults(&self, time: u64) -> Vec<(u64, Line)> {
        let mut lines = Vec::new();
        for (record, at) in self.histories.run.iter().enumerate() {
            let RunRecord::FaultBegun { id: begun, .. } = &at.record else { continue };
            let ended = self
                .histories
                .run
                .iter()
                .enumerate()
                .find(|(_, at)| matches!(&at.record, RunRecord::FaultEnded { id, .. } if id == begun));
            let until = ended.map_or(u64::MAX, |(_, at)| at.at);
            if at.at <= time.saturating_add(NEAR) && until.saturating_add(NEAR) >= time {
                lines.push((at.at, line("run.ndjson", record + 1, at)));
                lines.extend(ended.map(|(record, at)| (at.at, line("run.ndjson", record + 1, at))));
            }
        }
        lines
    }

    /// What was asked of this user's membership.
    fn memberships(&self, finding: &Finding) -> Vec<(u64, Line)> {
        let about = matches!(finding.kind, Kind::NotAMember | Kind::MembershipLost | Kind::Start | Kind::Lost);
        let asked = |record: &RunRecord| match record {
            RunRecord::Membership { conversation, user, .. } => {
                finding.conversation == Some(*conversation) && finding.user == Some(*user)
            }
            _ => false,
        };
        let run = self.histories.run.iter().enumerate().filter(|(_, at)| about && asked(&at.record));
        run.map(|(record, at)| (at.at, line("run.ndjson", record + 1, at))).collect()
    }

    /// The rows.
    fn stored(&self, finding: &Finding) -> Vec<Line> {
        let concerns = |record: &TruthRecord| match record {
            TruthRecord::Conversation { id, .. } => finding.conversation == Some(*id),
            TruthRecord::Event { conversation, seq, .. } => {
                finding.conversation == Some(*conversation) && finding.seq == Some(*seq)
            }
            TruthRecord::Message { conversation, seq, client_message_id, .. } => {
                finding.conversation == Some(*conversation)
                    && (finding.seq == Some(*seq) || finding.client_message_id.as_ref() == Some(client_message_id))
            }
            TruthRecord::Member { conversation, user, .. } => {
                finding.conversation == Some(*conversation) && finding.user == Some(*user)
            }
            TruthRecord::User { id, .. } => finding.conversation.is_none() && finding.user == Some(*id),
            _ => false,
        };
        let rows = self.truth.iter().enumerate().filter(|(_, record)| concerns(record));
        rows.map(|(record, row)| line("truth.ndjson", record + 1, row)).collect()
    }
}

fn line(file: &str, line: usize, record: &impl Serialize) -> Line {
    Line { file: file.to_owned(), line, text: readable(record), here: false }
}

/// A record as one line: when, what, and its fields.
fn readable(record: &impl Serialize) -> String {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::to_value(record) else { return String::new() };
    let mut parts = Vec::new();
    if let Some(at) = fields.remove("at").and_then(|at| at.as_u64()) {
        parts.push(format!("{:.3} s", seconds(at)));
    }
    if let Some(serde_json::Value::String(what)) = fields.remove("record") {
        parts.push(what);
    }
    for (name, value) in fields {
        match value {
            serde_json::Value::String(text) => parts.push(format!("{name}={text}")),
            value => parts.push(format!("{name}={value}")),
        }
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Change;

    #[test]
    fn a_record_reads_as_a_line() {
        let record = RunRecord::Membership {
            conversation: 7,
            user: 2,
            change: Change::Left,
            by: 2,
            asked: 5,
            outcome: crate::history::Outcome::Acknowledged,
        };
        let text = readable(&At { at: 1_234_567, record });
        assert!(text.starts_with("1.234 s membership ") && text.contains(" change=left"), "{text}");
    }
}
