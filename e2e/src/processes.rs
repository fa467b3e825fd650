//! What the stack's processes have used, from `/proc`.

use std::fs;

use crate::endpoints::Process;

/// Clock ticks of `/proc/<pid>/stat` in a second; the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What the reading of this very process is called.
pub const GENERATOR: &str = "(this generator)";

/// A reading of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub name: String,
    /// User and system time since its start, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory, in KiB.
    pub rss_kib: u64,
}

/// Reads all processes; those that are gone are left out.
pub fn read(processes: &[Process]) -> Vec<Usage> {
    processes.iter().filter_map(|process| usage(&process.name, &process.pid.to_string())).collect()
}

/// Reads this process.
pub fn own(name: &str) -> Option<Usage> {
    usage(name, "self")
}

/// CPU time that the whole machine has used since it started, of all cores, in milliseconds.
pub fn machine_cpu_ms() -> Option<u64> {
    busy_ms(&fs::read_to_string("/proc/stat").ok()?)
}

/// proc_stat(5): user, nice, system; then idle and iowait, which are left out; then irq, softirq.
fn busy_ms(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).map_while(|n| n.parse().ok()).collect();
    let ticks: u64 = fields.get(..3)?.iter().chain(fields.get(5..7)?).sum();
    Some(ticks * 1000 / TICKS_PER_SECOND)
}

fn usage(name: &str, pid: &str) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage { name: name.to_owned(), cpu_ms: cpu_ms(&stat)?, rss_kib: rss_kib(&status)? })
}

/// proc_pid_stat(5): fields 14 and 15, counted behind the command's name, which may hold blanks.
fn cpu_ms(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) * 1000 / TICKS_PER_SECOND)
}

fn rss_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_parsed_also_when_a_process_name_has_blanks_and_brackets() {
        let stat = "4711 (a ) b) S 1 2 3 0 -1 4194560 9 0 0 0 250 150 0 0 20 0 5 0 1 1 1";
        assert_eq!(cpu_ms(stat), Some(4000));
        assert_eq!(busy_ms("cpu  10 20 30 4000 500 6 7 8 0 0\ncpu0 1 1 1 1\n"), Some(730));
        assert_eq!(rss_kib("VmPeak:\t 1 kB\nVmRSS:\t    2048 kB\n"), Some(2048));
    }
}
