//! The command line of the chaos runs.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use chaos::verdict;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "chaos", about = "Judges what clients of a Switchboard stack saw under faults")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Judges a run that is over: reads its histories and what was stored, writes verdict.json and verdict.html beside
    /// them; exits with 1 when a promise was broken
    Check {
        /// Where `run.ndjson`, `clients/` and `truth.ndjson` are
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.task {
        Task::Check { folder } => {
            let verdict = verdict::judge(&folder)?;
            print!("{verdict}");
            println!("\n{}", verdict::page_file(&folder).display());
            Ok(if verdict.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
