//! `backup` and `restore`: a physical copy of the database, made while it is written to, and put into its place again.
//!
//! What a restore has to do beside moving folders, and why, is in `docs/runbooks/restore.md`; this does it for a stack
//! of this machine, in that order.

use crate::interrupt::Interrupt;
use crate::layout::Layout;
use crate::report::Report;
use crate::secrets::{Secret, make_private_folder};
use crate::stack::{Kind, ProcessName, Stack};
use crate::state::{StackLock, State};
use crate::supervisor::Supervisor;
use crate::unfinished::Unfinished;
use crate::{connector, preflight, probe, services};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A node id stays leased behind its core's end; the backup may hold a lease that is younger than that.
const LEASES_END_WITHIN: Duration = Duration::from_secs(45);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Makes a copy of the database at `folder`, which must not be there yet.
pub fn backup(layout: &Layout, folder: &Path) -> Result<ExitCode> {
    let (report, interrupt) = (Report::new(), Interrupt::install()?);
    let stack = running(layout)?;
    let folder = absolute(folder)?;
    ensure!(!folder.exists(), "{} is there already: a backup is made into a new folder", folder.display());
    make_private_folder(folder.parent().context("a backup needs a folder of its own")?)?;
    let arguments = [
        "--password-file".to_owned(),
        Secret::MysqlBackup.path(layout).display().to_string(),
        "--to".to_owned(),
        folder.display().to_string(),
    ];
    probe::run_with(&stack, "backup", &arguments, &interrupt, |line| report.line("backup", line))?;
    Ok(ExitCode::SUCCESS)
}

/// Puts the copy into the database's place and raises the epoch; what was there is kept beside it.
pub fn restore(layout: &Layout, folder: &Path, reason: Option<&str>) -> Result<ExitCode> {
    let (report, interrupt) = (Report::new(), Interrupt::install()?);
    let _lock = StackLock::take(layout)?;
    let settings = Unfinished::load(layout)?.map(|unfinished| unfinished.settings);
    // One that was interrupted may have left the stack down, and `up` refuses to start it.
    let stack = running(layout).or_else(|down| Stack::new(layout.clone(), settings.ok_or(down)?))?;
    let folder = absolute(folder)?;
    ensure!(folder.join("mysql.ibd").exists(), "{} is no backup: it has no mysql.ibd", folder.display());
    let supervisor = Supervisor::new(&stack, &report, &interrupt)?;
    preflight::raise_file_limit()?;
    let cores: Vec<ProcessName> = stack.processes().into_iter().filter(|name| name.kind == Kind::Core).collect();
    let mysql = ProcessName { kind: Kind::Mysql, copy: 1 };

    cores.iter().for_each(|core| supervisor.stop_process(*core));
    for kind in [Kind::Redis, Kind::Kafka, Kind::Connect] {
        supervisor.ensure(ProcessName { kind, copy: 1 })?;
    }
    connector::stop(&stack, &interrupt)?;
    supervisor.stop_process(mysql);
    Unfinished { backup: folder.clone(), settings: stack.settings.clone() }.begin(layout)?;
    let kept = put_in_place(&layout.data().join("mysql"), &folder)?;
    report.line("restore", format_args!("what was there is in {}", kept.display()));
    supervisor.start(mysql)?;

    let first = *cores.first().context("the stack has no core")?;
    core(&stack, first, &["migrate"])?;
    let reason = reason.map_or_else(|| format!("restored {}", folder.display()), str::to_owned);
    let raised = raise_epoch(&stack, first, &reason, &interrupt)?;
    report.line("restore", raised.trim());
    // Its position is one of the other past. Before cores write, so that their events are streamed.
    connector::forget_position(&stack)?;
    connector::ensure(&stack, &report, &interrupt)?;
    Unfinished::end(layout)?;
    cores.iter().try_for_each(|core| supervisor.start(*core))?;
    Ok(ExitCode::SUCCESS)
}

fn running(layout: &Layout) -> Result<Stack> {
    let state = State::load(layout)?.with_context(|| {
        format!("the {} stack is down: run `{}` first", layout.stack().folder(), layout.command("up"))
    })?;
    Stack::new(layout.clone(), state.settings)
}

/// Moves what is there aside, and copies the backup: it can be restored again.
fn put_in_place(data: &Path, backup: &Path) -> Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let kept = data.with_file_name(format!("mysql-before-restore-{seconds}"));
    let copy = data.with_file_name("mysql-being-restored");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("removing {}", copy.display()))?;
    }
    let copied = Command::new("cp").arg("-a").arg(backup).arg(&copy).status().context("starting cp")?;
    ensure!(copied.success(), "copying {} failed", backup.display());
    let synced = Command::new("sync").arg("--file-system").arg(&copy).status().context("starting sync")?;
    ensure!(synced.success(), "writing {} to the disk failed", copy.display());
    if data.exists() {
        fs::rename(data, &kept).with_context(|| format!("moving {} aside", data.display()))?;
    }
    fs::rename(&copy, data).context("moving the copy to its place")?;
    Ok(kept)
}

/// What it says: the new epoch and the one before.
fn raise_epoch(stack: &Stack, name: ProcessName, reason: &str, interrupt: &Interrupt) -> Result<String> {
    let shown = core(stack, name, &["epoch", "show"])?;
    let epoch = shown.lines().find_map(|line| line.strip_prefix("the epoch is ")).context("`epoch show` says none")?;
    let began = Instant::now();
    loop {
        match core(stack, name, &["epoch", "raise", "--from", epoch, "--reason", reason]) {
            Err(error) if error.to_string().contains("is leased until") && began.elapsed() < LEASES_END_WITHIN => {}
            outcome => return outcome,
        }
        interrupt.check()?;
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Runs a command of core with that core's configuration; what it says.
fn core(stack: &Stack, name: ProcessName, arguments: &[&str]) -> Result<String> {
    let line = services::prepare(stack, name)?;
    let mut command = Command::new(&line.argv[0]);
    let output = command.args(&line.argv[1..]).args(arguments).envs(line.env).output();
    let output = output.with_context(|| format!("starting {}", line.argv[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "core-services {} failed: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_was_interrupted_is_not_gone_on_with() {
        let folder = std::env::temp_dir().join(format!("switchboard-restore-{}", std::process::id()));
        let [data, backup, copy] = ["mysql", "backup", "mysql-being-restored"].map(|name| folder.join(name));
        for (folder, file) in [(&data, "now"), (&backup, "then"), (&copy, "half")] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(file), file).unwrap();
        }
        let kept = put_in_place(&data, &backup).unwrap();
        let files = |folder: &Path| -> Vec<_> {
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(
            (files(&data), files(&kept), files(&backup)),
            (vec!["then".into()], vec!["now".into()], vec!["then".into()])
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
