//! What runs has no bugs on purpose in it.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use e2e::testing::Stack;

/// Whether the file has these bytes somewhere.
fn holds(binary: &Path, bytes: &str) -> Result<bool> {
    let grep = Command::new("grep").args(["-qaF", bytes]).arg(binary).status().context("running grep")?;
    ensure!(matches!(grep.code(), Some(0 | 1)), "grep could not read {}", binary.display());
    Ok(grep.success())
}

#[test]
fn no_service_was_built_with_seeded_bugs() -> Result<()> {
    let processes = Stack::get()?.endpoints.processes;
    let services = ["core-services", "socket-gateway", "fanout-worker"];
    for service in services {
        let process = processes.iter().find(|process| process.name.starts_with(service));
        let binary = format!("/proc/{}/exe", process.with_context(|| format!("no {service} runs"))?.pid);
        // So that a look into the wrong file does not pass for a good one.
        ensure!(holds(binary.as_ref(), "SWITCHBOARD__")?, "{service}: {binary} is none of ours");
        ensure!(!holds(binary.as_ref(), "SWITCHBOARD_SEEDED_BUGS")?, "{service} was built with seeded bugs");
    }
    Ok(())
}
