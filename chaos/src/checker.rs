//! Judges a run by what its clients wrote down and what is stored, and by nothing else: it shares no code with the
//! services, nor with the clients.
//!
//! Pure: records in, findings out. Where a record could have come about in more than one way, the checker takes the one
//! that is no breach: what it finds is one. What it relies on: the order of the records in each file, the one clock, and
//! that a message is committed between its first SEND and the first that was seen of it.

mod aftermath;
mod delivery;
mod finding;
mod floors;
mod ledger;
mod log;
mod owed;
mod sends;
mod shown;
mod streams;
mod timeline;

pub use finding::{Finding, Kind, Place};
pub use shown::Shown;
pub use timeline::Fault;

use std::collections::{BTreeMap, BTreeSet};

use self::{
    ledger::Ledger,
    owed::Owed,
    sends::Sends,
    streams::{Client, Session, streams},
    timeline::Timeline,
};
use crate::{
    history::{Histories, Outcome, RunRecord},
    truth::TruthRecord,
};

/// What there is to say about a run.
#[derive(Clone, Debug)]
pub struct Checked {
    /// None: the promise was kept, as far as this run shows.
    pub findings: Vec<Finding>,
    pub shown: Shown,
    pub faults: Vec<Fault>,
}

/// Judges a run.
pub fn check(histories: &Histories, truth: &[TruthRecord]) -> Checked {
    let (timeline, faults, mut findings) = Timeline::of(&histories.run);
    let ledger = Ledger::of(truth, histories);
    let sends = Sends::of(histories);
    let mut clients: Vec<_> =
        histories.clients.iter().enumerate().map(|(number, history)| streams(number, history)).collect();
    let mut shown = Shown {
        people: histories.clients.iter().map(|client| client.user).collect::<BTreeSet<_>>().len() as u64,
        clients: histories.clients.len() as u64,
        sessions: clients.iter().map(|client| client.sessions.len() as u64).sum(),
        side_by_side: side_by_side(histories, &clients),
        conversations: ledger.conversations.len() as u64,
        acknowledged: sends.acknowledged(),
        sent_again: sends.sent_again(),
        memberships: acknowledged_changes(histories),
        quiet_ends: timeline.quiet_ends(),
        ..Shown::default()
    };
    for fault in &faults {
        let by_kind = if fault.took_effect { &mut shown.faults } else { &mut shown.faults_without_effect };
        *by_kind.entry(fault.kind.clone()).or_default() += 1;
    }
    findings.extend(log::check(&ledger));
    findings.extend(sends.check(&ledger));
    findings.extend(aftermath::memberships(&histories.run, &ledger));
    let owed = Owed { ledger: &ledger, timeline: &timeline, run: &histories.run };
    for client in &mut clients {
        findings.append(&mut client.findings);
        for chain in &client.chains {
            let tracks = delivery::check(chain, &ledger, &mut shown, &mut findings);
            owed.check(chain, &tracks, &mut findings);
        }
    }
    findings.extend(aftermath::all_back(histories, &clients, &timeline));
    findings.extend(aftermath::left_over(&ledger));
    for at in &histories.run {
        if let RunRecord::Run { floors, .. } = &at.record {
            findings.extend(floors::check(floors, &shown));
        }
    }
    findings.sort_by_key(|finding| finding.kind);
    Checked { findings, shown, faults }
}

/// Sessions with one of another client of the same user beside them: what gateways keep for users has both in it.
fn side_by_side(histories: &Histories, clients: &[Client]) -> u64 {
    let mut of_user: BTreeMap<i64, Vec<(usize, &Session)>> = BTreeMap::new();
    for (number, (history, client)) in histories.clients.iter().zip(clients).enumerate() {
        of_user.entry(history.user).or_default().extend(client.sessions.iter().map(|session| (number, session)));
    }
    let beside = |one: &(usize, &Session), other: &(usize, &Session)| {
        let ((of, one), (others, other)) = (one, other);
        of != others && one.gateway == other.gateway && one.since < other.until && other.since < one.until
    };
    let met = |sessions: &Vec<(usize, &Session)>| {
        sessions.iter().filter(|one| sessions.iter().any(|other| beside(one, other))).count() as u64
    };
    of_user.values().map(met).sum()
}

fn acknowledged_changes(histories: &Histories) -> u64 {
    let is = |record: &RunRecord| matches!(record, RunRecord::Membership { outcome: Outcome::Acknowledged, .. });
    histories.run.iter().filter(|at| is(&at.record)).count() as u64
}

#[cfg(test)]
pub(crate) mod tests;
