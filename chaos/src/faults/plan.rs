//! When which fault comes, for how long, and to what.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use super::{Fault, Role, Trouble};

/// Before each fault, also the time in which everything of the one before must have arrived: above
/// [`crate::run::LATE_AFTER`].
const GAP: [f64; 2] = [6.0, 8.0];
/// Kinds that are shuffled together: seeds that follow each other go through all kinds, each in an order of its own.
const DEAL: usize = 7;

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    pub fault: Fault,
    /// From the end of the one before.
    pub gap: Duration,
    /// How long the trouble lasts; the start of a process comes on top.
    pub length: Duration,
    /// Decides which copy, which link, which direction.
    pub pick: u64,
}

impl Planned {
    /// About how long it takes, gap and start of the process included, in seconds.
    fn estimate(&self) -> f64 {
        let start = match self.fault {
            Fault::Kill(role) | Fault::Term(role) => start_of(role),
            Fault::KillBoth(one, other) => start_of(one) + start_of(other),
            Fault::RestartTask | Fault::KillTaskSessions => 2.0,
            Fault::FailTask => 8.0,
            Fault::KillCutOffWorker => start_of(Role::Worker),
            // Until its lease is over and a worker has swept.
            Fault::KillGatewaySlowWorker => 9.0,
            _ => 0.0,
        };
        let drain = if matches!(self.fault, Fault::Term(_)) { 3.0 } else { 0.0 };
        (self.gap + self.length).as_secs_f64() + start + drain
    }
}

fn start_of(role: Role) -> f64 {
    match role {
        Role::Connect => 9.0,
        Role::Kafka => 6.0,
        Role::Mysql => 3.0,
        Role::Core | Role::Gateway | Role::Worker | Role::Redis => 1.0,
    }
}

/// Faults of these kinds that fill about so much time; at least one.
pub fn plan(seed: u64, kinds: &[Fault], time: Duration) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kinds = kinds.to_vec();
    kinds.sort_unstable();
    kinds.dedup();
    // Not by groups: one seed shall have something of everything.
    kinds.shuffle(&mut StdRng::seed_from_u64(0));
    if kinds.is_empty() {
        return Vec::new();
    }
    let first = (seed as usize).wrapping_mul(DEAL) % kinds.len();
    kinds.rotate_left(first);
    for deal in kinds.chunks_mut(DEAL) {
        deal.shuffle(&mut rng);
    }
    let mut planned = Vec::new();
    let mut left = time.as_secs_f64();
    for fault in kinds.into_iter().cycle() {
        let seconds = |range: [f64; 2], rng: &mut StdRng| Duration::from_secs_f64(rng.random_range(range[0]..range[1]));
        let (gap, length) = (seconds(GAP, &mut rng), seconds(length_of(fault), &mut rng));
        let next = Planned { fault, gap, length, pick: rng.random() };
        left -= next.estimate();
        if left < 0.0 && !planned.is_empty() {
            break;
        }
        planned.push(next);
    }
    planned
}

/// How many faults of each kind.
pub fn counts(planned: &[Planned]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for one in planned {
        *counts.entry(one.fault.to_string()).or_default() += 1;
    }
    counts
}

/// In seconds.
fn length_of(fault: Fault) -> [f64; 2] {
    match fault {
        Fault::Kill(_) | Fault::KillBoth(..) => [0.2, 2.5],
        Fault::Term(_) => [0.0, 1.0],
        // A gateway's lease lasts 5 s, a worker's session with Kafka 10 s, a core's lease of its node id 30 s.
        Fault::Pause(Role::Gateway) => [6.0, 9.0],
        Fault::Pause(Role::Worker) => [11.0, 14.0],
        Fault::Pause(Role::Core) => [31.0, 34.0],
        Fault::Pause(_) => [4.0, 8.0],
        Fault::Link(Trouble::HalfOpen, _) => [4.0, 9.0],
        Fault::Link(..) | Fault::StallCommits => [2.0, 6.0],
        // So long that a worker that stores offsets too early has committed them, every second.
        Fault::KillCutOffWorker => [2.0, 4.0],
        Fault::RebalanceStorm => [5.0, 8.0],
        Fault::FlushRedis
        | Fault::RestartTask
        | Fault::KillTaskSessions
        | Fault::FailTask
        | Fault::KillGatewaySlowWorker => [0.0, 0.5],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(120);

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_seed_another() {
        let all = Fault::all();
        assert_eq!(plan(7, &all, TIME), plan(7, &all, TIME));
        assert_ne!(plan(7, &all, TIME), plan(8, &all, TIME));
    }

    #[test]
    fn twenty_seeds_of_two_minutes_have_every_kind() {
        let all = Fault::all();
        let mut seen = BTreeMap::new();
        for seed in 1..=20 {
            for (kind, count) in counts(&plan(seed, &all, TIME)) {
                *seen.entry(kind).or_insert(0) += count;
            }
        }
        for fault in all {
            assert!(seen.contains_key(&fault.to_string()), "{fault}: {seen:?}");
        }
    }

    #[test]
    fn a_plan_fits_its_time_but_is_never_empty() {
        let faults = plan(1, &Fault::all(), TIME);
        assert!((5..=14).contains(&faults.len()), "{}", faults.len());
        assert_eq!(plan(1, &[Fault::Kill(Role::Connect)], Duration::from_secs(1)).len(), 1);
        assert!(faults.iter().all(|one| one.gap >= Duration::from_secs(6)));
    }
}
