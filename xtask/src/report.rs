//! Progress: one line for each thing that happens, with the time since the start and the step it belongs to.
//! Steps run side by side, so every line names its own.

use std::time::Instant;

#[derive(Debug, Clone, Copy)]
pub struct Report {
    began: Instant,
}

impl Report {
    pub fn new() -> Self {
        Self { began: Instant::now() }
    }

    pub fn line(&self, step: &str, text: impl std::fmt::Display) {
        println!("[{:6.1}s] {step:<18} {text}", self.began.elapsed().as_secs_f64());
    }
}
