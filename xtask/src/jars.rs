//! Jars from Maven Central, as a pom.xml pins them: those of `connect/pom.xml` (Kafka, Connect and Debezium) are copied
//! into `.switchboard/pkg/java`.

use crate::command;
use crate::interrupt::Interrupt;
use crate::layout::Layout;
use crate::report::Report;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const STEP: &str = "jars";
const PROGRESS_EVERY: Duration = Duration::from_secs(3);

/// The broker, Connect and their tools: one class path.
pub fn kafka(layout: &Layout) -> PathBuf {
    folder(layout).join("kafka")
}

/// What Connect gets as `plugin.path`: one folder in it for each plugin.
pub fn plugins(layout: &Layout) -> PathBuf {
    folder(layout).join("plugins")
}

fn folder(layout: &Layout) -> PathBuf {
    layout.pkg().join("java")
}

/// Copies the jars unless those of this very pom.xml are there.
pub fn install(layout: &Layout, report: &Report, interrupt: &Interrupt) -> Result<()> {
    let profiles = [("kafka", "kafka"), ("debezium", "plugins/debezium")];
    let profiles = profiles.map(|(profile, folder)| Jars { what: profile, profile: Some(profile), folder });
    let pinned = copy(layout, report, (STEP, "connect/pom.xml"), &folder(layout), &profiles, interrupt)?;
    let version = |name| property(&pinned, name).unwrap_or("?");
    report.line(STEP, format_args!("kafka {}, debezium {}", version("kafka.version"), version("debezium.version")));
    Ok(())
}

/// The dependencies of a pom.xml, or of one of its profiles.
pub struct Jars<'a> {
    pub what: &'a str,
    pub profile: Option<&'a str>,
    /// Where in the target they go.
    pub folder: &'a str,
}

/// Lets Maven copy jars to `target`, unless those of this very pom.xml are there; gives its text.
pub fn copy(
    layout: &Layout,
    report: &Report,
    (step, pom): (&str, &str),
    target: &Path,
    jars: &[Jars<'_>],
    interrupt: &Interrupt,
) -> Result<String> {
    let pom = layout.root().join(pom);
    let pinned = fs::read_to_string(&pom).with_context(|| format!("reading {}", pom.display()))?;
    let stamp = "stamp.xml";
    if fs::read_to_string(target.join(stamp)).ok().as_ref() == Some(&pinned) {
        return Ok(pinned);
    }
    let fresh = target.with_extension("partial");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    for Jars { what, profile, folder } in jars {
        report.line(step, format_args!("copying the jars of {what}"));
        let mut maven = Command::new("mvn");
        maven.args(["--batch-mode", "--file"]).arg(&pom);
        if let Some(profile) = profile {
            maven.args(["--activate-profiles", profile]);
        }
        maven.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
        maven.arg(format!("-DoutputDirectory={}", fresh.join(folder).display()));
        let (mut downloaded, mut said) = (0, Instant::now());
        command::run(maven, &layout.log(step), interrupt, |line| {
            downloaded += u32::from(line.contains("Downloaded from"));
            if downloaded > 0 && said.elapsed() > PROGRESS_EVERY {
                said = Instant::now();
                report.line(step, format_args!("{downloaded} files downloaded"));
            }
        })?;
    }
    fs::write(fresh.join(stamp), &pinned)?;
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    fs::rename(&fresh, target)?;
    Ok(pinned)
}

/// The text of `<name>…</name>`.
fn property<'a>(pom: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = pom.split_once(&format!("<{name}>"))?;
    rest.split('<').next()
}

#[cfg(test)]
mod tests {
    #[test]
    fn pinned_versions_are_read_from_the_pom() {
        let pom = "<properties><kafka.version>4.3.1</kafka.version></properties>";
        assert_eq!(super::property(pom, "kafka.version"), Some("4.3.1"));
        assert_eq!(super::property(pom, "debezium.version"), None);
    }
}
