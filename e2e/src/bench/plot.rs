//! Drawings of what `--json` has collected.

use anyhow::Result;

use super::options::Plot;

pub fn run(_options: &Plot) -> Result<()> {
    anyhow::bail!("not yet")
}
