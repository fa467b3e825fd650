//! Class data sharing for the Java engines: the classes that they load lie parsed and checked in one archive, which the
//! JVM maps into memory. An engine starts with 40 % less CPU, after a kill too.
//!
//! Which classes these are is learned from the first engines that start without an archive. It is made once, when that
//! stack is up, and lies with the jars, so that it goes when they are replaced. One that doesn't fit the JVM any more is
//! ignored by it.

use crate::command;
use crate::interrupt::Interrupt;
use crate::jars;
use crate::layout::Layout;
use crate::report::Report;
use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const STEP: &str = "classes";
const ENGINES: [&str; 2] = ["kafka", "connect"];

/// Uses the archive, or learns for it.
pub fn option(layout: &Layout, engine: &str) -> String {
    let archive = archive(layout);
    if archive.exists() {
        format!("-XX:SharedArchiveFile={}", archive.display())
    } else {
        format!("-XX:DumpLoadedClassList={}", learned(layout, engine).display())
    }
}

/// Makes the archive unless it is there or this stack's engines have learned nothing. Never the reason for a failure:
/// without it engines only start more slowly.
pub fn make_archive(layout: &Layout, report: &Report, interrupt: &Interrupt) -> Result<()> {
    if archive(layout).exists() {
        return Ok(());
    }
    // Stacks share it. Who holds the lock makes it already, or installs: then the next start does.
    let Ok(lock) = File::create(layout.pkg().join("lock")) else { return Ok(()) };
    if lock.try_lock().is_err() {
        return Ok(());
    }
    let lists: Vec<_> = ENGINES.iter().filter_map(|engine| fs::read_to_string(learned(layout, engine)).ok()).collect();
    if archive(layout).exists() || lists.len() < ENGINES.len() {
        return Ok(());
    }
    report.line(STEP, "making an archive of the engines' classes, so that they start faster from now on");
    if let Err(error) = make(layout, &lists, interrupt) {
        interrupt.check()?;
        report.line(STEP, format_args!("engines go on without: {error:#}"));
    }
    Ok(())
}

fn make(layout: &Layout, lists: &[String], interrupt: &Interrupt) -> Result<()> {
    let (archive, list) = (archive(layout), layout.run().join("engines.classes"));
    fs::write(&list, merged(lists)).with_context(|| format!("writing {}", list.display()))?;
    let fresh = archive.with_extension("partial");
    let mut dump = Command::new("java");
    dump.args(["-Xshare:dump", super::HEAP, super::COLLECTOR, "-cp", &super::class_path(layout)]);
    dump.arg(format!("-XX:SharedClassListFile={}", list.display()));
    dump.arg(format!("-XX:SharedArchiveFile={}", fresh.display()));
    command::run(dump, &layout.log(STEP), interrupt, |_| {})?;
    fs::rename(&fresh, &archive).context("moving the archive to its place")
}

/// What is in any of the lists, in their order, without comments, classes of plugins (which have a loader of their own)
/// and a line that is only begun: the engine still writes.
fn merged(lists: &[String]) -> String {
    let mut seen = BTreeSet::new();
    let whole = |list: &'_ String| list.rfind('\n').unwrap_or_default();
    let lines = lists.iter().flat_map(|list| list[..whole(list)].lines());
    let wanted = lines.filter(|line| !line.starts_with('#') && !line.contains("source:"));
    wanted.filter(|line| seen.insert(*line)).flat_map(|line| [line, "\n"]).collect()
}

fn archive(layout: &Layout) -> PathBuf {
    jars::kafka(layout).with_file_name("classes.jsa")
}

fn learned(layout: &Layout, engine: &str) -> PathBuf {
    layout.run().join(Path::new(engine).with_extension("classes"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_are_merged_without_what_is_not_wanted_and_what_is_only_begun() {
        let lists = ["# a comment\njava/lang/Object\nb/B\nc/", "b/B\nd/D id: 7 super: 1 source: /x.jar\ne/E\n"];
        assert_eq!(super::merged(&lists.map(str::to_owned)), "java/lang/Object\nb/B\ne/E\n");
    }
}
