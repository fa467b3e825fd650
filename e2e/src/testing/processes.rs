//! Ending and starting processes of the stack under test.

use std::{
    fs,
    future::Future,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures_util::FutureExt as _;
use tokio::{process::Command, sync::Mutex};

use super::eventually;
use crate::endpoints::{Endpoints, Process};

/// Held by the test whose turn it is.
static TURN: Mutex<()> = Mutex::const_new(());

/// Runs one test alone, and leaves the stack whole behind it, whatever the outcome. Cargo runs no other test file
/// meanwhile.
pub async fn alone(test: impl Future<Output = Result<()>>) -> Result<()> {
    let _turn = TURN.lock().await;
    let before = Endpoints::load(None)?;
    let outcome = AssertUnwindSafe(test).catch_unwind().await;
    for process in &before.processes {
        let alive = Endpoints::load(None)?.process(&process.name).is_ok_and(|now| !has_ended(now.pid));
        if !alive {
            restart(&process.name).await?;
        }
    }
    outcome.unwrap_or_else(|_| Err(anyhow!("the test panicked (above)")))
}

/// Gone, or a zombie whose parent has not taken its exit code yet. The first thread may be one while others still
/// hold the ports.
pub fn has_ended(pid: u32) -> bool {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(folder.join("status"));
    let threads = fs::read_dir(folder.join("task")).map_or(0, Iterator::count);
    threads == 0 || (threads == 1 && status.is_ok_and(|status| status.contains("State:\tZ")))
}

/// Sends a signal (`KILL`, `TERM`, …), by pid; says to which process.
pub async fn signal(name: &str, signal: &str) -> Result<Process> {
    let process = Endpoints::load(None)?.process(name)?.clone();
    let status = Command::new("kill").args([&format!("-{signal}"), &process.pid.to_string()]).status().await?;
    ensure!(status.success(), "kill -{signal} {} failed", process.pid);
    Ok(process)
}

/// SIGKILL; returns when the process has ended.
pub async fn kill(name: &str) -> Result<()> {
    let pid = signal(name, "KILL").await?.pid;
    eventually(format!("{name} has ended"), || async { Ok(has_ended(pid).then_some(())) }).await
}

/// Stops a process, if it runs, as an operator would (SIGTERM), and starts it again with the tool that started the stack.
pub async fn restart(name: &str) -> Result<()> {
    let xtask =
        std::env::var_os("SWITCHBOARD_XTASK").context("SWITCHBOARD_XTASK is not set: use `cargo xtask test`")?;
    let output = Command::new(PathBuf::from(xtask))
        .args(["--stack", "test", "restart", name])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "restart {name} failed: {said}");
    Ok(())
}

/// What the log of a process says from a place on.
#[derive(Clone, Debug)]
pub struct Log {
    file: PathBuf,
    from: usize,
}

impl Log {
    /// From now on.
    pub fn of(name: &str) -> Result<Self> {
        let file = Endpoints::load(None)?.process(name)?.log.clone();
        let from = fs::read(&file).with_context(|| format!("reading {}", file.display()))?.len();
        Ok(Self { file, from })
    }

    pub fn text(&self) -> Result<String> {
        let bytes = fs::read(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
        Ok(String::from_utf8_lossy(bytes.get(self.from..).unwrap_or_default()).into_owned())
    }
}
