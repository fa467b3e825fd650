//! The negative control, as data: each bug that the services can be built with (`chassis::seeded`), what it takes to see
//! it, and which promises it has to be caught by. [`crate::control`] runs them.
//!
//! A layer that would repair what the bug does is off in the same run, so that it is the bug that shows and not how well
//! it is mended. What a run without the bug would not keep either is no use then: `--without-bug` shows that it would.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    checker::Kind,
    faults::{Fault, Role, Trouble},
    history::OnPurpose,
    links::Route,
};

/// A bug, and how it is made to show.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// As `chassis::seeded::Bug` has it.
    pub bug: &'static str,
    /// What is taken out.
    pub guard: &'static str,
    /// None: people alone show it.
    pub faults: &'static [Fault],
    /// How long faults are planned for.
    pub duration: Duration,
    pub clients: usize,
    /// Messages a second.
    pub rate: f64,
    /// How long a client stays, on average.
    pub session: Duration,
    /// Joins and leaves a second.
    pub changes: f64,
    /// On top of the periodic comparison, which is off in every run.
    pub off: &'static [Layer],
    /// It is caught when one of these is found.
    pub breaks: &'static [Kind],
}

/// Something that repairs what others have lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// What is missing in front of an event is read from the log.
    GapFill,
}

/// In every run, with bugs or without.
const COMPARISON: &str = "the periodic comparison of heads (as in every run)";

impl Layer {
    fn text(self) -> &'static str {
        match self {
            Self::GapFill => "filling of gaps (GapCheckOff is on, too)",
        }
    }

    /// The bug that takes the layer out.
    fn bug(self) -> &'static str {
        match self {
            Self::GapFill => "GapCheckOff",
        }
    }
}

const USUAL: Recipe = Recipe {
    bug: "",
    guard: "",
    faults: &[],
    duration: Duration::from_secs(20),
    clients: 80,
    rate: 40.0,
    session: Duration::from_secs(20),
    changes: 1.0,
    off: &[],
    breaks: &[],
};

/// In the order in which they are run.
pub const RECIPES: [Recipe; 10] = [
    Recipe {
        bug: "OffsetBeforeXadd",
        guard: "a worker stores an offset only when Redis has the entries",
        // Killed with something in hand: its link to Redis was dead, and it went on reading Kafka.
        faults: &[Fault::KillCutOffWorker],
        off: &[Layer::GapFill],
        breaks: &[Kind::Gap, Kind::Lost, Kind::Late],
        ..USUAL
    },
    Recipe {
        bug: "DuplicateCheckOff",
        guard: "a gateway drops an event that it has delivered",
        // What was not committed of its offsets is read again.
        faults: &[Fault::Kill(Role::Worker)],
        breaks: &[Kind::Twice, Kind::Disorder],
        ..USUAL
    },
    Recipe {
        bug: "GapCheckOff",
        guard: "an event above the next waits until the gap is filled",
        faults: &[Fault::FlushRedis],
        breaks: &[Kind::Gap, Kind::Lost],
        ..USUAL
    },
    Recipe {
        bug: "HeadsNotCompared",
        guard: "a new incarnation compares all heads",
        // So few messages that none comes behind a lost one in time, which would show the gap.
        faults: &[Fault::FlushRedis],
        duration: Duration::from_secs(25),
        clients: 120,
        rate: 6.0,
        changes: 0.5,
        breaks: &[Kind::Late, Kind::Lost],
        ..USUAL
    },
    Recipe {
        bug: "ReadBeforeRegister",
        guard: "the head is read after the interest is announced",
        // The announcement takes longer than the read. People come and go, so that there is something to announce, and send
        // much, so that something is committed meanwhile.
        faults: &[Fault::Link(Trouble::Delay, Route::GatewayRedis)],
        duration: Duration::from_secs(60),
        rate: 200.0,
        session: Duration::from_secs(3),
        off: &[Layer::GapFill],
        breaks: &[Kind::Gap, Kind::Lost, Kind::Late],
        ..USUAL
    },
    Recipe {
        bug: "PlainRead",
        guard: "heads and user states are read under the row's lock (FOR SHARE)",
        // A commit that the worker has and a plain read has not: that takes a moment, and here longer.
        faults: &[Fault::StallCommits],
        duration: Duration::from_secs(30),
        session: Duration::from_secs(5),
        off: &[Layer::GapFill],
        breaks: &[Kind::Gap, Kind::Lost, Kind::Late],
        ..USUAL
    },
    Recipe {
        bug: "XaddMakesStreams",
        guard: "an XADD makes no stream (NOMKSTREAM)",
        // Written for a gateway that was forgotten in between, with its interest.
        faults: &[Fault::KillGatewaySlowWorker],
        breaks: &[Kind::Leaked],
        ..USUAL
    },
    Recipe {
        bug: "OutboxRowOnItsOwn",
        guard: "message row and outbox row are one transaction",
        // MySQL has to die between the two; or somebody reads the log there.
        faults: &[Fault::Kill(Role::Mysql), Fault::KillBoth(Role::Mysql, Role::Core)],
        duration: Duration::from_secs(40),
        rate: 60.0,
        session: Duration::from_secs(5),
        breaks: &[Kind::LogBroken, Kind::Lost, Kind::Gap, Kind::NotRecovered],
        ..USUAL
    },
    Recipe {
        bug: "FreshMessageId",
        guard: "a gateway's retry of a SEND has its first client_message_id",
        faults: &[Fault::Kill(Role::Core), Fault::Link(Trouble::Cut, Route::GatewayCore)],
        breaks: &[Kind::StoredTwice],
        ..USUAL
    },
    Recipe {
        bug: "JoinWithoutUserSeq",
        guard: "a join is also an event of the user, with a user_seq",
        faults: &[],
        changes: 3.0,
        breaks: &[Kind::Lost, Kind::Late, Kind::Start, Kind::LogBroken],
        ..USUAL
    },
];

impl Recipe {
    /// What the services are told: the bug, unless it is left out, and those that take the layers out.
    pub fn switched_on(&self, without_bug: bool) -> Vec<String> {
        let bug = Some(self.bug).filter(|_| !without_bug);
        bug.into_iter().chain(self.off.iter().map(|layer| layer.bug())).map(str::to_owned).collect()
    }

    /// What the run's history, and so its verdict, says about it.
    pub fn on_purpose(&self, without_bug: bool) -> OnPurpose {
        OnPurpose {
            bug: self.bug.to_owned(),
            left_out: without_bug,
            guard: self.guard.to_owned(),
            off: std::iter::once(COMPARISON)
                .chain(self.off.iter().map(|layer| layer.text()))
                .map(str::to_owned)
                .collect(),
            breaks: self.breaks.to_vec(),
        }
    }
}

/// A bug by its name, or all of them.
pub fn named(text: &str) -> Result<Vec<Recipe>> {
    if text == "all" {
        return Ok(RECIPES.to_vec());
    }
    let Some(recipe) = RECIPES.iter().find(|recipe| recipe.bug == text) else {
        bail!("no bug is called `{text}`: expected all, or of {}", names());
    };
    Ok(vec![*recipe])
}

/// Of all bugs, for people.
pub fn names() -> String {
    RECIPES.map(|recipe| recipe.bug).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = include_str!("../../chassis/src/seeded.rs");
    const DOC: &str = include_str!("../../docs/delivery.md");

    #[test]
    fn every_bug_of_the_services_has_a_recipe_and_every_recipe_a_bug() {
        let (_, variants) = SERVICES.split_once("pub enum Bug {").expect("the enum of bugs");
        let (variants, _) = variants.split_once("\n}").expect("its end");
        let variants = variants.lines().map(|line| line.trim().trim_end_matches(','));
        let bugs: Vec<&str> = variants.filter(|line| line.starts_with(char::is_uppercase)).collect();
        assert_eq!(bugs, RECIPES.map(|recipe| recipe.bug));
    }

    #[test]
    fn every_bug_is_described_with_what_it_takes_to_see_it() {
        for recipe in RECIPES {
            let row = DOC.lines().find(|line| line.starts_with(&format!("| `{}` |", recipe.bug)));
            let row = row.unwrap_or_else(|| panic!("{} is not described", recipe.bug));
            for fault in recipe.faults {
                assert!(row.contains(&format!("`{fault}`")), "{}: {fault}", recipe.bug);
            }
        }
    }

    #[test]
    fn what_says_nothing_of_a_promise_catches_no_bug() {
        for recipe in RECIPES {
            assert!(!recipe.breaks.is_empty(), "{}", recipe.bug);
            let says_nothing = |kind: &Kind| matches!(kind, Kind::TooLittle | Kind::BadHistory | Kind::NotBack);
            assert!(!recipe.breaks.iter().any(says_nothing), "{}", recipe.bug);
        }
    }

    #[test]
    fn a_layer_is_off_by_a_bug_of_its_own_and_stays_off_without_the_bug() {
        let recipe = named("OffsetBeforeXadd").unwrap()[0];
        assert_eq!(recipe.switched_on(false), ["OffsetBeforeXadd", "GapCheckOff"]);
        assert_eq!(recipe.switched_on(true), ["GapCheckOff"]);
        assert_eq!(recipe.on_purpose(false).off.len(), 2);
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_are_known() {
        assert_eq!(named("all").unwrap().len(), RECIPES.len());
        let error = named("gapcheckoff").unwrap_err().to_string();
        assert!(error.contains("gapcheckoff") && error.contains("GapCheckOff"), "{error}");
    }
}
