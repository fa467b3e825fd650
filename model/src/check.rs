//! Running a model: every reachable state, or until a promise is broken.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use crate::{Action, Setup, State, promise};

/// A system as the checker sees it.
pub struct System(pub Setup);

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.0)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        Action::enabled(state, &self.0, actions);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        action.apply(&mut state, &self.0);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promise::properties()
    }
}

/// What a run found.
#[derive(Debug)]
pub struct Verdict {
    pub setup: &'static str,
    /// Different states, until the end or until the breach was found.
    pub states: usize,
    /// Steps of the longest of the shortest ways.
    pub depth: usize,
    /// It came to rest at least once.
    pub rests: bool,
    /// Promises that were broken, each with the steps of a shortest way there.
    pub broken: Vec<(&'static str, Vec<Action>)>,
}

/// Visits every state; stops at the first broken promise.
pub fn check(setup: Setup) -> Verdict {
    run(setup, HasDiscoveries::AnyFailures, None)
}

/// Stops when that promise is broken, and not at another; then finds a shortest way there.
pub fn check_for(setup: Setup, promise: &'static str) -> Verdict {
    let until = || HasDiscoveries::AllOf([promise].into());
    let mut verdict = run(setup.clone(), until(), None);
    let mut steps = verdict.steps(promise);
    while let Some(found) = steps {
        // The checker visits states in blocks and keeps the last breach of a block: is there one with fewer steps?
        let shorter = run(setup.clone(), until(), Some(found + 1));
        steps = shorter.steps(promise);
        if steps.is_some() {
            verdict.broken = shorter.broken;
        }
    }
    verdict
}

/// `depth`: only states with fewer steps than one less are visited.
fn run(setup: Setup, finish_when: HasDiscoveries, depth: Option<usize>) -> Verdict {
    let name = setup.name;
    // One thread: breadth first, and the same way each time.
    let checker = System(setup).checker().threads(1).finish_when(finish_when);
    let checker = depth.into_iter().fold(checker, |checker, depth| checker.target_max_depth(depth));
    let checker = checker.spawn_bfs().join();
    let mut broken = Vec::new();
    let mut rests = false;
    for (promise, path) in checker.discoveries() {
        if promise == promise::COMES_TO_REST {
            rests = true;
        } else {
            broken.push((promise, path.into_actions()));
        }
    }
    broken.sort_by_key(|(_, steps)| steps.len());
    Verdict { setup: name, states: checker.unique_state_count(), depth: checker.max_depth(), rests, broken }
}

impl Verdict {
    /// How many steps lead to a breach.
    fn steps(&self, promise: &str) -> Option<usize> {
        self.broken.iter().find(|(broken, _)| *broken == promise).map(|(_, steps)| steps.len())
    }

    /// The steps to a breach, one a line.
    pub fn trace(&self, promise: &str) -> Option<String> {
        let (_, steps) = self.broken.iter().find(|(broken, _)| *broken == promise)?;
        let mut text = String::new();
        for (no, step) in (1..).zip(steps) {
            let _ = writeln!(text, "  {no:2}. {step}");
        }
        Some(text)
    }
}

/// States, and how many of them are traps: no way without a further fault leads from there to rest.
///
/// That everything is delivered at rest would say little of a system that may go round in circles for ever.
pub fn traps(setup: Setup) -> (usize, usize) {
    let system = System(setup);
    let first = State::first(&system.0);
    let mut numbers = HashMap::from([(hash(&first), 0_u32)]);
    let mut queue = VecDeque::from([first]);
    // By state: from which states it is reached by a step that must happen.
    let mut before: Vec<Vec<u32>> = vec![Vec::new()];
    let mut good: Vec<u32> = Vec::new();
    let mut actions = Vec::new();
    for number in 0.. {
        let Some(state) = queue.pop_front() else { break };
        actions.clear();
        system.actions(&state, &mut actions);
        if !actions.iter().any(Action::must_happen) {
            good.push(number);
        }
        for action in actions.drain(..) {
            let must_happen = action.must_happen();
            let Some(next) = system.next_state(&state, action) else { continue };
            let new = numbers.len() as u32;
            let next_number = *numbers.entry(hash(&next)).or_insert(new);
            if next_number == new {
                before.push(Vec::new());
                queue.push_back(next);
            }
            if must_happen {
                before[next_number as usize].push(number);
            }
        }
    }
    let mut rests = vec![false; before.len()];
    while let Some(number) = good.pop() {
        if !std::mem::replace(&mut rests[number as usize], true) {
            good.append(&mut before[number as usize]);
        }
    }
    (rests.len(), rests.iter().filter(|rests| !**rests).count())
}

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}
