//! What `/proc` says: whether a recorded process is still the same one, how much memory it has, and who
//! listens on a port.

use serde::{Deserialize, Serialize};
use std::fs;
use std::time::Duration;

/// Clock ticks per second of `/proc/<pid>/stat`: fixed for user space on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A process, told apart from a later one with the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks between boot and the process's start.
    start_ticks: u64,
    boot_id: String,
}

impl Identity {
    /// Of a process that runs, or that its parent has not reaped.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self { pid, start_ticks: stat.start_ticks, boot_id: boot_id() })
    }

    /// Whether this very process still runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok();
        let Some(stat) = stat.as_deref().and_then(Stat::parse) else { return false };
        stat.start_ticks == self.start_ticks && !matches!(stat.state, 'Z' | 'X') && self.boot_id == boot_id()
    }

    /// Since its start.
    pub fn uptime(&self) -> Option<Duration> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let since_boot: f64 = uptime.split(' ').next()?.parse().ok()?;
        let started = self.start_ticks as f64 / TICKS_PER_SECOND as f64;
        Some(Duration::from_secs_f64((since_boot - started).max(0.0)))
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(&fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?)
    }

    /// Whether the file it was started from was replaced since, by a newer build.
    pub fn runs_a_replaced_file(&self) -> bool {
        fs::read_link(format!("/proc/{}/exe", self.pid)).is_ok_and(|exe| exe.to_string_lossy().ends_with(" (deleted)"))
    }
}

/// Who listens on a TCP port of this machine, as far as this user may see.
pub fn listener_on(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables.iter().find_map(|table| listening_inode(&fs::read_to_string(table).ok()?, port))?;
    let target = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds =
            |file: fs::DirEntry| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == target.as_str());
        if files.flatten().any(holds) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

struct Stat {
    state: char,
    start_ticks: u64,
}

impl Stat {
    /// The name, field 2, is in parentheses and may hold anything, parentheses and spaces too.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
        Some(Self { state: fields.first()?.chars().next()?, start_ticks: fields.get(19)?.parse().ok()? })
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The inode of the socket that listens on `port`: local address in field 2, state 0A in field 4.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == "0A";
        listens.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "4711 (odd) (name) S 1 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 200";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.start_ticks), ('S', 987_654));
    }

    #[test]
    fn resident_memory_is_read_in_kibibytes() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\nVmData:\t 1 kB\n"), Some(2 * 1024 * 1024));
        assert_eq!(resident_bytes("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn only_a_listening_socket_holds_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F91 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 111 1\n\
             1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1\n";
        assert_eq!(listening_inode(table, 8081), Some(222));
        assert_eq!(listening_inode(table, 8082), None);
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_another_process() {
        let identity = Identity::of(std::process::id()).unwrap();
        assert!(identity.is_alive());
        let reused = Identity { start_ticks: identity.start_ticks + 1, ..identity };
        assert!(!reused.is_alive());
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = listener_on(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    }
}
