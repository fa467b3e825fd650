//! What runs, as recorded in the stack's `state.json`, and the lock that keeps two of these tools from changing
//! one stack at a time.

use crate::endpoints;
use crate::layout::Layout;
use crate::procfs::Identity;
use crate::secrets::{make_private_folder, write_private};
use crate::stack::{ProcessName, Settings, Stack};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

/// One started process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub name: ProcessName,
    #[serde(flatten)]
    pub identity: Identity,
    pub argv: Vec<String>,
    pub log: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub settings: Settings,
    /// In the order of starting. A process stays listed when it dies by itself, until it is restarted or stopped.
    pub processes: Vec<Running>,
}

impl State {
    /// `None` when the stack is down.
    pub fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.state_file();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged: stop its processes by hand and remove it", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes `state.json` and `endpoints.json`; with no process left removes both.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        if self.processes.is_empty() {
            for path in [layout.endpoints_file(), layout.state_file()] {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error).with_context(|| format!("removing {}", path.display()));
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        write_private(&layout.state_file(), &serde_json::to_vec_pretty(self)?)?;
        endpoints::write(&Stack::new(layout.clone(), self.settings.clone())?, self)
    }

    pub fn find(&self, name: ProcessName) -> Option<&Running> {
        self.processes.iter().find(|process| process.name == name)
    }

    pub fn remove(&mut self, name: ProcessName) {
        self.processes.retain(|process| process.name != name);
    }

    pub fn add(&mut self, process: Running) {
        self.remove(process.name);
        self.processes.push(process);
        self.processes.sort_by_key(|process| process.name);
    }
}

/// Held while a stack is changed; released when dropped, also when this process is killed.
#[derive(Debug)]
pub struct StackLock {
    _file: File,
}

impl StackLock {
    /// # Errors
    /// Another of these tools is changing this stack.
    pub fn take(layout: &Layout) -> Result<Self> {
        make_private_folder(&layout.dir())?;
        let path = layout.lock_file();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => bail!(
                "another `cargo xtask` is starting or stopping the {} stack; wait for it to finish",
                layout.stack().folder()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
        }
    }
}
