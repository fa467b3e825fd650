//! Starts and stops processes, and keeps `state.json` in step.
//!
//! A process gets its own process group, no terminal and a log file, so it lives on when this tool ends. Stopping
//! is SIGTERM, a grace period, SIGKILL; only a process whose pid and start time are the recorded ones is ever
//! signalled.

use crate::command::{self, open_log};
use crate::interrupt::{Interrupt, POLL};
use crate::procfs::Identity;
use crate::report::Report;
use crate::stack::{Kind, ProcessName, Settings, Stack};
use crate::state::{Running, State};
use crate::unfinished::Unfinished;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A log larger than this (bytes) is set aside when its process starts; one older log is kept.
const LOG_LIMIT: u64 = 64 * 1024 * 1024;
/// For a process that runs already to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

pub struct Supervisor<'a> {
    pub stack: &'a Stack,
    pub report: &'a Report,
    pub interrupt: &'a Interrupt,
    state: Mutex<State>,
    /// What this very tool started, so that it can be reaped when it ends.
    children: Mutex<Vec<(ProcessName, Child)>>,
}

/// What [`Supervisor::ensure`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    RanAlready,
    Started,
}

impl<'a> Supervisor<'a> {
    /// Takes over what is recorded. The caller holds the stack's lock for as long as it changes anything.
    pub fn new(stack: &'a Stack, report: &'a Report, interrupt: &'a Interrupt) -> Result<Self> {
        let processes = State::load(&stack.layout)?.map(|state| state.processes).unwrap_or_default();
        let state = Mutex::new(State { settings: stack.settings.clone(), processes });
        Ok(Self { stack, report, interrupt, state, children: Mutex::default() })
    }

    /// What was chosen when the recorded stack came up.
    pub fn recorded_settings(layout: &crate::layout::Layout) -> Result<Option<Settings>> {
        let state = State::load(layout)?.filter(|state| state.processes.iter().any(|one| one.identity.is_alive()));
        Ok(state.map(|state| state.settings))
    }

    pub fn is_running(&self, name: ProcessName) -> bool {
        self.state().find(name).is_some_and(|process| process.identity.is_alive())
    }

    /// Starts the process unless it runs, and waits until it is ready.
    pub fn ensure(&self, name: ProcessName) -> Result<Ensured> {
        if !self.is_running(name) {
            self.start(name)?;
            return Ok(Ensured::Started);
        }
        let readiness = self.stack.readiness_of(name);
        let limit = Instant::now() + ANSWER_LIMIT;
        while let Err(missing) = readiness.check() {
            self.interrupt.check()?;
            if Instant::now() > limit {
                bail!(
                    "{name} runs but is not ready ({missing}). Try `{}`",
                    self.stack.layout.command(&format!("restart {name}"))
                );
            }
            std::thread::sleep(POLL);
        }
        let old = self.state().find(name).is_some_and(|process| process.identity.runs_a_replaced_file());
        let note = if old && !name.kind.is_engine() { ", an older build: restart it to use the new one" } else { "" };
        self.report.line(&name.to_string(), format_args!("runs already{note}"));
        Ok(Ensured::RanAlready)
    }

    /// Starts the process and waits until it is ready. One that doesn't get ready is left for the caller to stop.
    pub fn start(&self, name: ProcessName) -> Result<()> {
        let began = Instant::now();
        if name.kind == Kind::Core {
            Unfinished::refuse(&self.stack.layout)?;
        }
        let command_line = self.stack.prepare(name).with_context(|| format!("preparing {name}"))?;
        self.interrupt.check()?;
        self.report.line(&name.to_string(), "starting");
        let log = self.stack.layout.log(&name.to_string());
        set_large_log_aside(&log)?;
        let mut output = open_log(&log)?;
        let log_from = output.metadata()?.len();
        writeln!(output, "==== {name} starts: {}", command_line.argv.join(" "))?;
        let mut child = Command::new(&command_line.argv[0])
            .args(&command_line.argv[1..])
            .envs(command_line.env)
            .current_dir(self.stack.layout.dir())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", command_line.argv[0]))?;
        let identity = Identity::of(child.id()).expect("a child that was not reaped is in /proc");
        let recorded = {
            let mut state = self.state();
            state.add(Running { name, identity, argv: command_line.argv, log: log.clone() });
            state.save(&self.stack.layout)
        };
        let ready = recorded.and_then(|()| self.wait_until_ready(name, &mut child, &log, log_from));
        self.children.lock().expect("no thread panics with it").push((name, child));
        ready?;
        let port = self.stack.ports_of(name)[0];
        let elapsed = began.elapsed().as_secs_f64();
        self.report.line(&name.to_string(), format_args!("ready on port {port} after {elapsed:.1} s"));
        Ok(())
    }

    fn wait_until_ready(&self, name: ProcessName, child: &mut Child, log: &Path, log_from: u64) -> Result<()> {
        let readiness = self.stack.readiness_of(name);
        let limit = name.kind.start_limit();
        let began = Instant::now();
        let end_of_log = || format!("The end of {}:\n{}", log.display(), command::tail(log, log_from));
        loop {
            self.interrupt.check()?;
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended while starting ({status}). {}", end_of_log());
            }
            let Err(missing) = readiness.check() else { return Ok(()) };
            if began.elapsed() > limit {
                bail!("{name} is not ready after {} s ({missing}). {}", limit.as_secs(), end_of_log());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Stops these processes, the last wave first, and forgets them. With `data_is_thrown_away` engines are killed
    /// at once. A signal during the grace period ends it.
    pub fn stop(&self, names: &[ProcessName], data_is_thrown_away: bool) -> Result<()> {
        let mut waves: Vec<u8> = names.iter().map(|name| name.kind.wave()).collect();
        waves.sort_unstable();
        waves.dedup();
        for wave in waves.into_iter().rev() {
            let of_wave: Vec<Running> = self
                .state()
                .processes
                .iter()
                .filter(|one| one.name.kind.wave() == wave && names.contains(&one.name))
                .cloned()
                .collect();
            std::thread::scope(|scope| {
                for process in &of_wave {
                    scope.spawn(|| self.stop_one(process, data_is_thrown_away));
                }
            });
            let mut state = self.state();
            for process in &of_wave {
                state.remove(process.name);
            }
            state.save(&self.stack.layout)?;
        }
        Ok(())
    }

    /// Stops one process, which stays recorded: it is about to be started again.
    pub fn stop_process(&self, name: ProcessName) {
        let process = self.state().find(name).cloned();
        if let Some(process) = process {
            self.stop_one(&process, false);
        }
    }

    fn stop_one(&self, process: &Running, data_is_thrown_away: bool) {
        let name = process.name;
        let step = name.to_string();
        if !process.identity.is_alive() {
            self.reap();
            self.report.line(&step, "was not running");
            return;
        }
        let pid = Pid::from_raw(process.identity.pid.cast_signed());
        let began = Instant::now();
        let grace = if data_is_thrown_away && name.kind.is_engine() { Duration::ZERO } else { name.kind.stop_limit() };
        if !grace.is_zero() {
            let _ = kill(pid, Signal::SIGTERM);
        }
        let mut killed = false;
        while process.identity.is_alive() {
            if !killed && (began.elapsed() >= grace || self.interrupt.is_set()) {
                let _ = kill(pid, Signal::SIGKILL);
                killed = true;
            }
            self.reap();
            std::thread::sleep(POLL);
        }
        self.reap();
        let how = if killed && !grace.is_zero() { "killed" } else { "stopped" };
        self.report.line(&step, format_args!("{how} after {:.1} s", began.elapsed().as_secs_f64()));
    }

    /// Takes the exit codes of children that ended, which else stay as zombies.
    pub fn reap(&self) {
        let mut children = self.children.lock().expect("no thread panics with it");
        children.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
    }

    /// Reads `state.json` again: another of these tools may have restarted or stopped something.
    pub fn reload(&self) -> Result<()> {
        let processes = State::load(&self.stack.layout)?.map(|state| state.processes).unwrap_or_default();
        self.state().processes = processes;
        Ok(())
    }

    /// A copy of what is recorded.
    pub fn snapshot(&self) -> State {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }
}

fn set_large_log_aside(log: &Path) -> Result<()> {
    if fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
        fs::rename(log, log.with_extension("log.1")).with_context(|| format!("setting {} aside", log.display()))?;
    }
    Ok(())
}
