//! Is what is stored whole: seqs without gaps, each message with its event, each membership with its events.

use std::collections::{BTreeMap, HashSet};

use super::{
    finding::{Finding, Kind},
    ledger::{Conversation, Event, Ledger, Row},
};

pub fn check(ledger: &Ledger) -> Vec<Finding> {
    let mut findings: Vec<Finding> = (ledger.orphans.iter())
        .map(|what| Finding::new(Kind::LogBroken, format!("{what} is of no conversation")))
        .collect();
    for conversation in ledger.conversations.values() {
        check_seqs(conversation, &mut findings);
        check_messages(conversation, &mut findings);
        check_memberships(conversation, &mut findings);
    }
    check_users(ledger, &mut findings);
    findings
}

fn broken(conversation: &Conversation, seq: i64, text: String) -> Finding {
    Finding::new(Kind::LogBroken, text).conversation(conversation.id).seq(seq)
}

fn check_seqs(conversation: &Conversation, findings: &mut Vec<Finding>) {
    let id = conversation.id;
    for seq in 1..=conversation.last_seq {
        if !conversation.events.contains_key(&seq) {
            let text = format!("{id}-{seq} has no event, and the head is {}", conversation.last_seq);
            findings.push(broken(conversation, seq, text));
        }
    }
    for (seq, events) in &conversation.events {
        if *seq < 1 || *seq > conversation.last_seq {
            let text = format!("there is an event {id}-{seq}, and the head is {}", conversation.last_seq);
            findings.push(broken(conversation, *seq, text));
        }
        if events.len() > 1 {
            findings.push(broken(conversation, *seq, format!("{id}-{seq} has {} events", events.len())));
        }
        for event in events {
            if let Err(why) = agrees(event, id, *seq) {
                findings.push(broken(conversation, *seq, format!("the payload of {id}-{seq} {why}")));
            }
        }
    }
}

/// The payload says what the columns say.
fn agrees(event: &Event, conversation: i64, seq: i64) -> Result<(), String> {
    let Some(says) = event.says else { return Err("is no envelope".to_owned()) };
    let columns = (conversation, seq, event.epoch, event.event_id, event.event_type);
    let payload = (says.conversation, says.seq, says.epoch, says.event_id.as_str(), says.event_type.as_str());
    if columns != payload {
        return Err(format!("says {payload:?}, its columns {columns:?}"));
    }
    if (event.event_type == "MESSAGE") != says.message.is_some() {
        return Err("has a message where none is, or none where one is".to_owned());
    }
    Ok(())
}

fn check_messages(conversation: &Conversation, findings: &mut Vec<Finding>) {
    let id = conversation.id;
    let mut rows: BTreeMap<i64, &Row> = BTreeMap::new();
    for row in &conversation.rows {
        if rows.insert(row.seq, row).is_some() {
            findings.push(broken(conversation, row.seq, format!("{id}-{} has two rows", row.seq)));
        }
    }
    let mut before = 0;
    for row in rows.values() {
        // Against the one before it, so that a hole is told once.
        if row.message_no != before + 1 {
            let text = format!("{id}-{} is message {} and comes behind message {before}", row.seq, row.message_no);
            findings.push(broken(conversation, row.seq, text));
        }
        before = row.message_no;
        let message = conversation.event(row.seq).and_then(|event| event.says?.message.as_ref());
        let Some(message) = message else {
            let text = format!("the message {id}-{} ({:?}) has no event", row.seq, row.client_message_id);
            findings.push(broken(conversation, row.seq, text));
            continue;
        };
        let stored = (row.id, row.message_no, row.client_message_id, row.text);
        let says = (message.id, message.message_no, message.client_message_id.as_str(), message.text.as_str());
        if stored != says {
            let text = format!("the event of {id}-{} says {says:?}, its row {stored:?}", row.seq);
            findings.push(broken(conversation, row.seq, text));
        }
    }
    for (seq, events) in &conversation.events {
        if events.iter().any(|event| event.event_type == "MESSAGE") && !rows.contains_key(seq) {
            findings.push(broken(conversation, *seq, format!("the event of {id}-{seq} has no row")));
        }
    }
    let messages = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    if conversation.message_no != messages {
        let text = format!("{id} counts {} messages and has {messages}", conversation.message_no);
        findings.push(broken(conversation, conversation.last_seq, text));
    }
}

fn check_memberships(conversation: &Conversation, findings: &mut Vec<Finding>) {
    let id = conversation.id;
    let mut begun = HashSet::new();
    let mut ended = HashSet::new();
    for (user, intervals) in &conversation.members {
        let mut before = 0;
        for interval in intervals {
            begun.insert((*user, interval.joined_seq));
            let join = conversation.event(interval.joined_seq);
            let joined = join.is_some_and(|event| {
                let by_creation = event.event_type == "CONVERSATION_CREATED" && interval.joined_seq == 1;
                by_creation
                    || (event.event_type == "USER_JOINED"
                        && event.subject == Some(*user)
                        && event.user_seq == Some(interval.joined_user_seq))
            });
            let left = interval.left_seq.is_none_or(|left| {
                ended.insert((*user, left));
                conversation.event(left).is_some_and(|event| {
                    event.event_type == "USER_LEFT"
                        && event.subject == Some(*user)
                        && event.user_seq == interval.left_user_seq
                })
            });
            if interval.joined_seq <= before || !joined || !left {
                let text = format!("the membership {interval:?} of {user} in {id} is not what its events say");
                findings.push(broken(conversation, interval.joined_seq, text).user(*user));
            }
            before = interval.left_seq.unwrap_or(i64::MAX);
        }
    }
    for (seq, events) in &conversation.events {
        for event in events {
            let Some(subject) = event.subject else { continue };
            let known = match event.event_type {
                "USER_JOINED" => begun.contains(&(subject, *seq)),
                "USER_LEFT" => ended.contains(&(subject, *seq)),
                _ => true,
            };
            if !known {
                let text = format!("{id}-{seq} says {} of {subject}, and no membership does", event.event_type);
                findings.push(broken(conversation, *seq, text).user(subject));
            }
        }
    }
}

/// A user's `user_seq` has no gaps, and each is a membership's beginning or end.
fn check_users(ledger: &Ledger, findings: &mut Vec<Finding>) {
    for (user, user_seq) in &ledger.users {
        let mut events = ledger.user_events.get(user).into_iter().flatten();
        for expected in 1..=*user_seq {
            match events.next() {
                Some((found, "MEMBERSHIP_STARTED" | "MEMBERSHIP_ENDED")) if *found == expected => {}
                other => {
                    let text = format!("{user} has the user_seq {user_seq}, and at {expected} stands {other:?}");
                    findings.push(Finding::new(Kind::LogBroken, text).user(*user));
                    break;
                }
            }
        }
        if let Some((further, _)) = events.next().filter(|(found, _)| found > user_seq) {
            let text = format!("{user} has the user_seq {user_seq}, and an event with {further}");
            findings.push(Finding::new(Kind::LogBroken, text).user(*user));
        }
    }
}
