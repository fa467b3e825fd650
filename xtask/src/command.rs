//! Commands that run to their end: their output goes to a log file, line by line past the caller, and the last
//! of it into the error when they fail.

use crate::interrupt::{Interrupt, POLL};
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// How much of the end of a log an error shows.
const TAIL_LINES: usize = 30;
const TAIL_BYTES: u64 = 16 * 1024;

/// Runs `command` with standard output and error appended to `log`.
///
/// # Errors
/// The command can't be started, ends with another code than 0 (the error shows the end of its output), or an
/// interrupt came, which ends the command too.
pub fn run(
    mut command: Command,
    log: &Path,
    interrupt: &Interrupt,
    mut on_line: impl FnMut(&str) + Send,
) -> Result<()> {
    let shown = display(&command);
    let mut log_file = open_log(log)?;
    writeln!(log_file, "$ {shown}")?;
    let from = log_file.metadata()?.len();

    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("starting `{shown}`"))?;
    // The command holds the write end; without this the reader would never see its end.
    drop(command);

    let status = std::thread::scope(|scope| -> Result<_> {
        scope.spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                // A full disk shows as the command's own failure.
                let _ = writeln!(log_file, "{line}");
                on_line(&line);
            }
        });
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if interrupt.is_set() {
                let _ = child.kill();
                let _ = child.wait();
                interrupt.check()?;
            }
            std::thread::sleep(POLL);
        }
    })?;
    // Ctrl-C reaches the command as well, and its failure is then not the news.
    interrupt.check()?;
    if !status.success() {
        bail!("`{shown}` failed ({status}). The end of {}:\n{}", log.display(), tail(log, from));
    }
    Ok(())
}

/// The standard output of a short command; `None` when it can't be run or fails.
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    // `java -version` answers on standard error.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    output.status.success().then(|| String::from_utf8_lossy(&text).into_owned())
}

/// Opens a log to append to, and makes its folder.
pub fn open_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    File::options().create(true).append(true).open(path).with_context(|| format!("opening {}", path.display()))
}

/// The last lines of a log, of what was written after position `from` (bytes). Never fails: it is for errors.
pub fn tail(path: &Path, from: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("({error})"));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// Where `program` is on the PATH.
pub fn on_path(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
