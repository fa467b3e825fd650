//! Where runs take place: a stack with its links, from empty data.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::SETTINGS;
use crate::{links::Links, options::RunOptions, stack::Stack};

#[derive(Debug)]
pub struct Site {
    pub stack: Stack,
    pub links: Links,
    /// `--set` of `cargo xtask up`.
    settings: Vec<String>,
}

impl Site {
    /// Opens the links; no process is started yet.
    pub async fn open(options: &RunOptions) -> Result<Self> {
        let stack = stack_of(options);
        let links = Links::open(stack.ports, stack.copies).await?;
        let settings = SETTINGS.map(str::to_owned).into_iter();
        let settings = settings.chain(links.settings().iter().cloned()).chain(options.settings.clone()).collect();
        Ok(Self { stack, links, settings })
    }

    /// Brings the stack up from empty data, whether one runs or not.
    pub async fn up_afresh(&self) -> Result<()> {
        self.stack.down().await?;
        self.stack.up(&self.settings).await
    }
}

/// The stack that the options ask for.
pub fn stack_of(options: &RunOptions) -> Stack {
    let bugs = options.on_purpose.as_ref().map_or_else(Vec::new, |(_, bugs)| bugs.clone());
    Stack::new(options.xtask.clone(), options.folder.clone(), options.copies(), options.ports(), options.release)
        .with_bugs(bugs)
}

/// Does the work, up to Ctrl-C or SIGTERM.
pub async fn unless_told_to_stop<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        outcome = work => outcome,
        told = told_to_stop() => told.and_then(|()| Err(anyhow::anyhow!("interrupted"))),
    }
}

/// Ctrl-C or SIGTERM.
pub async fn told_to_stop() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C"),
        _ = terminated.recv() => Ok(()),
    }
}
