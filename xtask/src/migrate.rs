//! `migrate`: makes the next migration file, and shows which ones a running stack has.

use crate::cli::MigrateTask;
use crate::layout::Layout;
use crate::services;
use crate::stack::ProcessName;
use crate::supervisor::Supervisor;
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

pub fn run(layout: &Layout, task: &MigrateTask) -> Result<ExitCode> {
    match task {
        MigrateTask::New { name } => new(&layout.root().join("sql"), name),
        MigrateTask::Status => status(layout),
    }
}

fn new(folder: &Path, name: &str) -> Result<ExitCode> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    ensure!(
        !name.is_empty() && name.chars().all(allowed),
        "a migration's name has lower-case letters, digits and underscores only, e.g. `add_pins`"
    );
    let files = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let names: Vec<String> = files.flatten().filter_map(|file| file.file_name().into_string().ok()).collect();
    let path = folder.join(format!("{:04}_{name}.sql", next_number(&names)));
    let mut file = File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
    writeln!(file, "-- Why this change, and what runs while it is applied.\n")?;
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn next_number(names: &[String]) -> u32 {
    let numbers = names.iter().filter_map(|name| name.strip_suffix(".sql")?.split('_').next()?.parse::<u32>().ok());
    numbers.max().unwrap_or(0) + 1
}

fn status(layout: &Layout) -> Result<ExitCode> {
    let settings = Supervisor::recorded_settings(layout)?.with_context(|| {
        format!("the {} stack is down: run `{}` first", layout.stack().folder(), layout.command("up"))
    })?;
    let core: ProcessName = "core-services-1".parse()?;
    let config = services::config_file(layout, core);
    ensure!(config.exists(), "core-services never ran in this stack: run `{}` first", layout.command("up"));
    let status = Command::new(layout.binary("core-services", settings.release))
        .args(["migrate", "--status", "--config"])
        .arg(config)
        .status()
        .context("starting core-services")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::next_number;

    #[test]
    fn the_next_number_follows_the_highest() {
        let names = ["0001_init.sql", "0012_pins.sql", "README.md", "notes.sql"].map(str::to_owned);
        assert_eq!(next_number(&names), 13);
        assert_eq!(next_number(&[]), 1);
    }
}
