//! `lint`: formatting, clippy and rustdoc, with warnings as errors.

use crate::compile::{SEEDED, cargo};
use crate::layout::Layout;
use anyhow::{Result, ensure};
use std::process::ExitCode;

pub fn run(layout: &Layout) -> Result<ExitCode> {
    // Nothing else builds the bugs on purpose.
    let seeded = [&["clippy", "--quiet"], &SEEDED[..], &["--", "-D", "warnings"]].concat();
    let steps: [&[&str]; 4] = [
        &["fmt", "--all", "--check"],
        &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
        &seeded,
        &["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"],
    ];
    for arguments in steps {
        println!("cargo {}", arguments.join(" "));
        let mut command = cargo(layout);
        command.args(arguments).env("RUSTDOCFLAGS", "-D warnings");
        ensure!(command.status()?.success(), "`cargo {}` found something (above)", arguments.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}
