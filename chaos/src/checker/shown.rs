//! What a run has shown: how much of everything there was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts for the floors and the verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Users; some have more than one client.
    #[serde(default)]
    pub people: u64,
    pub clients: u64,
    pub sessions: u64,
    /// Those with one of another client of the same user beside them, at the same gateway and time.
    #[serde(default)]
    pub side_by_side: u64,
    pub conversations: u64,
    /// Messages, not answers.
    pub acknowledged: u64,
    pub sent_again: u64,
    pub deliveries: u64,
    /// Membership changes that were acknowledged.
    pub memberships: u64,
    /// RESUMED with `recovered: true` that went on from a cursor, by `tier`.
    pub resumes: BTreeMap<String, u64>,
    /// Faults that took effect, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Faults that did not, by kind.
    pub faults_without_effect: BTreeMap<String, u64>,
    pub quiet_ends: u64,
}
