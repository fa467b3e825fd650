//! The negative control: for each bug seed after seed, until the checker has found it. A checker that finds nothing says
//! little, unless it finds what is there.
//!
//! Only what is a breach of a promise that this bug breaks counts ([`Recipe::breaks`]). A run that could not be made
//! (with a bug the stack may not even come up) has found nothing.

use std::fmt;

use anyhow::Result;
use tokio::time::Instant;

use crate::{
    bugs::Recipe,
    checker::Kind,
    options::RunOptions,
    run::{self, Site},
    verdict::Verdict,
};

/// What came of one bug.
#[derive(Debug)]
struct Tried {
    recipe: Recipe,
    without_bug: bool,
    seeds: u64,
    /// What counts, by the last run; empty: nothing.
    found: Vec<(Kind, usize)>,
    /// How many runs it took, or how many there were.
    runs: u64,
    /// What else the runs have found, and runs that could not be made.
    beside: Vec<String>,
    seconds: f64,
}

/// Runs what the options name, and says whether everything is as it has to be: each bug found, or nothing where the bugs
/// are left out.
pub async fn run(options: &RunOptions) -> Result<bool> {
    let all = async {
        let mut all = Vec::new();
        for recipe in options.bugs() {
            let tried = try_seeds(&recipe, options).await?;
            println!("\n{tried}\n");
            all.push(tried);
        }
        Ok(all)
    };
    let outcome = run::unless_told_to_stop(all).await;
    let down = run::stack_of(options).down().await;
    let all = outcome?;
    down?;
    println!("{}", Table(&all));
    Ok(all.iter().all(Tried::is_right))
}

async fn try_seeds(recipe: &Recipe, options: &RunOptions) -> Result<Tried> {
    let without_bug = options.without_bug;
    let options = options.with_recipe(recipe);
    let site = Site::open(&options).await?;
    let began = Instant::now();
    let seeds = options.seeds();
    let count = seeds.end() - seeds.start() + 1;
    let (found, beside) = (Vec::new(), Vec::new());
    let mut tried = Tried { recipe: *recipe, without_bug, seeds: count, found, runs: 0, beside, seconds: 0.0 };
    // What a run has broken is not to be found by the next one.
    let mut whole = false;
    for seed in seeds {
        println!("==== {}{}, seed {seed}", if without_bug { "without " } else { "" }, recipe.bug);
        tried.runs += 1;
        match run_once(&site, &options, seed, whole).await {
            Ok(verdict) => {
                whole = verdict.passed;
                tried.take(seed, &verdict);
            }
            Err(error) => {
                whole = false;
                eprintln!("seed {seed} could not be run: {error:#}");
                tried.beside.push(format!("seed {seed} could not be run"));
            }
        }
        if !tried.found.is_empty() {
            break;
        }
    }
    tried.seconds = began.elapsed().as_secs_f64();
    // While the links are there: workers drain through them.
    site.stack.down().await?;
    Ok(tried)
}

async fn run_once(site: &Site, options: &RunOptions, seed: u64, whole: bool) -> Result<Verdict> {
    if !whole {
        site.up_afresh().await?;
    }
    run::run_seed(options, site, seed).await
}

impl Tried {
    fn take(&mut self, seed: u64, verdict: &Verdict) {
        let counts = verdict.counts.iter().map(|(kind, count)| (*kind, *count));
        let (found, others): (Vec<_>, Vec<_>) = counts.partition(|(kind, _)| self.recipe.breaks.contains(kind));
        self.found = found;
        self.beside.extend((!others.is_empty()).then(|| format!("seed {seed}: {}", list(&others))));
    }

    fn is_right(&self) -> bool {
        let could_be_run = !self.beside.iter().any(|text| text.contains("could not be run"));
        if self.without_bug { self.found.is_empty() && could_be_run } else { !self.found.is_empty() }
    }

    /// How many seeds it took, or `NOT found`; and the other way round where the bug was left out.
    fn result(&self) -> String {
        let Self { runs, seeds, .. } = self;
        match (self.without_bug, self.found.is_empty()) {
            (false, false) => format!("found after {runs} of {seeds} seeds"),
            (false, true) => format!("NOT found by {runs} seeds"),
            (true, true) => format!("{runs} of {seeds} seeds find nothing of the kind"),
            (true, false) => format!("found ALL THE SAME after {runs} of {seeds} seeds"),
        }
    }
}

fn list(counts: &[(Kind, usize)]) -> String {
    counts.iter().map(|(kind, count)| format!("{kind} ({count})")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.without_bug { "without" } else { "bug" };
        write!(f, "{what} {}: {}", self.recipe.bug, self.result())?;
        if !self.found.is_empty() {
            let promises: Vec<&str> = self.found.iter().map(|(kind, _)| kind.promise()).collect();
            write!(f, ": {}: {}", list(&self.found), promises.join(" "))?;
        }
        if !self.beside.is_empty() {
            write!(f, " (beside it, {})", self.beside.join("; "))?;
        }
        Ok(())
    }
}

/// Everything at the end.
struct Table<'a>(&'a [Tried]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let results: Vec<String> = self.0.iter().map(Tried::result).collect();
        let bug = self.0.iter().map(|tried| tried.recipe.bug.len()).max().unwrap_or(0);
        let result = results.iter().map(String::len).max().unwrap_or(0);
        writeln!(f, "{:bug$}  {:result$}  {:>5}  what was found", "bug", "result", "s")?;
        for (tried, text) in self.0.iter().zip(&results) {
            let found = list(&tried.found);
            writeln!(f, "{:bug$}  {text:result$}  {:>5.0}  {found}", tried.recipe.bug, tried.seconds)?;
        }
        let right = self.0.iter().filter(|tried| tried.is_right()).count();
        write!(f, "{right} of {} are as they have to be", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bugs::named;

    fn tried(without_bug: bool, found: &[(Kind, usize)]) -> Tried {
        let recipe = named("GapCheckOff").unwrap()[0];
        Tried { recipe, without_bug, seeds: 5, found: found.to_vec(), runs: 2, beside: Vec::new(), seconds: 61.0 }
    }

    #[test]
    fn a_bug_is_said_to_be_found_with_the_promise_that_broke() {
        let found = tried(false, &[(Kind::Gap, 3)]);
        assert!(found.is_right());
        let text = "bug GapCheckOff: found after 2 of 5 seeds: gap (3): No event is passed over within a session.";
        assert_eq!(found.to_string(), text);
        let not = tried(false, &[]);
        assert!(!not.is_right() && not.to_string().contains("NOT found by 2 seeds"), "{not}");
    }

    #[test]
    fn where_the_bug_is_left_out_nothing_of_the_kind_may_be_found() {
        assert!(tried(true, &[]).is_right());
        assert!(!tried(true, &[(Kind::Gap, 1)]).is_right());
        let not_run = Tried { beside: vec!["seed 1 could not be run".to_owned()], ..tried(true, &[]) };
        assert!(!not_run.is_right());
    }

    #[test]
    fn the_table_has_a_line_for_each() {
        let table = Table(&[tried(false, &[(Kind::Gap, 3)]), tried(false, &[])]).to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[1].contains("2 of 5 seeds") && lines[1].contains("gap (3)"), "{table}");
        assert!(lines[3].starts_with("1 of 2"), "{table}");
    }
}
