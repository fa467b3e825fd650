//! The order of seqs, against the order in which messages were sent.

use std::collections::{BTreeMap, HashMap};

use super::{Attempt, Finding, Kind, Name, Row, Sends, Sent};

/// A message that is stored, once.
#[derive(Clone, Copy, Debug)]
struct Stored<'a> {
    name: Name<'a>,
    sent: &'a Sent<'a>,
    seq: i64,
}

pub fn check(sends: &Sends, rows: &HashMap<Name, Vec<&Row>>, findings: &mut Vec<Finding>) {
    let mut conversations: BTreeMap<i64, Vec<Stored>> = BTreeMap::new();
    for (name, sent) in &sends.by_name {
        if let Some([row]) = rows.get(name).map(Vec::as_slice)
            && !sent.attempts.is_empty()
        {
            conversations.entry(name.1).or_default().push(Stored { name: *name, sent, seq: row.seq });
        }
    }
    for stored in conversations.values() {
        check_sessions(stored, findings);
        check_answered(stored, findings);
    }
}

/// Messages of one session to one conversation.
fn check_sessions(stored: &[Stored], findings: &mut Vec<Finding>) {
    let mut sessions: BTreeMap<(usize, u32), Vec<(Attempt, &Stored)>> = BTreeMap::new();
    for message in stored {
        for attempt in &message.sent.attempts {
            let session = (attempt.place.client, attempt.session);
            sessions.entry(session).or_default().push((*attempt, message));
        }
    }
    for attempts in sessions.values_mut() {
        attempts.sort_by_key(|(attempt, _)| attempt.place.record);
        let mut highest: Option<(Attempt, &Stored)> = None;
        for (attempt, message) in attempts.iter().filter(|(_, message)| message.sent.refused.is_empty()) {
            match highest {
                Some((_, earlier)) if earlier.name == message.name => {}
                Some((_, earlier)) if earlier.seq > message.seq => {
                    if always_behind(message.sent, earlier.sent) {
                        findings.push(breach(earlier, message, attempt, "was sent later in the same session"));
                    }
                }
                _ => highest = Some((*attempt, message)),
            }
        }
    }
}

/// Whether each time that `later` was sent, `earlier` had been sent before in the same session, or answered before.
fn always_behind(later: &Sent, earlier: &Sent) -> bool {
    later.attempts.iter().all(|attempt| {
        let same = |other: &Attempt| {
            other.place.client == attempt.place.client
                && other.session == attempt.session
                && other.place.record < attempt.place.record
        };
        earlier.attempts.iter().any(same) || earlier.acknowledged.iter().any(|answer| answer.at < attempt.at)
    })
}

/// A message whose first SEND came after another's answer has a higher seq, whoever sent them.
fn check_answered(stored: &[Stored], findings: &mut Vec<Finding>) {
    let mut by_start: Vec<&Stored> = stored.iter().collect();
    by_start.sort_by_key(|message| message.sent.attempts[0].at);
    let first_answer = |message: &Stored| message.sent.acknowledged.iter().map(|answer| answer.at).min();
    let mut answered: Vec<(u64, &Stored)> =
        stored.iter().filter_map(|message| Some((first_answer(message)?, message))).collect();
    answered.sort_by_key(|(at, _)| *at);
    let mut answered = answered.into_iter().peekable();
    let mut highest: Option<&Stored> = None;
    for message in by_start {
        let first = &message.sent.attempts[0];
        while let Some((_, earlier)) = answered.next_if(|(at, _)| *at < first.at) {
            highest = highest.filter(|highest| highest.seq > earlier.seq).or(Some(earlier));
        }
        if let Some(earlier) = highest.filter(|earlier| earlier.seq > message.seq) {
            findings.push(breach(earlier, message, first, "was sent after that was answered"));
        }
    }
}

fn breach(earlier: &Stored, later: &Stored, attempt: &Attempt, why: &str) -> Finding {
    let (_, conversation, id) = later.name;
    let text = format!(
        "{id:?} has {conversation}-{}, before {:?} with {conversation}-{}, but {why}",
        later.seq, earlier.name.2, earlier.seq
    );
    Finding::new(Kind::SendOrder, text)
        .conversation(conversation)
        .seq(later.seq)
        .user(later.name.0)
        .client_message_id(id)
        .place(attempt.place.client, attempt.place.record)
}
