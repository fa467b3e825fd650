//! Ctrl-C and SIGTERM as a flag that every waiting loop looks at, so that a stack which is half started is
//! stopped again in order.

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often waiting loops look at the flag and at what they wait for.
pub const POLL: Duration = Duration::from_millis(50);

/// The user asked to stop.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

#[derive(Debug, Clone)]
pub struct Interrupt {
    signals: Arc<AtomicUsize>,
}

impl Interrupt {
    /// From here on the three signals set the flag instead of ending the process.
    pub fn install() -> Result<Self> {
        let signals = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_usize(signal, Arc::clone(&signals), signal as usize)
                .context("installing a signal handler")?;
        }
        Ok(Self { signals })
    }

    pub fn is_set(&self) -> bool {
        self.signals.load(Ordering::Relaxed) != 0
    }

    /// Forgets a signal: the next one counts again (a second Ctrl-C while stopping means "at once").
    pub fn clear(&self) {
        self.signals.store(0, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Interrupted`], once a signal came.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(Interrupted.into()) } else { Ok(()) }
    }
}
