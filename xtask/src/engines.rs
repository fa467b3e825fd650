//! How each engine is set up and started: its configuration is the file of the repository plus what depends on
//! this stack (addresses, folders), its data lie in the stack's folder, and it listens on loopback only.

pub mod classes;
pub mod connect;
pub mod kafka;
pub mod mysql;
pub mod redis;

use crate::command;
use crate::layout::Layout;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Heap of each Java engine. Measured: enough for 11,000 events/s; 440 MB (Kafka) and 680 MB (Connect) resident.
const HEAP: &str = "-Xmx512m";

/// One machine runs everything: a collector with threads of its own takes more CPU than it gives.
const COLLECTOR: &str = "-XX:+UseSerialGC";

/// `java` with what both Java engines share, up to the main class of the engine.
fn engine(layout: &Layout, name: &str, main_class: &str) -> Vec<String> {
    let mut argv = java(layout, main_class);
    argv.insert(1, classes::option(layout, name));
    argv
}

fn class_path(layout: &Layout) -> String {
    crate::jars::kafka(layout).join("*").to_string_lossy().into_owned()
}

/// `java` up to the main class of an engine or one of its tools.
fn java(layout: &Layout, main_class: &str) -> Vec<String> {
    let logging = layout.root().join("deploy/kafka/log4j2.properties");
    [
        "java",
        "-Xms128m",
        HEAP,
        COLLECTOR,
        "-Djava.awt.headless=true",
        &format!("-Dlog4j2.configurationFile={}", logging.display()),
        "-cp",
        &class_path(layout),
        main_class,
    ]
    .map(str::to_owned)
    .into()
}

/// Writes `run/<name>`: the repository's file, then the lines that depend on this stack (the last one of a key
/// counts).
fn write_properties(layout: &Layout, base: &str, name: &str, added: &[(&str, String)]) -> Result<PathBuf> {
    let base = layout.root().join(base);
    let mut text = fs::read_to_string(&base).with_context(|| format!("reading {}", base.display()))?;
    text.push_str("\n# ---- of this stack\n");
    for (key, value) in added {
        text.push_str(&format!("{key}={value}\n"));
    }
    let path = layout.run().join(name);
    crate::secrets::write_private(&path, text.as_bytes())?;
    Ok(path)
}

/// Runs a set-up command of an engine to its end, with its output in the engine's log.
fn set_up(argv: &[String], log: &Path) -> Result<()> {
    let file = command::open_log(log)?;
    let from = file.metadata()?.len();
    let status = Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("starting {}", argv[0]))?;
    anyhow::ensure!(status.success(), "setting up the data failed ({status}):\n{}", command::tail(log, from));
    Ok(())
}
