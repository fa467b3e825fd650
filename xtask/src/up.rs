//! `up`: from whatever is there to a stack that has carried a first message.

use crate::cli::UpOptions;
use crate::interrupt::{Interrupt, POLL};
use crate::layout::{Layout, StackName};
use crate::report::Report;
use crate::stack::{Kind, ProcessName, Settings, Stack};
use crate::state::StackLock;
use crate::supervisor::{Ensured, Supervisor};
use crate::unfinished::Unfinished;
use crate::{compile, connector, down, endpoints, engines, jars, packages, preflight, probe};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::process::ExitCode;
use std::sync::Mutex;

pub fn run(layout: Layout, options: &UpOptions) -> Result<ExitCode> {
    let report = Report::new();
    let interrupt = Interrupt::install()?;
    let lock = StackLock::take(&layout)?;
    let settings = settle(&layout, options)?;
    let stack = Stack::new(layout, settings)?;
    let supervisor = Supervisor::new(&stack, &report, &interrupt)?;
    let started = bring_up(&supervisor)?;
    println!("{}", how_to_use(&stack, options.detach)?);
    if options.detach {
        return Ok(ExitCode::SUCCESS);
    }
    drop(lock);
    watch(&supervisor, &started)?;
    Ok(ExitCode::SUCCESS)
}

/// What this stack shall be: what was asked for, unless a stack that runs already decided otherwise.
fn settle(layout: &Layout, options: &UpOptions) -> Result<Settings> {
    let mut settings = Settings {
        port_offset: options.port_offset.unwrap_or_else(|| layout.stack().default_port_offset()),
        gateways: options.gateways,
        workers: options.workers,
        cores: options.cores,
        release: options.release,
        engines_only: options.engines_only,
        overrides: options.overrides.clone(),
        seeded_bugs: options.seeded_bugs.clone(),
    };
    ensure!(
        settings.seeded_bugs.is_empty() || layout.stack() == StackName::Chaos,
        "--seeded-bugs is for the stack of chaos runs only: `cargo xtask chaos --bug`"
    );
    let Some(running) = Supervisor::recorded_settings(layout)? else { return Ok(settings) };
    if options.port_offset.is_none() {
        settings.port_offset = running.port_offset;
    }
    if running.port_offset != settings.port_offset {
        bail!(
            "this stack runs with --port-offset {}; `{}` first to move it",
            running.port_offset,
            layout.command("down")
        );
    }
    if running.release != settings.release && !running.engines_only && !settings.engines_only {
        let (is, asked) = if running.release { ("an optimised", "a debug") } else { ("a debug", "an optimised") };
        bail!("this stack runs {is} build and {asked} one is asked for; `{}` first", layout.command("down"));
    }
    if settings.overrides.is_empty() || running.engines_only {
        settings.overrides = [running.overrides.as_slice(), &settings.overrides].concat();
    } else if settings.overrides != running.overrides {
        bail!("this stack runs with other values of --set; `{}` first", layout.command("down"));
    }
    if settings.seeded_bugs != running.seeded_bugs {
        bail!("this stack runs with other seeded bugs; `{}` first", layout.command("down"));
    }
    // What runs stays: `up` only ever adds.
    if !running.engines_only {
        settings.engines_only = false;
        settings.release = running.release;
        settings.gateways = settings.gateways.max(running.gateways);
        settings.workers = settings.workers.max(running.workers);
        settings.cores = settings.cores.max(running.cores);
    }
    Ok(settings)
}

/// Installs, builds, starts, and sends a first message through. Says what it started; when it fails it has stopped
/// that again.
pub fn bring_up(supervisor: &Supervisor<'_>) -> Result<Vec<ProcessName>> {
    let stack = supervisor.stack;
    Unfinished::refuse(&stack.layout)?;
    preflight::machine(stack, supervisor.report)?;
    for name in stack.processes().into_iter().filter(|name| !supervisor.is_running(*name)) {
        preflight::ports_are_free(stack, name)?;
    }
    install_and_build(supervisor)?;

    let started = Mutex::new(Vec::new());
    let outcome = start_all(supervisor, &started)
        .and_then(|()| show_that_it_works(supervisor))
        .and_then(|()| engines::classes::make_archive(&stack.layout, supervisor.report, supervisor.interrupt));
    let started = started.into_inner().expect("no thread panics with it");
    match outcome {
        Ok(()) => Ok(started),
        Err(error) => {
            if !started.is_empty() {
                supervisor.report.line("up", "stopping what was started");
                supervisor.interrupt.clear();
                supervisor.stop(&started, false)?;
            }
            Err(error)
        }
    }
}

/// The three steps use different resources (network, disk, both cores), so they run side by side.
fn install_and_build(supervisor: &Supervisor<'_>) -> Result<()> {
    let Supervisor { stack, report, interrupt, .. } = *supervisor;
    let layout = &stack.layout;
    std::fs::create_dir_all(layout.pkg())?;
    // Stacks share what is installed: one installs, the other waits and finds it there.
    let lock = File::create(layout.pkg().join("lock"))?;
    lock.lock().context("locking the installed packages")?;
    std::thread::scope(|scope| {
        let steps = [
            scope.spawn(|| packages::install(layout, report, interrupt)),
            scope.spawn(|| jars::install(layout, report, interrupt)),
            scope.spawn(|| {
                let Settings { engines_only, release, seeded_bugs, .. } = &stack.settings;
                if *engines_only {
                    return Ok(());
                }
                compile::build(layout, *release, report, interrupt)?;
                if seeded_bugs.is_empty() {
                    return Ok(());
                }
                compile::build_seeded(layout, *release, report, interrupt)
            }),
        ];
        // All are waited for, so that none goes on behind an error.
        let outcomes = steps.map(|step| step.join().expect("a step reports errors, it does not panic"));
        outcomes.into_iter().collect()
    })
}

fn start_all(supervisor: &Supervisor<'_>, started: &Mutex<Vec<ProcessName>>) -> Result<()> {
    let stack = supervisor.stack;
    let ensure = |name: ProcessName| -> Result<()> {
        if !supervisor.is_running(name) {
            started.lock().expect("no thread panics with it").push(name);
        }
        let _: Ensured = supervisor.ensure(name)?;
        Ok(())
    };
    for wave in 0..=Kind::LAST_WAVE {
        let names: Vec<_> = stack.processes().into_iter().filter(|name| name.kind.wave() == wave).collect();
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| ensure(*name))).collect();
            let outcomes =
                threads.into_iter().map(|thread| thread.join().expect("starting reports errors, it does not panic"));
            outcomes.collect::<Vec<_>>().into_iter().collect()
        })?;
        // Once core has made its tables, and before anybody waits for records.
        if names.iter().any(|name| name.kind == Kind::Connect) {
            connector::ensure(stack, supervisor.report, supervisor.interrupt)?;
        }
    }
    Ok(())
}

/// A row inserted by hand is seen in Kafka; a message crosses from one gateway to the other.
fn show_that_it_works(supervisor: &Supervisor<'_>) -> Result<()> {
    let Supervisor { stack, report, interrupt, .. } = *supervisor;
    if stack.settings.engines_only {
        return Ok(());
    }
    // Whether a message gets through is what a stack with bugs on purpose is there to show.
    let tasks: &[&str] = if stack.settings.seeded_bugs.is_empty() { &["canary", "first-message"] } else { &["canary"] };
    for task in tasks {
        report.line(task, "sending");
        probe::run(stack, task, interrupt, |line| report.line(task, line)).map_err(|error| {
            let connector = connector::status(stack).ok().flatten();
            let connector = connector.map_or_else(|| "state unknown".to_owned(), |status| status.to_string());
            error.context(format!("{}: {connector}", connector::NAME))
        })?;
    }
    Ok(())
}

fn how_to_use(stack: &Stack, detached: bool) -> Result<String> {
    let layout = &stack.layout;
    let file = layout.endpoints_file();
    let endpoints = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let endpoints: serde_json::Value = serde_json::from_str(&endpoints)?;
    let list = |key: &str| -> String {
        let urls = endpoints[key].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        urls.collect::<Vec<_>>().join(" ")
    };
    let width = layout.command("restart connect").len() + 2;
    let mut text = String::from("\n");
    if !stack.settings.engines_only {
        text += &format!(
            "  core      {}\n  gateways  {}\n  workers   {}\n",
            list("core"),
            list("gateways"),
            list("workers")
        );
    }
    let ports = stack.ports;
    text += &format!(
        "  engines   mysql 127.0.0.1:{}  redis 127.0.0.1:{}  kafka 127.0.0.1:{}  connect http://127.0.0.1:{}\n  for scripts: {}\n\n",
        ports.mysql(),
        ports.redis(),
        ports.kafka(),
        ports.connect(),
        file.display()
    );
    if !stack.settings.engines_only {
        text += &format!("  {:<width$} a terminal client, as many as you like\n", layout.command("chat alice"));
    }
    let stop = if detached { "stops everything" } else { "stops everything, as does Ctrl-C here" };
    for (task, meaning) in [
        ("status", "processes, memory, health"),
        ("logs kafka -f", "the log of one process"),
        ("restart connect", "starts one process again"),
        ("down", stop),
    ] {
        text += &format!("  {:<width$} {meaning}\n", layout.command(task));
    }
    Ok(text)
}

/// Stays until Ctrl-C or until another terminal took the stack down, and says when a process ends by itself.
fn watch(supervisor: &Supervisor<'_>, started: &[ProcessName]) -> Result<()> {
    let Supervisor { stack, report, interrupt, .. } = *supervisor;
    let layout = &stack.layout;
    let mut known_dead: Vec<u32> = Vec::new();
    while !interrupt.is_set() {
        std::thread::sleep(POLL * 10);
        supervisor.reap();
        supervisor.reload()?;
        let state = supervisor.snapshot();
        if state.processes.is_empty() {
            report.line("up", "the stack was taken down");
            return Ok(());
        }
        let ended = |process: &&crate::state::Running| {
            !process.identity.is_alive() && !known_dead.contains(&process.identity.pid)
        };
        let ended: Vec<_> = state.processes.iter().filter(ended).cloned().collect();
        // While another of these tools works on the stack, it knows why a process ended, and writes the file.
        if !ended.is_empty()
            && let Ok(_lock) = StackLock::take(layout)
        {
            for process in ended {
                known_dead.push(process.identity.pid);
                let restart = layout.command(&format!("restart {}", process.name));
                report.line(
                    &process.name.to_string(),
                    format_args!("has ended; see {}, then `{restart}`", process.log.display()),
                );
            }
            endpoints::write(stack, &state)?;
        }
    }
    println!();
    interrupt.clear();
    let _lock = down::wait_for_lock(layout, interrupt)?;
    supervisor.reload()?;
    supervisor.stop(started, false)?;
    let left = supervisor.snapshot().processes.len();
    if left > 0 {
        report
            .line("up", format_args!("{left} processes that ran before stay; `{}` stops them", layout.command("down")));
    }
    Ok(())
}
