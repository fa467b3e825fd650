//! Kafka, Connect and Debezium: the jars that `connect/pom.xml` pins, copied by Maven into `.switchboard/pkg/java`.

use crate::command;
use crate::interrupt::Interrupt;
use crate::layout::Layout;
use crate::report::Report;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;
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
    let pom = layout.root().join("connect/pom.xml");
    let pinned = fs::read_to_string(&pom).with_context(|| format!("reading {}", pom.display()))?;
    let target = folder(layout);
    if fs::read_to_string(target.join("stamp.xml")).ok().as_ref() != Some(&pinned) {
        let fresh = layout.pkg().join("java.partial");
        if fresh.exists() {
            fs::remove_dir_all(&fresh)?;
        }
        for (profile, folder) in [("kafka", "kafka"), ("debezium", "plugins/debezium")] {
            report.line(STEP, format_args!("copying the jars of {profile}"));
            let mut maven = Command::new("mvn");
            maven.args(["--batch-mode", "--file"]).arg(&pom).args(["--activate-profiles", profile]);
            maven.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
            maven.arg(format!("-DoutputDirectory={}", fresh.join(folder).display()));
            let (mut downloaded, mut said) = (0, Instant::now());
            command::run(maven, &layout.log(STEP), interrupt, |line| {
                downloaded += u32::from(line.contains("Downloaded from"));
                if downloaded > 0 && said.elapsed() > PROGRESS_EVERY {
                    said = Instant::now();
                    report.line(STEP, format_args!("{downloaded} files downloaded"));
                }
            })?;
        }
        fs::write(fresh.join("stamp.xml"), &pinned)?;
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::rename(&fresh, &target)?;
    }
    let version = |name| property(&pinned, name).unwrap_or("?");
    report.line(STEP, format_args!("kafka {}, debezium {}", version("kafka.version"), version("debezium.version")));
    Ok(())
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
