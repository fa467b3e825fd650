//! When faults were on, and until when something had to have arrived.

use std::collections::BTreeMap;

use crate::history::{At, RunRecord};

use super::finding::{Finding, Kind};

/// The run's phases, in µs since its start.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Times with at least one fault, ascending and apart.
    faults: Vec<(u64, u64)>,
    late_after: u64,
    /// Everybody is back.
    pub all_back: Option<u64>,
    /// What came later does not count.
    pub closed: u64,
}

/// A fault as the histories tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: String,
    pub target: String,
    pub begun: u64,
    pub ended: Option<u64>,
    pub took_effect: bool,
    pub detail: String,
}

impl Timeline {
    /// The timeline, the faults, and what is wrong with the run's own records.
    pub fn of(run: &[At<RunRecord>]) -> (Self, Vec<Fault>, Vec<Finding>) {
        let mut timeline = Self::default();
        let mut faults: BTreeMap<u32, Fault> = BTreeMap::new();
        let mut findings = Vec::new();
        let mut bad = |text: String| findings.push(Finding::new(Kind::BadHistory, text));
        let mut closed = None;
        for At { at, record } in run {
            let at = *at;
            match record {
                RunRecord::Run { late_after_ms, .. } => timeline.late_after = late_after_ms * 1000,
                RunRecord::FaultBegun { id, kind, target, detail } => {
                    let (kind, target, detail) = (kind.clone(), target.clone(), detail.clone());
                    let fault = Fault { kind, target, begun: at, ended: None, took_effect: false, detail };
                    if faults.insert(*id, fault).is_some() {
                        bad(format!("the fault {id} began twice"));
                    }
                }
                RunRecord::FaultEnded { id, took_effect, detail } => match faults.get_mut(id) {
                    Some(fault) if fault.ended.is_none() => {
                        (fault.ended, fault.took_effect) = (Some(at), *took_effect);
                        fault.detail = detail.clone();
                    }
                    _ => bad(format!("the fault {id} ended, and is not one that is on")),
                },
                RunRecord::Final => timeline.all_back = Some(at),
                RunRecord::Closed => closed = Some(at),
                RunRecord::OnPurpose(_)
                | RunRecord::Conversation { .. }
                | RunRecord::Membership { .. }
                | RunRecord::Healed => {}
            }
        }
        for (id, fault) in faults.iter().filter(|(_, fault)| fault.ended.is_none()) {
            bad(format!("the fault {id} ({} of {}) never ended", fault.kind, fault.target));
        }
        if timeline.all_back.is_none() || closed.is_none() {
            bad("the run did not come to its end: `final` or `closed` is missing".to_owned());
        }
        timeline.closed = closed.or(run.last().map(|last| last.at)).unwrap_or(0);
        timeline.faults = merged(faults.values().map(|fault| (fault.begun, fault.ended.unwrap_or(u64::MAX))));
        (timeline, faults.into_values().collect(), findings)
    }

    /// When something that could be delivered from `time` on is late: at the end of the first stretch without a fault
    /// that begins then or later and is long enough. None when the run was over before.
    pub fn deadline(&self, time: u64) -> Option<u64> {
        let mut from = time;
        let next = self.faults.partition_point(|(_, ended)| *ended <= time);
        for (begun, ended) in &self.faults[next..] {
            if *begun >= from.saturating_add(self.late_after) {
                break;
            }
            from = *ended;
        }
        from.checked_add(self.late_after).filter(|deadline| *deadline <= self.closed)
    }

    /// Ends of faults behind which there was time enough to see whether something is late.
    pub fn quiet_ends(&self) -> u64 {
        let quiet = |ended: u64| self.deadline(ended) == Some(ended.saturating_add(self.late_after));
        self.faults.iter().filter(|(_, ended)| quiet(*ended)).count() as u64
    }
}

fn merged(faults: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut faults: Vec<_> = faults.collect();
    faults.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (begun, ended) in faults {
        match merged.last_mut() {
            Some((_, last)) if begun <= *last => *last = ended.max(*last),
            _ => merged.push((begun, ended)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(faults: &[(u64, u64)]) -> Timeline {
        Timeline { faults: merged(faults.iter().copied()), late_after: 5, all_back: None, closed: 100 }
    }

    #[test]
    fn time_counts_from_the_end_of_the_last_fault_in_its_way() {
        let timeline = timeline(&[(10, 20), (15, 22), (24, 30), (50, 60)]);
        assert_eq!(timeline.deadline(1), Some(6), "the fault begins later");
        assert_eq!(timeline.deadline(5), Some(10), "just before it");
        assert_eq!(timeline.deadline(6), Some(35), "no 5 before 10, none between 22 and 24");
        assert_eq!(timeline.deadline(30), Some(35));
        assert_eq!(timeline.deadline(48), Some(65));
        assert_eq!(timeline.deadline(95), Some(100));
        assert_eq!(timeline.deadline(96), None, "the run is over");
        assert_eq!(timeline.quiet_ends(), 2);
    }

    #[test]
    fn a_fault_without_end_leaves_nothing_to_be_late() {
        assert_eq!(timeline(&[(10, u64::MAX)]).deadline(7), None);
    }
}
