//! `restart`: one process, dead or alive.

use crate::connector;
use crate::interrupt::{Interrupt, POLL};
use crate::layout::Layout;
use crate::report::Report;
use crate::stack::{Kind, ProcessName, Stack};
use crate::state::StackLock;
use crate::supervisor::Supervisor;
use crate::{preflight, state::State};
use anyhow::{Context as _, Result, ensure};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PORTS_WITHIN: Duration = Duration::from_secs(5);

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
    wait_for_ports(&stack, name, &interrupt)?;
    supervisor.start(name)?;
    if name.kind == Kind::Connect {
        connector::ensure(&stack, &report, &interrupt)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A process that was killed from outside holds its ports until the last of its threads is gone, which takes a JVM a
/// moment after it counts as dead.
fn wait_for_ports(stack: &Stack, name: ProcessName, interrupt: &Interrupt) -> Result<()> {
    let deadline = Instant::now() + PORTS_WITHIN;
    loop {
        match preflight::ports_are_free(stack, name) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(POLL),
            checked => return checked,
        }
        interrupt.check()?;
    }
}
