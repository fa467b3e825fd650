//! Calls the `probe` binary (crate `e2e`): the canary and first message of `up`, the terminal client, the load
//! generator. It knows the protocols; this tool doesn't.

use crate::command;
use crate::compile::cargo;
use crate::interrupt::Interrupt;
use crate::layout::Layout;
use crate::stack::Stack;
use crate::supervisor::Supervisor;
use anyhow::{Context as _, Result, ensure};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

const BINARY: &str = "probe";

/// Runs `probe --endpoints FILE <task>` and passes each line that it prints.
pub fn run(stack: &Stack, task: &str, interrupt: &Interrupt, on_line: impl FnMut(&str) + Send) -> Result<()> {
    run_with(stack, task, &[], interrupt, on_line)
}

/// [`run`] with arguments of the task.
pub fn run_with(
    stack: &Stack,
    task: &str,
    arguments: &[String],
    interrupt: &Interrupt,
    on_line: impl FnMut(&str) + Send,
) -> Result<()> {
    let mut command = command(&stack.layout, stack.settings.release, task);
    command.args(arguments);
    command::run(command, &stack.layout.log(BINARY), interrupt, on_line).with_context(|| format!("{task} failed"))
}

/// Becomes `probe <task> --endpoints FILE <arguments>`.
pub fn replace_this_process(layout: &Layout, task: &str, arguments: &[String]) -> Result<ExitCode> {
    let asks_for_help = arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    let release = match Supervisor::recorded_settings(layout)? {
        Some(settings) => settings.release,
        None if asks_for_help => false,
        None => anyhow::bail!("the {} stack is down: run `{}` first", layout.stack().folder(), layout.command("up")),
    };
    if !layout.binary(BINARY, release).exists() {
        let mut build = cargo(layout);
        build.args(["build", "--workspace", "--exclude", "xtask", "--bins"]);
        if release {
            build.arg("--release");
        }
        ensure!(build.status()?.success(), "the build failed");
    }
    crate::preflight::raise_file_limit()?;
    Err(command(layout, release, task).args(arguments).exec()).context("starting probe")
}

fn command(layout: &Layout, release: bool, task: &str) -> Command {
    let mut command = Command::new(layout.binary(BINARY, release));
    // In front of the task: some tasks have tasks of their own behind them.
    command.arg("--endpoints").arg(layout.endpoints_file()).arg(task);
    command
}
