//! `down`: stops what is recorded, the last started first.

use crate::interrupt::{Interrupt, POLL};
use crate::layout::Layout;
use crate::report::Report;
use crate::stack::Stack;
use crate::state::{StackLock, State};
use crate::supervisor::Supervisor;
use anyhow::{Context as _, Result};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// For another of these tools to finish with the stack.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

pub fn run(layout: &Layout, purge: bool) -> Result<ExitCode> {
    let report = Report::new();
    let interrupt = Interrupt::install()?;
    let _lock = StackLock::take(layout)?;
    stop_all(layout, purge, &report, &interrupt)?;
    Ok(ExitCode::SUCCESS)
}

/// Stops every recorded process; with `purge` removes the data, the secrets and the generated configuration too.
/// Logs stay.
pub fn stop_all(layout: &Layout, purge: bool, report: &Report, interrupt: &Interrupt) -> Result<()> {
    match State::load(layout)? {
        Some(State { settings, processes }) => {
            let stack = Stack::new(layout.clone(), settings)?;
            let names: Vec<_> = processes.iter().map(|process| process.name).collect();
            Supervisor::new(&stack, report, interrupt)?.stop(&names, purge)?;
        }
        None => report.line("down", format_args!("the {} stack is not running", layout.stack().folder())),
    }
    if purge {
        for folder in [layout.data(), layout.run(), layout.secrets()] {
            if folder.exists() {
                std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
            }
        }
        report.line("down", "data removed");
    }
    Ok(())
}

/// Takes the stack's lock, and waits for it if another of these tools is at work.
pub fn wait_for_lock(layout: &Layout, interrupt: &Interrupt) -> Result<StackLock> {
    let limit = Instant::now() + LOCK_LIMIT;
    loop {
        match StackLock::take(layout) {
            Err(_) if Instant::now() < limit => std::thread::sleep(POLL),
            outcome => return outcome,
        }
        interrupt.check()?;
    }
}
