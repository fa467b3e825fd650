//! The command line of the chaos runs.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use chaos::history::Histories;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "chaos", about = "Judges what clients of a Switchboard stack saw under faults")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Reads a run's folder, and says what is in it
    Check {
        /// Where `run.ndjson` and `clients/` are
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.task {
        Task::Check { folder } => {
            let histories = Histories::read(&folder)?;
            let records: usize = histories.clients.iter().map(|client| client.records.len()).sum();
            println!("{} clients, {records} records", histories.clients.len());
            Ok(())
        }
    }
}
