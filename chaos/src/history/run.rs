//! The records of the run as a whole.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::checker::Kind;

/// What happened to the stack, and what was asked of it outside of any client's connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum RunRecord {
    /// The first record.
    Run {
        seed: u64,
        /// By the wall clock, RFC 3339, for people.
        started: String,
        /// What makes the same run again, for people.
        command: String,
        /// How soon after a fault's end everything must be with every client that is connected.
        late_after_ms: u64,
        floors: Floors,
    },
    /// The negative control: something is wrong with the stack on purpose.
    OnPurpose(OnPurpose),
    /// A conversation was made (the answer was read), with these members from its first `seq` on.
    Conversation { id: i64, kind: String, members: Vec<i64>, asked: u64 },
    /// A request to join, add, leave or remove is over. Changes of one user's membership in one conversation are
    /// asked for one after the other.
    Membership {
        conversation: i64,
        user: i64,
        change: Change,
        /// Who asked.
        by: i64,
        /// When the request was about to be sent; the record's own time is that of the answer.
        asked: u64,
        outcome: Outcome,
    },
    /// From here on something is done to the stack.
    FaultBegun { id: u32, kind: String, target: String, detail: String },
    /// It is taken back: the process runs again, the link is whole. From here on the time for delivery counts.
    FaultEnded {
        id: u32,
        /// It was seen to do what it was meant to (the lease was lost, the link was cut), and `detail` says how.
        took_effect: bool,
        detail: String,
    },
    /// No fault comes any more, and nobody sends.
    Healed,
    /// Each client is connected and has resumed each of its subscriptions.
    Final,
    /// Clients are about to disconnect. What was not delivered until here was not delivered.
    Closed,
}

/// A bug that the services were built with, and what the run is made of to show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnPurpose {
    pub bug: String,
    /// Everything is as for the bug, and it is off: what is found then, it is not to blame for.
    pub left_out: bool,
    /// What the bug takes out.
    pub guard: String,
    /// What would repair it, and is off.
    pub off: Vec<String>,
    /// It is caught when one of these is found.
    pub breaks: Vec<Kind>,
}

impl fmt::Display for OnPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bug, guard, left_out, .. } = self;
        let what = if *left_out { "left out, to compare" } else { "on" };
        write!(f, "{bug} is {what} (guard: {guard})")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Joined,
    Left,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Acknowledged,
    /// With this code; nothing has changed.
    Refused(String),
    /// Nothing is known: it may have been done.
    Unanswered,
}

/// What a run must have shown at least; one that shows less proves nothing and fails. Zero, or no entry: not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Floors {
    pub acknowledged: u64,
    pub deliveries: u64,
    /// Membership changes that were acknowledged.
    pub memberships: u64,
    /// Sessions with one of another client of the same user beside them, at the same gateway and time.
    pub side_by_side: u64,
    /// RESUMED with `recovered: true` that went on from a cursor, by `tier`.
    pub resumes: BTreeMap<String, u64>,
    /// Faults that took effect, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Ends of faults after which `late_after_ms` passed without another fault, so that lateness could be seen.
    pub quiet_ends: u64,
}
