//! What the figures were measured on.

use std::{fs, thread};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub memory_gib: u64,
}

impl Machine {
    /// As `/proc` tells it; what it does not tell is `unknown`.
    pub fn of_this_process() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_gib: value(&read("/proc/meminfo"), "MemTotal").and_then(gib).unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, kernel, memory_gib } = self;
        write!(f, "{cpu}, {cores} cores, Linux {kernel}, {memory_gib} GiB")
    }
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim())
}

fn gib(text: &str) -> Option<u64> {
    let kib: u64 = text.strip_suffix(" kB")?.parse().ok()?;
    Some(kib.div_ceil(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_behind_their_keys() {
        assert_eq!(value("processor\t: 0\nmodel name\t: A B\n", "model name"), Some("A B"));
        assert_eq!(gib("16384000 kB"), Some(16));
    }
}
