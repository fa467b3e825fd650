//! The shortest piece of history that shows a finding: the few records of that client and conversation around it, what
//! was sent and answered, what is stored, and the faults that were on.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    checker::{Finding, Kind, Place},
    history::{ClientRecord, Histories, RunRecord},
    truth::TruthRecord,
};

use super::{Line, seconds};

/// So many arrivals before the place, and so many behind it.
const BEFORE: usize = 3;
const AFTER: usize = 2;
/// A fault that ended so long before is shown, in µs.
const NEAR: u64 = 10_000_000;
/// More lines than this nobody reads.
const LINES: usize = 40;

pub struct Evidence<'a> {
    histories: &'a Histories,
    truth: &'a [TruthRecord],
}

impl<'a> Evidence<'a> {
    pub fn new(histories: &'a Histories, truth: &'a [TruthRecord]) -> Self {
        Self { histories, truth }
    }

    pub fn of(&self, finding: &Finding) -> Vec<Line> {
        let mut places = self.of_message(finding);
        if let Some(place) = finding.place {
            places.extend(self.around(finding, place));
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

    /// What the client saw on that subscription and conversation, around the place.
    fn around(&self, finding: &Finding, place: Place) -> BTreeSet<(usize, usize)> {
        let Some(history) = self.histories.clients.get(place.client) else { return BTreeSet::new() };
        let records = &history.records;
        let mut found = BTreeSet::new();
        let mut take = |record: usize| found.insert((place.client, record));
        let concerns = |record: &ClientRecord| match record {
            ClientRecord::Message { subscription, conversation, .. }
            | ClientRecord::Resumed { subscription, conversation, .. } => {
                finding.subscription.as_ref().is_none_or(|of| of == subscription)
                    && finding.conversation.is_none_or(|of| of == *conversation)
            }
            _ => false,
        };
        let of_session = |record: &ClientRecord| match record {
            ClientRecord::Subscribed { subscription, .. }
            | ClientRecord::Attached { subscription, .. }
            | ClientRecord::Unsubscribed { subscription, .. } => {
                finding.subscription.as_ref().is_some_and(|of| of == subscription)
            }
            ClientRecord::Connected { .. } | ClientRecord::Disconnected { .. } => true,
            _ => false,
        };
        take(place.record);
        let mut before = 0;
        for record in (0..place.record.min(records.len())).rev() {
            let what = &records[record].record;
            if concerns(what) && (before < BEFORE || matches!(what, ClientRecord::Resumed { .. })) {
                before += 1;
                take(record);
            } else if of_session(what) {
                take(record);
            }
            if matches!(what, ClientRecord::Connected { .. }) {
                break;
            }
        }
        let mut after = 0;
        for (record, at) in records.iter().enumerate().skip(place.record + 1) {
            if concerns(&at.record) || of_session(&at.record) {
                take(record);
                after += 1;
            }
            if after == AFTER {
                break;
            }
        }
        // The other times that it came.
        for (record, at) in records.iter().enumerate() {
            if let ClientRecord::Message { seq, .. } = &at.record
                && concerns(&at.record)
                && finding.seq == Some(*seq)
            {
                take(record);
            }
        }
        found
    }

    /// Everything about the message: sent, answered.
    fn of_message(&self, finding: &Finding) -> BTreeSet<(usize, usize)> {
        let named = finding.client_message_id.as_deref();
        let stored = self.truth.iter().find_map(|record| match record {
            TruthRecord::Message { conversation, seq, client_message_id, .. }
                if finding.conversation == Some(*conversation) && finding.seq == Some(*seq) =>
            {
                Some(client_message_id.as_str())
            }
            _ => None,
        });
        let mut found = BTreeSet::new();
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
    use crate::history::{At, Change};

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
