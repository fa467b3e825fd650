//! `restart`: one process, dead or alive.

use crate::connector;
use crate::interrupt::Interrupt;
use crate::layout::Layout;
use crate::report::Report;
use crate::stack::{Kind, ProcessName, Stack};
use crate::state::StackLock;
use crate::supervisor::Supervisor;
use crate::{preflight, state::State};
use anyhow::{Context as _, Result, ensure};
use std::process::ExitCode;

pub fn run(layout: &Layout, name: ProcessName) -> Result<ExitCode> {
    let report = Report::new();
    let interrupt = Interrupt::install()?;
    let _lock = StackLock::take(layout)?;
    let state = State::load(layout)?.with_context(|| {
        format!("the {} stack is down: run `{}` first", layout.stack().folder(), layout.command("up"))
    })?;
    let stack = Stack::new(layout.clone(), state.settings)?;
    let known = stack.processes();
    ensure!(
        known.contains(&name),
        "{name} is not part of this stack, which has {}",
        known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    );
    let supervisor = Supervisor::new(&stack, &report, &interrupt)?;
    preflight::raise_file_limit()?;
    supervisor.stop_process(name);
    preflight::ports_are_free(&stack, name)?;
    supervisor.start(name)?;
    if name.kind == Kind::Connect {
        connector::ensure(&stack, &report, &interrupt)?;
    }
    Ok(ExitCode::SUCCESS)
}
