//! The command line of a run.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    bugs::{self, Recipe},
    faults::Fault,
    history::OnPurpose,
    links::{Copies, Ports},
    workload::{self, Load},
};

/// Most copies of one service, as for `cargo xtask up`.
const MAX_COPIES: i64 = 9;
/// For each bug, when nothing else was said.
const SEEDS_OF_A_BUG: Seeds = Seeds { first: 1, last: 5 };

fn after_help() -> String {
    format!(
        "Each run starts with people of its own, on a stack that started from empty data. A run's folder has the \
         histories, the verdict as JSON and as a page; the exit status is 0 when every run kept the promise and showed \
         enough, else 1. Kinds of faults have names like kill-gateway, pause-worker, term-kafka, kill-redis+gateway, \
         flush-redis, cut-gateway-redis, half-open-core-mysql, restart-task, rebalance-storm; a wrong name lists all \
         of them.\n\nThe negative control: --bug runs services that have a bug on purpose, from a build of their own, \
         seed after seed (1..5) until the checker finds it; faults and load are what that bug needs. The exit status \
         is 0 when every bug was found, else 1. With --without-bug the same runs must find nothing of the kind. Bugs: \
         {}.",
        bugs::names()
    )
}

#[derive(Clone, Debug, Args)]
#[command(after_help = after_help())]
pub struct RunOptions {
    /// Decides on everything that is left to chance
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "seeds")]
    pub seed: u64,
    /// One run after the other, for each of these seeds, both ends included
    #[arg(long, value_name = "N..M", value_parser = seeds)]
    pub seeds: Option<Seeds>,
    /// How long people use the stack while it is broken; preparing and judging come on top
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Kinds of faults, or groups: all, kill, pause, term, pairs, links, connector
    #[arg(long = "fault", value_name = "NAME,…", value_delimiter = ',', default_value = "all", value_parser = named)]
    pub faults: Vec<Named>,
    /// The negative control: these bugs on purpose, or `all`, each until the checker has found it
    #[arg(long = "bug", value_name = "NAME,…", value_delimiter = ',', value_parser = bug,
          conflicts_with_all = ["seed", "faults", "duration", "clients", "rate", "session", "changes", "keep"])]
    pub bugs: Vec<Bugs>,
    /// With --bug: leaves the bug itself out, and repairing layers off, to show that it is the bug that is found
    #[arg(long, requires = "bugs")]
    pub without_bug: bool,
    /// Leaves the stack as it is at the end, until Ctrl-C: its links go through this program
    #[arg(long)]
    pub keep: bool,
    /// Copies of socket-gateway
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=MAX_COPIES))]
    pub gateways: u16,
    /// Copies of fanout-worker
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=MAX_COPIES))]
    pub workers: u16,
    /// Copies of core-services
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=MAX_COPIES))]
    pub cores: u16,
    /// People; every fifth has two clients
    #[arg(long, value_name = "N", default_value_t = 240)]
    pub clients: usize,
    /// Messages a second, over all clients
    #[arg(long, value_name = "N", default_value_t = 40.0)]
    pub rate: f64,
    /// How long a client stays connected, on average
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    pub session: Duration,
    /// Joins and leaves a second
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    pub changes: f64,
    /// An optimised build
    #[arg(long)]
    pub release: bool,
    /// Added to every port
    #[arg(long, value_name = "N", default_value_t = 11_000)]
    pub port_offset: u16,
    /// Sets a key of a service's configuration, as `cargo xtask up --set`
    #[arg(long = "set", value_name = "SERVICE.SECTION.KEY=VALUE")]
    pub settings: Vec<String>,
    /// Where a run's folder is made; without it, `runs` in the stack's folder
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// The stack's folder
    #[arg(long, hide = true)]
    pub folder: PathBuf,
    /// The tool that starts and stops processes
    #[arg(long, hide = true)]
    pub xtask: PathBuf,
    /// What is wrong with the stack, and how that is said to its services.
    #[arg(skip)]
    pub on_purpose: Option<(OnPurpose, Vec<String>)>,
}

/// Bugs that one name stands for.
#[derive(Clone, Debug)]
pub struct Bugs(Vec<Recipe>);

fn bug(text: &str) -> Result<Bugs, String> {
    bugs::named(text).map(Bugs).map_err(|error| error.to_string())
}

/// Kinds that one name stands for.
#[derive(Clone, Debug)]
pub struct Named(Vec<Fault>);

fn named(text: &str) -> Result<Named, String> {
    Fault::named(text).map(Named).map_err(|error| error.to_string())
}

/// Both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    first: u64,
    last: u64,
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let parsed = text.split_once("..").and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match parsed {
        Some((first, last)) if first <= last => Ok(Seeds { first, last }),
        _ => Err("expected two numbers like 1..20, the smaller one first".to_owned()),
    }
}

impl RunOptions {
    pub fn seeds(&self) -> std::ops::RangeInclusive<u64> {
        let seeds = self.seeds.or((!self.bugs.is_empty()).then_some(SEEDS_OF_A_BUG));
        seeds.map_or(self.seed..=self.seed, |Seeds { first, last }| first..=last)
    }

    /// Those that were asked for.
    pub fn bugs(&self) -> Vec<Recipe> {
        self.bugs.iter().flat_map(|named| named.0.iter().copied()).collect()
    }

    /// The same, to show this bug.
    pub fn with_recipe(&self, recipe: &Recipe) -> Self {
        let Recipe { faults, duration, clients, rate, session, changes, .. } = *recipe;
        let on_purpose = (recipe.on_purpose(self.without_bug), recipe.switched_on(self.without_bug));
        Self {
            faults: vec![Named(faults.to_vec())],
            duration,
            clients,
            rate,
            session,
            changes,
            on_purpose: Some(on_purpose),
            ..self.clone()
        }
    }

    pub fn kinds(&self) -> Vec<Fault> {
        self.faults.iter().flat_map(|named| named.0.iter().copied()).collect()
    }

    pub fn copies(&self) -> Copies {
        Copies { gateways: self.gateways, workers: self.workers, cores: self.cores }
    }

    pub fn ports(&self) -> Ports {
        Ports { offset: self.port_offset }
    }

    pub fn load(&self) -> Load {
        let clients = self.clients + workload::with_two(self.clients);
        Load { clients, rate: self.rate, session: self.session, changes: self.changes }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        options: RunOptions,
    }

    fn parse(arguments: &[&str]) -> Result<RunOptions, String> {
        let always = ["chaos", "--folder", "f", "--xtask", "x"];
        let cli = Cli::try_parse_from(always.iter().chain(arguments));
        cli.map(|cli| cli.options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bug_brings_its_faults_and_load_and_five_seeds() {
        let options = parse(&["--bug", "GapCheckOff,FreshMessageId"]).unwrap();
        assert_eq!((options.bugs().len(), options.seeds()), (2, 1..=5));
        let recipe = options.bugs()[1];
        let with = options.with_recipe(&recipe);
        assert_eq!((with.kinds().len(), with.clients), (recipe.faults.len(), recipe.clients));
        assert_eq!(with.on_purpose.unwrap().1, ["FreshMessageId"]);
        assert_eq!(parse(&["--bug", "all", "--seeds", "2..3"]).unwrap().seeds(), 2..=3);
    }

    #[test]
    fn what_a_bug_decides_is_not_asked_for_beside_it() {
        assert!(parse(&["--bug", "GapCheckOff", "--fault", "kill"]).unwrap_err().contains("cannot be used"));
        assert!(parse(&["--without-bug"]).unwrap_err().contains("--bug"));
        assert!(parse(&["--bug", "Gap"]).unwrap_err().contains("no bug is called `Gap`: expected all"));
        assert!(parse(&[]).unwrap().bugs().is_empty());
    }

    #[test]
    fn a_range_of_seeds_has_both_ends() {
        assert_eq!(seeds("3..5"), Ok(Seeds { first: 3, last: 5 }));
        for text in ["", "3", "5..3", "a..b", "1..=2"] {
            assert!(seeds(text).is_err(), "{text}");
        }
    }
}
