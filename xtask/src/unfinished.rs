//! A restore that has begun. Until it has ended, the database may be one of the past under the epoch of the present:
//! who writes to it hides from clients what they are sent.

use crate::layout::Layout;
use crate::secrets::write_private;
use crate::stack::Settings;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// What it takes to begin again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    pub backup: PathBuf,
    /// Of the stack, which may be down since.
    pub settings: Settings,
}

impl Unfinished {
    /// `None`: none has begun, or all have ended.
    pub fn load(layout: &Layout) -> Result<Option<Self>> {
        let file = file(layout);
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| format!("reading {}", file.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
        }
    }

    pub fn begin(&self, layout: &Layout) -> Result<()> {
        write_private(&file(layout), &serde_json::to_vec_pretty(self)?)
    }

    pub fn end(layout: &Layout) -> Result<()> {
        let file = file(layout);
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
    }

    /// Refuses while one has not ended.
    pub fn refuse(layout: &Layout) -> Result<()> {
        let Some(Self { backup, .. }) = Self::load(layout)? else { return Ok(()) };
        bail!(
            "a restore of {} has not ended, so nothing may write to the database yet: run `{}` again",
            backup.display(),
            layout.command(&format!("restore {}", backup.display()))
        );
    }
}

fn file(layout: &Layout) -> PathBuf {
    layout.data().join("restore.json")
}
