//! What a scenario prints, and the line of JSON that it appends.

use std::{fmt, fs::OpenOptions, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use serde::{Serialize, Serializer as _, ser::SerializeMap as _};

use super::{
    engine::{ProcessUse, Window},
    machine::Machine,
};
use crate::{endpoints::Endpoints, processes, table};

/// What stands above all figures: where they come from.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    pub scenario: &'static str,
    pub at: String,
    pub machine: Machine,
    pub build: String,
    /// What is set other than by default, as `<service>.<section>.<key>=<value>`.
    pub settings: Vec<String>,
    pub notes: Vec<String>,
}

impl Head {
    pub fn new(endpoints: &Endpoints, scenario: &'static str) -> Self {
        Self {
            scenario,
            at: chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            machine: Machine::of_this_process(),
            build: endpoints.build.clone(),
            settings: endpoints.overrides.clone(),
            notes: Vec::new(),
        }
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// One line: the head's fields, then the figures'.
    pub fn append(&self, file: Option<&Path>, figures: &impl Serialize) -> Result<()> {
        let Some(file) = file else { return Ok(()) };
        let mut line = Vec::new();
        let mut map = serde_json::Serializer::new(&mut line);
        let mut map = map.serialize_map(None)?;
        map.serialize_entry("head", self)?;
        map.serialize_entry("figures", figures)?;
        map.end()?;
        line.push(b'\n');
        let mut open = OpenOptions::new();
        let written = open.create(true).append(true).open(file).and_then(|mut file| file.write_all(&line));
        written.with_context(|| format!("writing {}", file.display()))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}, {}", self.scenario, self.at)?;
        writeln!(f, "  machine   {}", self.machine)?;
        writeln!(f, "  build     {}", if self.build.is_empty() { "unknown" } else { &self.build })?;
        let settings = if self.settings.is_empty() { "as shipped".to_owned() } else { self.settings.join(", ") };
        writeln!(f, "  settings  {settings}")?;
        for note in &self.notes {
            writeln!(f, "  note      {note}")?;
        }
        writeln!(f)
    }
}

/// One row for each window.
pub fn print_windows(windows: &[Window]) {
    let header = [
        "msg/s",
        "deliveries/s",
        "MB/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "gateway us/delivery",
        "ns/byte",
        "stack us/msg",
        "lost",
        "closed",
        "generator %",
        "other cores",
    ];
    let rows: Vec<Vec<String>> = windows.iter().map(row).collect();
    println!("{}", table::render(&header, &rows));
    for window in windows.iter().filter(|window| window.receipt_p50_ms.is_some()) {
        let [p50, p99] = [window.receipt_p50_ms, window.receipt_p99_ms].map(Option::unwrap_or_default);
        println!("  SEND -> RECEIPT at {:.0} msg/s: p50 {p50:.1} ms, p99 {p99:.1} ms\n", window.rate);
    }
}

fn row(window: &Window) -> Vec<String> {
    let gateway = window.server_us();
    let delivered = window.delivered.max(1) as f64;
    vec![
        format!("{:.0}", window.rate),
        format!("{:.0}", window.deliveries_per_s),
        format!("{:.1}", window.bytes_per_s / 1e6),
        format!("{:.2}", window.p50_ms),
        format!("{:.2}", window.p99_ms),
        format!("{:.2}", window.p999_ms),
        format!("{:.2}", gateway / delivered),
        format!("{:.1}", gateway * 1000.0 / window.bytes.max(1) as f64),
        format!("{:.0}", window.stack_cpu_us() / window.sent.max(1) as f64),
        window.expected.saturating_sub(window.delivered).to_string(),
        window.closed.to_string(),
        format!("{:.0}", window.cpu_us(processes::GENERATOR) / 1e4 / window.watched_s),
        format!("{:.2}", window.other_cores),
    ]
}

/// What each process used in one window.
pub fn print_processes(window: &Window) {
    let (sent, delivered) = (window.sent.max(1) as f64, window.delivered.max(1) as f64);
    let per = |used: &ProcessUse| {
        let us = used.cpu_ms as f64 * 1000.0;
        vec![
            used.name.clone(),
            format!("{:.1}", us / sent),
            format!("{:.3}", us / delivered),
            format!("{:.1}", us / 1e4 / window.watched_s),
            (used.rss_kib / 1024).to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = window.processes.iter().map(per).collect();
    println!("{}", table::render(&["process", "CPU us/message", "us/delivery", "CPU %", "RSS MiB"], &rows));
}
