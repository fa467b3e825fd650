//! `test`: lint and every test, on a stack of its own that starts from empty data; then a short chaos run on another.

use crate::cli::TestOptions;
use crate::compile::cargo;
use crate::interrupt::{Interrupt, POLL};
use crate::layout::{Layout, StackName};
use crate::report::Report;
use crate::stack::{Settings, Stack};
use crate::state::StackLock;
use crate::supervisor::Supervisor;
use crate::test_tools::TestTools;
use crate::{chaos, down, lint, up};
use anyhow::{Context as _, Result, ensure};
use std::process::ExitCode;

const STEP: &str = "test";

pub fn run(options: &TestOptions) -> Result<ExitCode> {
    let layout = Layout::of_this_repository(StackName::Test);
    let report = Report::new();
    let interrupt = Interrupt::install()?;
    let lock = StackLock::take(&layout)?;
    down::stop_all(&layout, true, &report, &interrupt)?;
    if layout.logs().exists() {
        std::fs::remove_dir_all(layout.logs())?;
    }
    let tools = TestTools::install(&layout, &report, &interrupt)?;
    if !options.skip_lint {
        report.line("lint", "formatting, clippy, rustdoc");
        lint::run(&layout)?;
    }
    // Several of everything: what only shows between copies is tested.
    let settings = Settings {
        port_offset: layout.stack().default_port_offset(),
        gateways: 3,
        workers: 2,
        cores: 2,
        release: false,
        engines_only: false,
        overrides: Vec::new(),
        seeded_bugs: Vec::new(),
    };
    let stack = Stack::new(layout.clone(), settings)?;
    report.line(STEP, "building the tests");
    cargo_test(&stack, &tools, options, &["--no-run", "--quiet"], None, &interrupt)?;

    let supervisor = Supervisor::new(&stack, &report, &interrupt)?;
    up::bring_up(&supervisor)?;
    // Tests restart processes with this tool.
    drop(lock);
    report.line(STEP, "cargo test");
    let outcome = cargo_test(&stack, &tools, options, &["--no-fail-fast"], Some(&supervisor), &interrupt);

    if options.keep {
        report.line(STEP, format_args!("the stack stays up; `{}` removes it", layout.command("down --purge")));
    } else {
        interrupt.clear();
        let _lock = down::wait_for_lock(&layout, &interrupt)?;
        supervisor.reload()?;
        let names: Vec<_> = supervisor.snapshot().processes.iter().map(|process| process.name).collect();
        supervisor.stop(&names, true)?;
        down::stop_all(&layout, true, &report, &interrupt)?;
    }
    outcome.with_context(|| format!("the logs of all processes are in {}", layout.logs().display()))?;
    if options.filter.is_none() {
        chaos::short_run(&report, &interrupt)?;
    }
    report.line(STEP, "all tests passed");
    Ok(ExitCode::SUCCESS)
}

/// Runs `cargo test` over the workspace in this terminal; meanwhile takes the exit codes of processes that tests
/// kill.
fn cargo_test(
    stack: &Stack,
    tools: &TestTools,
    options: &TestOptions,
    arguments: &[&str],
    supervisor: Option<&Supervisor<'_>>,
    interrupt: &Interrupt,
) -> Result<()> {
    let layout = &stack.layout;
    let mut command = cargo(layout);
    command.args(["test", "--workspace"]).args(arguments).args(&options.filter);
    command.env("SWITCHBOARD_ENDPOINTS", layout.endpoints_file()).env("SWITCHBOARD_TOOLS", layout.pkg());
    command.env("SWITCHBOARD_XTASK", std::env::current_exe().context("finding this program")?);
    tools.set_environment(&mut command)?;
    let mut child = command.spawn().context("starting cargo test")?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if interrupt.is_set() {
            child.kill()?;
            child.wait()?;
        }
        if let Some(supervisor) = supervisor {
            supervisor.reap();
        }
        std::thread::sleep(POLL);
    };
    interrupt.check()?;
    ensure!(status.success(), "`cargo test` failed (above)");
    Ok(())
}
