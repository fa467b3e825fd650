//! `chaos`: builds, and becomes the `chaos` binary, which brings its stack up and takes it down through this tool.

use crate::compile;
use crate::interrupt::{Interrupt, POLL};
use crate::layout::{Layout, StackName};
use crate::report::Report;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

const BINARY: &str = "chaos";
/// Tasks of the binary, and whether they need a stack; without one of them it runs.
const RUN: &str = "run";
const TASKS: [(&str, bool); 4] = [(RUN, true), ("recovery", true), ("check", false), ("help", false)];
/// The run that belongs to the tests: a few faults of those that show most, in less than a minute with everything.
const SHORT_RUN: [&str; 10] = [
    "--seed",
    "1",
    "--duration",
    "20s",
    "--fault",
    "kill-gateway,kill-core,flush-redis",
    "--clients",
    "60",
    "--rate",
    "30",
];

/// Becomes `chaos run <arguments>`, or `chaos <task> <arguments>`.
pub fn replace_this_process(arguments: &[String]) -> Result<ExitCode> {
    Err(command(arguments, &Report::new(), &Interrupt::install()?)?.exec()).context("starting chaos")
}

/// The run that belongs to the tests.
///
/// # Errors
/// The promise was broken, or the run showed too little (it says so itself), or it could not be made.
pub fn short_run(report: &Report, interrupt: &Interrupt) -> Result<()> {
    report.line("chaos", "a short run, on a stack of its own");
    let mut child = command(&SHORT_RUN.map(str::to_owned), report, interrupt)?.spawn().context("starting chaos")?;
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // It takes its stack down first.
        if interrupt.is_set() && !std::mem::replace(&mut told, true) {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
        }
        std::thread::sleep(POLL);
    };
    interrupt.check()?;
    ensure!(status.success(), "the chaos run failed (above)");
    Ok(())
}

/// The command line, of a binary that is up to date.
fn command(arguments: &[String], report: &Report, interrupt: &Interrupt) -> Result<Command> {
    let layout = Layout::of_this_repository(StackName::Chaos);
    // The stack's build, and the runner's.
    let release = arguments.iter().any(|argument| argument == "--release");
    compile::build(&layout, release, report, interrupt)?;
    crate::preflight::raise_file_limit()?;
    let mut command = Command::new(layout.binary(BINARY, release));
    let named = TASKS.iter().find(|(task, _)| arguments.first().is_some_and(|first| first == task));
    let (task, needs_a_stack) = named.copied().unwrap_or((RUN, true));
    command.arg(task);
    if needs_a_stack {
        command.arg("--folder").arg(layout.dir());
        command.arg("--xtask").arg(std::env::current_exe().context("finding this program")?);
    }
    command.args(&arguments[usize::from(named.is_some())..]);
    Ok(command)
}
