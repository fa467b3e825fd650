//! Builds the services and the probe.

use crate::command;
use crate::interrupt::Interrupt;
use crate::layout::Layout;
use crate::report::Report;
use anyhow::Result;
use std::process::Command;
use std::time::{Duration, Instant};

const STEP: &str = "build";
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// The cargo that runs this tool.
pub fn cargo(layout: &Layout) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(layout.root());
    cargo
}

/// The services, each with its bugs on purpose, as arguments of cargo. Which of them are on is said at run time.
pub const SEEDED: [&str; 8] = [
    "--package",
    "core-services",
    "--package",
    "socket-gateway",
    "--package",
    "fanout-worker",
    "--features",
    "core-services/seeded-bugs,socket-gateway/seeded-bugs,fanout-worker/seeded-bugs",
];

/// Every binary of the workspace but this one. The whole workspace at once: building crates one by one would
/// compile dependencies again with other features.
pub fn build(layout: &Layout, release: bool, report: &Report, interrupt: &Interrupt) -> Result<()> {
    let mut command = cargo(layout);
    command.args(["build", "--workspace", "--exclude", "xtask", "--bins"]);
    run(command, if release { "optimised" } else { "debug" }, release, layout, report, interrupt)
}

/// The services with bugs on purpose, into a target folder of their own.
pub fn build_seeded(layout: &Layout, release: bool, report: &Report, interrupt: &Interrupt) -> Result<()> {
    let mut command = cargo(layout);
    command.arg("build").args(SEEDED).arg("--bins").arg("--target-dir").arg(layout.seeded_target());
    run(command, "seeded bugs", release, layout, report, interrupt)
}

fn run(
    mut command: Command,
    what: &str,
    release: bool,
    layout: &Layout,
    report: &Report,
    interrupt: &Interrupt,
) -> Result<()> {
    command.args(["--color", "never"]);
    if release {
        command.arg("--release");
    }
    report.line(STEP, format_args!("cargo build ({what})"));
    let (mut crates, mut said) = (0, Instant::now());
    command::run(command, &layout.log(STEP), interrupt, |line| {
        let Some(name) = line.trim_start().strip_prefix("Compiling ") else { return };
        crates += 1;
        if said.elapsed() > PROGRESS_EVERY {
            said = Instant::now();
            report.line(STEP, format_args!("{crates} crates, now {name}"));
        }
    })?;
    let compiled = match crates {
        0 => "nothing to do".to_owned(),
        count => format!("{count} crates compiled"),
    };
    report.line(STEP, format_args!("{what} build is up to date ({compiled})"));
    Ok(())
}
