//! What was sent, against what is stored: nothing lost that was acknowledged, nothing twice, nothing that nobody sent.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{ClientRecord, Histories};

use super::{
    finding::{Finding, Kind, Place},
    ledger::{Conversation, Ledger, Row},
};

mod order;

/// Codes after which nothing is stored, now or later: the others say "perhaps" or "try again".
const FINAL: [&str; 8] = [
    "invalid_destination",
    "invalid_body",
    "body_too_large",
    "not_found",
    "not_a_member",
    "forbidden",
    "spoofed_sender",
    "conflict",
];

/// A message by its name: sender, conversation, `client_message_id`.
type Name<'a> = (i64, i64, &'a str);

/// One time that it was sent.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    place: Place,
    session: u32,
    at: u64,
    /// In this session, an answer that is no acknowledgement.
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Acknowledged {
    seq: i64,
    message_id: i64,
    epoch: i64,
    place: Place,
    at: u64,
}

/// Everything about one message.
#[derive(Debug, Default)]
struct Sent<'a> {
    text: &'a str,
    attempts: Vec<Attempt>,
    acknowledged: Vec<Acknowledged>,
    refused: Vec<(&'a str, Place)>,
    unanswered: bool,
}

/// All sends of a run.
#[derive(Debug, Default)]
pub struct Sends<'a> {
    by_name: BTreeMap<Name<'a>, Sent<'a>>,
    senders: HashSet<i64>,
    findings: Vec<Finding>,
}

impl<'a> Sends<'a> {
    pub fn of(histories: &'a Histories) -> Self {
        let mut sends = Self::default();
        for (client, history) in histories.clients.iter().enumerate() {
            sends.senders.insert(history.user);
            for (record, at) in history.records.iter().enumerate() {
                sends.take(history.user, Place { client, record }, at.at, &at.record);
            }
        }
        sends
    }

    fn take(&mut self, user: i64, place: Place, at: u64, record: &'a ClientRecord) {
        match record {
            ClientRecord::Send { session, conversation, client_message_id, text } => {
                let sent = self.by_name.entry((user, *conversation, client_message_id)).or_default();
                if !sent.attempts.is_empty() && sent.text != text {
                    let what = format!("{client_message_id:?} was sent with two texts, which this checker can't judge");
                    self.findings.push(Finding::new(Kind::BadHistory, what).place(place.client, place.record));
                }
                sent.text = text;
                sent.attempts.push(Attempt { place, session: *session, at, refused: false });
            }
            ClientRecord::Acknowledged { conversation, client_message_id, seq, message_id, epoch, .. } => {
                let answer = Acknowledged { seq: *seq, message_id: *message_id, epoch: *epoch, place, at };
                self.answered(user, *conversation, client_message_id, place).acknowledged.push(answer);
            }
            ClientRecord::Refused { session, conversation, client_message_id, code } => {
                let sent = self.answered(user, *conversation, client_message_id, place);
                sent.refused.push((code, place));
                let same = |attempt: &&mut Attempt| {
                    attempt.session == *session && attempt.place.client == place.client && !attempt.refused
                };
                if let Some(attempt) = sent.attempts.iter_mut().find(same) {
                    attempt.refused = true;
                }
            }
            ClientRecord::Unanswered { conversation, client_message_id, .. } => {
                self.answered(user, *conversation, client_message_id, place).unanswered = true;
            }
            _ => {}
        }
    }

    fn answered(&mut self, user: i64, conversation: i64, id: &'a str, place: Place) -> &mut Sent<'a> {
        let sent = self.by_name.entry((user, conversation, id)).or_default();
        if sent.attempts.is_empty() {
            let what = format!("an answer to {id:?} in {conversation}, which was not sent");
            self.findings.push(Finding::new(Kind::BadHistory, what).place(place.client, place.record));
        }
        sent
    }

    /// How many messages were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.by_name.values().filter(|sent| !sent.acknowledged.is_empty()).count() as u64
    }

    /// How many messages were sent more than once.
    pub fn sent_again(&self) -> u64 {
        self.by_name.values().filter(|sent| sent.attempts.len() > 1).count() as u64
    }

    pub fn check(self, ledger: &Ledger) -> Vec<Finding> {
        let mut findings = Vec::new();
        let rows: HashMap<Name, Vec<&Row>> = rows_by_name(ledger);
        for (name, sent) in &self.by_name {
            let stored = rows.get(name).map_or(&[][..], Vec::as_slice);
            check_message(*name, sent, stored, ledger, &mut findings);
        }
        for conversation in ledger.conversations.values() {
            self.check_rows(conversation, &mut findings);
        }
        order::check(&self, &rows, &mut findings);
        findings.extend(self.findings);
        findings
    }

    /// Each row was sent, once, by a member.
    fn check_rows(&self, conversation: &Conversation, findings: &mut Vec<Finding>) {
        let texts: HashMap<(i64, &str), &str> = (self.by_name.iter())
            .filter(|((_, of, _), _)| *of == conversation.id)
            .map(|((sender, _, id), sent)| ((*sender, sent.text), *id))
            .collect();
        for row in &conversation.rows {
            let at = |kind: Kind, text: String| {
                Finding::new(kind, text)
                    .conversation(conversation.id)
                    .seq(row.seq)
                    .user(row.sender)
                    .client_message_id(row.client_message_id)
            };
            if !conversation.was_member(row.sender, row.seq) {
                let text = format!("{}-{} is of {}, who was no member then", conversation.id, row.seq, row.sender);
                findings.push(at(Kind::NotAMember, text));
            }
            let name = (row.sender, conversation.id, row.client_message_id);
            if !self.senders.contains(&row.sender) || self.by_name.contains_key(&name) {
                continue;
            }
            let (kind, why) = match texts.get(&(row.sender, row.text)) {
                Some(id) => (Kind::StoredTwice, format!("has the text of {id:?}, under another client_message_id")),
                None => (Kind::NotSent, "was not sent by anybody".to_owned()),
            };
            findings.push(at(kind, format!("{}-{} {why}", conversation.id, row.seq)));
        }
    }
}

fn rows_by_name<'a>(ledger: &'a Ledger<'a>) -> HashMap<Name<'a>, Vec<&'a Row<'a>>> {
    let mut rows: HashMap<Name, Vec<&Row>> = HashMap::new();
    for conversation in ledger.conversations.values() {
        for row in &conversation.rows {
            rows.entry((row.sender, conversation.id, row.client_message_id)).or_default().push(row);
        }
    }
    rows
}

fn check_message(name: Name, sent: &Sent, stored: &[&Row], ledger: &Ledger, findings: &mut Vec<Finding>) {
    let (user, conversation, id) = name;
    let say = |kind: Kind, place: Option<Place>, text: String| {
        let finding = Finding::new(kind, text).conversation(conversation).user(user).client_message_id(id);
        Finding { place, ..finding }
    };
    let sent_at = sent.attempts.first().map(|attempt| attempt.place);
    if stored.len() > 1 {
        let seqs: Vec<String> = stored.iter().map(|row| row.seq.to_string()).collect();
        let text = format!("{id:?} of {user} is stored in {conversation} at the seqs {}", seqs.join(", "));
        findings.push(say(Kind::StoredTwice, sent_at, text).seq(stored[0].seq));
    }
    if let Some(other) = sent.acknowledged.iter().find(|other| {
        let first = &sent.acknowledged[0];
        (other.seq, other.message_id) != (first.seq, first.message_id)
    }) {
        let first = sent.acknowledged[0].seq;
        let text = format!("{id:?} of {user} was acknowledged as {conversation}-{first} and as {}", other.seq);
        findings.push(say(Kind::StoredTwice, Some(other.place), text).seq(other.seq));
    }
    if let Some(row) = stored.iter().find(|row| row.text != sent.text && !sent.attempts.is_empty()) {
        let text = format!("{id:?} of {user} is stored as {conversation}-{} with another text", row.seq);
        findings.push(say(Kind::NotSent, sent_at, text).seq(row.seq));
    }
    for answer in &sent.acknowledged {
        if let Err(why) = is_stored(answer, stored) {
            // What a restore of the database has taken back was never promised.
            if answer.epoch < ledger.epoch && stored.is_empty() {
                continue;
            }
            let text = format!("{id:?} of {user} was acknowledged as {conversation}-{}, and {why}", answer.seq);
            findings.push(say(Kind::AcknowledgedLost, Some(answer.place), text).seq(answer.seq));
        }
    }
    let only_refused = sent.acknowledged.is_empty() && !sent.unanswered && sent.refused.len() == sent.attempts.len();
    if only_refused
        && sent.refused.iter().all(|(code, _)| FINAL.contains(code))
        && let (Some((code, place)), Some(row)) = (sent.refused.last(), stored.iter().find(|row| row.text == sent.text))
    {
        let text = format!("{id:?} of {user} was refused with {code}, and is stored as {conversation}-{}", row.seq);
        findings.push(say(Kind::RefusedStored, Some(*place), text).seq(row.seq));
    }
}

fn is_stored(answer: &Acknowledged, stored: &[&Row]) -> Result<(), String> {
    let Some(row) = stored.iter().find(|row| row.seq == answer.seq) else {
        return Err(match stored.first() {
            Some(row) => format!("is stored at {}", row.seq),
            None => "is not stored".to_owned(),
        });
    };
    if row.id != answer.message_id {
        return Err(format!("has the id {}, not {}", row.id, answer.message_id));
    }
    if row.epoch != answer.epoch {
        return Err(format!("is of the epoch {}, not {}", row.epoch, answer.epoch));
    }
    Ok(())
}
