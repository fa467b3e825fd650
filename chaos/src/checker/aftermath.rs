//! What must be true of the whole when it is over: memberships as answered, everybody back, nothing left.

use std::collections::BTreeMap;

use crate::history::{At, Change, Histories, Outcome, RunRecord};

use super::{
    finding::{Finding, Kind},
    ledger::{Interval, Known, Ledger},
    streams::Client,
    timeline::Timeline,
};

/// Membership changes that were answered are what is stored.
pub fn memberships(run: &[At<RunRecord>], ledger: &Ledger) -> Vec<Finding> {
    let mut known: BTreeMap<(i64, i64), Known> = BTreeMap::new();
    let mut findings = Vec::new();
    for at in run {
        match &at.record {
            RunRecord::Conversation { id, members, .. } => {
                if !ledger.conversations.contains_key(id) {
                    let text = format!("the conversation {id} was answered, and is not stored");
                    findings.push(Finding::new(Kind::MembershipLost, text).conversation(*id));
                }
                for user in members {
                    known.entry((*id, *user)).or_default().take(Change::Joined, &Outcome::Acknowledged);
                }
            }
            RunRecord::Membership { conversation, user, change, outcome, .. } => {
                known.entry((*conversation, *user)).or_default().take(*change, outcome);
            }
            _ => {}
        }
    }
    for ((conversation, user), known) in known {
        let Some(stored) = ledger.conversations.get(&conversation) else { continue };
        if let Err(why) = agree(known, stored.intervals(user)) {
            let text = format!("user {user} in {conversation}: {why}");
            findings.push(Finding::new(Kind::MembershipLost, text).conversation(conversation).user(user));
        }
    }
    findings
}

/// Compares answers with what is stored: so many intervals, and whether the last one is open.
fn agree(known: Known, intervals: &[Interval]) -> Result<(), String> {
    let Known { begun, member, .. } = known;
    if intervals.len() < begun {
        return Err(format!("{begun} memberships were answered, {} are stored", intervals.len()));
    }
    let is_member = intervals.last().is_some_and(|last| last.left_seq.is_none());
    if known.is_sure() && member != is_member {
        let (answered, stored) = if member { ("joined", "none is open") } else { ("left", "a membership is open") };
        return Err(format!("the last answer was that they have {answered}, and {stored}"));
    }
    Ok(())
}

/// Every client that ever was there is there at the end, with what it had subscribed to.
pub fn all_back(histories: &Histories, clients: &[Client], timeline: &Timeline) -> Vec<Finding> {
    let Some(all_back) = timeline.all_back else { return Vec::new() };
    let mut findings = Vec::new();
    for (number, (history, client)) in histories.clients.iter().zip(clients).enumerate() {
        let mut away = |text: String| {
            let finding = Finding::new(Kind::NotBack, text).user(history.user);
            findings.push(finding.place(number, history.records.len().saturating_sub(1)));
        };
        let Some(last) = client.sessions.last() else {
            away(format!("{} was never connected", history.name));
            continue;
        };
        if last.since > all_back || last.until < timeline.closed {
            away(format!("{} was not connected from `final` to the end", history.name));
            continue;
        }
        let lasting = client.chains.iter().flat_map(|chain| Some((chain, chain.attachments.last()?)));
        for (chain, attachment) in lasting.filter(|(_, attachment)| attachment.until >= timeline.closed) {
            if attachment.attached_at.is_none_or(|at| at > all_back) {
                away(format!("{} had no RECEIPT for {:?} at `final`", history.name, chain.subscription));
            }
        }
    }
    findings
}

/// Lag and Redis.
pub fn left_over(ledger: &Ledger) -> Vec<Finding> {
    let lag = ledger.lag.iter().filter(|(_, records)| *records != 0).map(|(topic, records)| {
        Finding::new(Kind::Lag, format!("{records} records of {topic} are not taken by the fanout group"))
    });
    let leaked = ledger
        .left_over
        .iter()
        .map(|(what, key, detail)| Finding::new(Kind::Leaked, format!("{what}: {key}: {detail}")));
    lag.chain(leaked).collect()
}
