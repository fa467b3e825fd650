//! `logs`: prints a log file, and follows it.

use crate::layout::Layout;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::process::ExitCode;
use std::time::Duration;

/// How often a followed log is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

pub fn run(layout: &Layout, name: &str, follow: bool) -> Result<ExitCode> {
    let path = layout.log(name);
    let mut file = File::open(&path).with_context(|| format!("{name} has no log; there are: {}", names(layout)))?;
    loop {
        // A log that got shorter was set aside or emptied: start over.
        if std::fs::metadata(&path).is_ok_and(|now| file.stream_position().is_ok_and(|here| now.len() < here)) {
            file = File::open(&path)?;
            file.seek(SeekFrom::Start(0))?;
        }
        match std::io::copy(&mut file, &mut std::io::stdout().lock()) {
            // `| head` has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            outcome => outcome.with_context(|| format!("printing {}", path.display()))?,
        };
        if !follow {
            break;
        }
        std::thread::sleep(FOLLOW_EVERY);
    }
    Ok(ExitCode::SUCCESS)
}

fn names(layout: &Layout) -> String {
    let files = std::fs::read_dir(layout.logs()).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().to_str()?.strip_suffix(".log").map(str::to_owned));
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.join(", ")
}
