//! The command line of the chaos runs.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use chaos::{
    control,
    options::RunOptions,
    recovery::{self, RecoveryOptions},
    run, verdict,
};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    bin_name = "cargo xtask chaos",
    about = "Judges what clients of a Switchboard stack saw under faults"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Breaks a stack of its own while people use it, and judges what they saw; exits with 1 when a promise was broken
    Run(Box<RunOptions>),
    /// Kills each process again and again under load, on a stack of its own, and prints how long it takes until delivery
    /// is normal again; exits with 1 when something was lost or doubled, or did not become normal
    Recovery(Box<RecoveryOptions>),
    /// Judges a run that is over: reads its histories and what was stored, writes verdict.json and verdict.html beside
    /// them; exits with 1 when a promise was broken
    Check {
        /// Where `run.ndjson`, `clients/` and `truth.ndjson` are
        folder: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match start(Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the promise was kept.
async fn start(cli: Cli) -> Result<bool> {
    match cli.task {
        Task::Run(options) if options.bugs().is_empty() => run::run(&options).await,
        Task::Run(options) => control::run(&options).await,
        Task::Recovery(options) => recovery::run(&options).await,
        Task::Check { folder } => {
            let verdict = verdict::judge(&folder)?;
            print!("{verdict}");
            println!("\n{}", verdict::page_file(&folder).display());
            Ok(verdict.passed)
        }
    }
}
