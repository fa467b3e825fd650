//! A secret: read from a file, never printed.

use std::{fmt, fs, path::Path};

use anyhow::Context as _;

/// Text that `Debug` does not show.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads a file without the line end at its end; an empty one is refused.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading the secret {}", path.display()))?;
        let text = text.trim_end_matches(['\r', '\n']);
        anyhow::ensure!(!text.is_empty(), "the secret {} is empty", path.display());
        Ok(Self(text.to_owned()))
    }

    /// The secret itself: for the one place that must send or compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
