//! `lint`: formatting, clippy and rustdoc, with warnings as errors.

use crate::compile::cargo;
use crate::layout::Layout;
use anyhow::{Result, ensure};
use std::process::ExitCode;

pub fn run(layout: &Layout) -> Result<ExitCode> {
    let steps: [&[&str]; 3] = [
        &["fmt", "--all", "--check"],
        &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
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
