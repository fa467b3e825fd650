//! What a run must have shown at least, from its options: a run in which nothing happened proves nothing.

use std::collections::BTreeMap;

use crate::{
    faults::{self, Planned},
    history::Floors,
    options::RunOptions,
    workload,
};

/// Faults stop people from sending for a good part of a run.
const SHARE: f64 = 0.25;
/// The smallest conversations have two people, and most have ten.
const DELIVERIES_OF_EACH: u64 = 5;
/// Of those who have two clients: with few gateways many more meet.
const SIDE_BY_SIDE: f64 = 0.1;
/// Clients that come back soon find what they missed in their gateway's memory; after some faults, or at another
/// gateway, in the log: how many depends on where they happen to go.
const RESUMES: [(&str, f64); 3] = [("live", 0.5), ("ring", 0.1), ("log", 0.03)];

/// Of a run with these faults.
pub fn of(options: &RunOptions, planned: &[Planned]) -> Floors {
    let seconds = options.duration.as_secs_f64();
    let acknowledged = (options.rate * seconds * SHARE) as u64;
    let resumes = RESUMES.map(|(tier, of_each)| (tier.to_owned(), ((options.clients as f64 * of_each) as u64).max(1)));
    Floors {
        acknowledged,
        deliveries: acknowledged * DELIVERIES_OF_EACH,
        memberships: (options.changes * seconds * SHARE) as u64,
        side_by_side: (workload::with_two(options.clients) as f64 * SIDE_BY_SIDE) as u64,
        resumes: BTreeMap::from(resumes),
        faults: faults::counts(planned),
        quiet_ends: planned.len() as u64,
    }
}
