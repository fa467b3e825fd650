//! The stack under test: brought up, restarted and taken down with `cargo xtask`, whose state file says which
//! processes there are. Signals go to the pids that stand there.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::endpoints::{Endpoints, Process};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::Command,
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::links::{Copies, Ports};

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// For SIGSTOP to show.
const STOP_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Stack {
    xtask: PathBuf,
    folder: PathBuf,
    pub copies: Copies,
    pub ports: Ports,
    release: bool,
    /// Bugs on purpose that its services have.
    bugs: Vec<String>,
    /// `cargo xtask` changes one stack once at a time, and refuses a second change meanwhile.
    turn: Mutex<()>,
}

impl Stack {
    pub fn new(xtask: PathBuf, folder: PathBuf, copies: Copies, ports: Ports, release: bool) -> Self {
        Self { xtask, folder, copies, ports, release, bugs: Vec::new(), turn: Mutex::new(()) }
    }

    /// The same with these bugs on purpose.
    pub fn with_bugs(self, bugs: Vec<String>) -> Self {
        Self { bugs, ..self }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// From empty data. Shows on this terminal what `cargo xtask up` says.
    pub async fn up(&self, settings: &[String]) -> Result<()> {
        let Copies { gateways, workers, cores } = self.copies;
        let mut command = self.command();
        command.args(["up", "--detach", "--port-offset", &self.ports.offset.to_string()]);
        for (option, copies) in [("--gateways", gateways), ("--workers", workers), ("--cores", cores)] {
            command.args([option, &copies.to_string()]);
        }
        if self.release {
            command.arg("--release");
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        if !self.bugs.is_empty() {
            command.args(["--seeded-bugs", &self.bugs.join(",")]);
        }
        let status = command.status().await.context("starting xtask")?;
        ensure!(status.success(), "the stack did not come up (above)");
        Ok(())
    }

    /// Takes the stack down, with its data; logs stay.
    pub async fn down(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        let status = self.command().args(["down", "--purge"]).status().await.context("starting xtask")?;
        ensure!(status.success(), "the stack did not go down (above)");
        Ok(())
    }

    /// Starts a process again, whether it runs or not; returns when it is ready.
    pub async fn restart(&self, name: &str) -> Result<()> {
        let _turn = self.turn.lock().await;
        let output = self.command().args(["restart", name]).kill_on_drop(true).output().await;
        let output = output.context("starting xtask")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "restart {name} failed: {said}");
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.xtask);
        command.args(["--stack", "chaos"]).stdin(Stdio::null());
        command
    }

    pub fn endpoints_file(&self) -> PathBuf {
        self.folder.join("endpoints.json")
    }

    /// Where everything is now.
    pub fn endpoints(&self) -> Result<Endpoints> {
        Endpoints::load(Some(&self.endpoints_file()))
    }

    /// Of everything that shall run.
    pub fn names(&self) -> Vec<String> {
        let Copies { gateways, workers, cores } = self.copies;
        let services = [("core-services", cores), ("fanout-worker", workers), ("socket-gateway", gateways)];
        let services =
            services.into_iter().flat_map(|(name, copies)| (1..=copies).map(move |copy| format!("{name}-{copy}")));
        ["mysql", "redis", "kafka", "connect"].map(str::to_owned).into_iter().chain(services).collect()
    }

    pub fn running(&self, name: &str) -> Result<Running> {
        let Process { pid, .. } = self.endpoints()?.process(name)?.clone();
        Ok(Running { pid })
    }

    /// Starts what has ended, and says what that was.
    pub async fn revive(&self) -> Result<Vec<String>> {
        let mut revived = Vec::new();
        for name in self.names() {
            // A process that had ended when the file was written is not in it.
            if self.running(&name).is_ok_and(|process| !process.has_ended()) {
                continue;
            }
            self.restart(&name).await?;
            revived.push(name);
        }
        Ok(revived)
    }
}

/// A process of the stack, by its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub pid: u32,
}

impl Running {
    pub fn signal(self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid.cast_signed()), signal).with_context(|| format!("{signal} to {}", self.pid))
    }

    /// Gone, or a zombie whose parent has not taken its exit code yet. The first thread may be one while others still
    /// hold the ports.
    pub fn has_ended(self) -> bool {
        let folder = Path::new("/proc").join(self.pid.to_string());
        let threads = std::fs::read_dir(folder.join("task")).map_or(0, Iterator::count);
        threads == 0 || (threads == 1 && self.state() == Some('Z'))
    }

    pub fn is_stopped(self) -> bool {
        self.state() == Some('T')
    }

    /// proc_pid_stat(5): behind the name, which may hold anything.
    fn state(self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    pub async fn ended(self, limit: Duration) -> Result<()> {
        wait(limit, || self.has_ended()).await.with_context(|| format!("process {} did not end", self.pid))
    }

    /// SIGSTOP, seen to have worked.
    pub async fn stop(self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        wait(STOP_LIMIT, || self.is_stopped()).await.with_context(|| format!("process {} did not stop", self.pid))
    }
}

async fn wait(limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > limit {
            bail!("not within {limit:?}");
        }
        sleep(LOOK).await;
    }
    Ok(())
}
