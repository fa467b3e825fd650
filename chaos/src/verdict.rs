//! What is said about a run: `verdict.json` for programs, `verdict.html` for people, a summary for the terminal.

mod evidence;
mod page;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use self::evidence::Evidence;
use crate::{
    checker::{self, Checked, Finding, Kind, Shown},
    history::{Floors, Histories, OnPurpose, RunRecord},
    truth::{self, TruthRecord},
};

/// So many findings of one kind are told; all are counted.
const TOLD: usize = 20;

/// The whole verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub passed: bool,
    pub seed: u64,
    pub command: String,
    pub started: String,
    /// The negative control: what was wrong with the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_purpose: Option<OnPurpose>,
    /// To the last record.
    pub seconds: f64,
    pub shown: Shown,
    pub floors: Floors,
    pub faults: Vec<Fault>,
    /// All findings, by kind.
    pub counts: BTreeMap<Kind, usize>,
    pub findings: Vec<Told>,
}

/// A fault, in seconds since the run's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: String,
    pub target: String,
    pub begun: f64,
    pub ended: Option<f64>,
    pub took_effect: bool,
    pub detail: String,
}

/// A finding, with the promise that it breaks and the records that show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub kind: Kind,
    pub promise: String,
    pub text: String,
    pub conversation: Option<i64>,
    pub seq: Option<i64>,
    pub user: Option<i64>,
    pub evidence: Vec<Line>,
}

/// A record as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub file: String,
    /// From 1.
    pub line: usize,
    pub text: String,
    /// It is the one that the finding is about.
    pub here: bool,
}

/// Where a run's verdict is.
pub fn json_file(folder: &Path) -> PathBuf {
    folder.join("verdict.json")
}

/// Where the page is.
pub fn page_file(folder: &Path) -> PathBuf {
    folder.join("verdict.html")
}

/// Reads a run's folder, judges it, and writes the verdict and its page there.
///
/// # Errors
/// Something of the run can't be read, or the verdict not be written. A run that broke a promise is no error.
pub fn judge(folder: &Path) -> Result<Verdict> {
    let histories = Histories::read(folder)?;
    let truth = truth::read(folder)?;
    let checked = checker::check(&histories, &truth);
    let verdict = Verdict::of(&checked, &histories, &truth);
    let json = serde_json::to_vec_pretty(&verdict)?;
    for (file, content) in [(json_file(folder), json), (page_file(folder), page::page(&verdict).into_bytes())] {
        fs::write(&file, content).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(verdict)
}

impl Verdict {
    fn of(checked: &Checked, histories: &Histories, truth: &[TruthRecord]) -> Self {
        let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
        for finding in &checked.findings {
            *counts.entry(finding.kind).or_default() += 1;
        }
        let evidence = Evidence::new(histories, truth);
        let mut told: BTreeMap<Kind, usize> = BTreeMap::new();
        let findings = checked.findings.iter().filter(|finding| {
            let told = told.entry(finding.kind).or_default();
            *told += 1;
            *told <= TOLD
        });
        let findings = findings.map(|finding| tell(finding, &evidence)).collect();
        let begun = histories.run.first().map(|first| first.record.clone());
        let (seed, started, command, floors) = match begun {
            Some(RunRecord::Run { seed, started, command, floors, .. }) => (seed, started, command, floors),
            _ => Default::default(),
        };
        let on_purpose = histories.run.iter().find_map(|at| match &at.record {
            RunRecord::OnPurpose(on_purpose) => Some(on_purpose.clone()),
            _ => None,
        });
        Self {
            passed: checked.findings.is_empty(),
            seed,
            command,
            started,
            on_purpose,
            seconds: seconds(histories.run.last().map_or(0, |last| last.at)),
            shown: checked.shown.clone(),
            floors,
            faults: checked.faults.iter().map(Fault::of).collect(),
            counts,
            findings,
        }
    }
}

impl Fault {
    fn of(fault: &checker::Fault) -> Self {
        let checker::Fault { kind, target, begun, ended, took_effect, detail } = fault.clone();
        Self { kind, target, begun: seconds(begun), ended: ended.map(seconds), took_effect, detail }
    }
}

fn tell(finding: &Finding, evidence: &Evidence) -> Told {
    Told {
        kind: finding.kind,
        promise: finding.kind.promise().to_owned(),
        text: finding.text.clone(),
        conversation: finding.conversation,
        seq: finding.seq,
        user: finding.user,
        evidence: evidence.of(finding),
    }
}

/// From µs, to the millisecond.
#[expect(clippy::cast_precision_loss, reason = "a run has fewer milliseconds than a float has exact integers")]
fn seconds(time: u64) -> f64 {
    (time / 1000) as f64 / 1000.0
}

fn by_name(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

impl fmt::Display for Verdict {
    /// What the terminal shows: what there was, and the first finding of each kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.shown;
        let word = if self.passed { "kept" } else { "BROKEN" };
        writeln!(f, "the promise was {word}: seed {}, {:.0} s", self.seed, self.seconds)?;
        if let Some(on_purpose) = &self.on_purpose {
            writeln!(f, "  on purpose: {on_purpose}; off: {}", on_purpose.off.join(", "))?;
        }
        writeln!(
            f,
            "  {} clients of {} people, {} sessions ({} beside another of the same person), {} conversations",
            shown.clients, shown.people, shown.sessions, shown.side_by_side, shown.conversations
        )?;
        writeln!(
            f,
            "  {} messages acknowledged ({} were sent again), {} deliveries, {} membership changes",
            shown.acknowledged, shown.sent_again, shown.deliveries, shown.memberships
        )?;
        writeln!(f, "  resumes by tier: {}", by_name(&shown.resumes))?;
        writeln!(f, "  faults that took effect: {}", by_name(&shown.faults))?;
        if !shown.faults_without_effect.is_empty() {
            writeln!(f, "  faults without effect: {}", by_name(&shown.faults_without_effect))?;
        }
        writeln!(f, "  ends of faults with quiet behind them: {}", shown.quiet_ends)?;
        for (kind, count) in &self.counts {
            writeln!(f, "\n{kind}: {count}. Broken: {}", kind.promise())?;
            let of_kind = self.findings.iter().filter(|finding| finding.kind == *kind);
            for (number, finding) in of_kind.take(3).enumerate() {
                writeln!(f, "  {}", finding.text)?;
                for line in finding.evidence.iter().filter(|_| number == 0) {
                    writeln!(f, "    {} {}:{} {}", if line.here { '>' } else { ' ' }, line.file, line.line, line.text)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
