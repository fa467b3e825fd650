//! What must be so before anything is installed or started. Each refusal says what is wrong and what to do.

use crate::command::{self, on_path};
use crate::procfs;
use crate::report::Report;
use crate::stack::{ProcessName, Stack};
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::statvfs::statvfs;
use std::net::{Ipv4Addr, TcpListener};

const STEP: &str = "preflight";
/// Java's major version: Kafka 4 and Debezium 3 run on 17 or newer.
const JAVA: u32 = 17;
/// Free bytes for packages, jars and a first build; and when those are there.
const DISK_FIRST: u64 = 6_000_000_000;
const DISK_LATER: u64 = 1_000_000_000;
/// Kafka alone keeps more than a thousand files open, a gateway one for each client.
const FILES: u64 = 8192;

/// Tools, disk and file descriptors.
pub fn machine(stack: &Stack, report: &Report) -> Result<()> {
    let missing: Vec<_> =
        [("java", "openjdk-17-jre-headless"), ("mvn", "maven"), ("cc", "build-essential"), ("make", "build-essential")]
            .into_iter()
            .filter(|(tool, _)| on_path(tool).is_none())
            .collect();
    if !missing.is_empty() {
        let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        bail!("missing on the PATH: {}. On Debian: apt-get install {}", tools.join(", "), packages.join(" "));
    }
    let java = java_major(&command::output("java", &["-version"]).unwrap_or_default());
    match java {
        Some(major) if major >= JAVA => {}
        Some(major) => {
            bail!("java is version {major}, but {JAVA} or newer is needed: apt-get install openjdk-17-jre-headless")
        }
        None => bail!("`java -version` does not say a version; Java {JAVA} or newer is needed"),
    }

    let root = stack.layout.root();
    let disk = statvfs(root).with_context(|| format!("free space of {}", root.display()))?;
    let free = disk.blocks_available() * disk.fragment_size();
    let needed = if stack.layout.pkg().join("java").exists() { DISK_LATER } else { DISK_FIRST };
    ensure!(
        free >= needed,
        "{:.1} GB are free at {}, but {:.0} GB are needed: make room, or clone to another disk",
        free as f64 / 1e9,
        root.display(),
        needed as f64 / 1e9,
    );

    let files = raise_file_limit()?;
    let java = java.unwrap_or_default();
    report.line(
        STEP,
        format_args!("java {java}, mvn, cc, make; {:.0} GB free; {files} files may be open", free as f64 / 1e9),
    );
    Ok(())
}

/// Raises the soft limit of open files to the hard one, for everything started from here; says how many.
pub fn raise_file_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    ensure!(
        hard >= FILES,
        "only {hard} files may be open (`ulimit -Hn`), but {FILES} are needed: raise `nofile` in \
         /etc/security/limits.conf and log in again"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")?;
    Ok(hard)
}

/// Every port of a process that is about to start must be free.
pub fn ports_are_free(stack: &Stack, name: ProcessName) -> Result<()> {
    for port in stack.ports_of(name) {
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            let holder = procfs::listener_on(port).map_or_else(String::new, |holder| format!(", held by {holder}"));
            bail!(
                "port {port} of {name} can't be used: {error}{holder}. Stop that, or move the whole stack with \
                 `--port-offset N` (now {})",
                stack.settings.port_offset
            );
        }
    }
    Ok(())
}

/// `openjdk version "17.0.15" 2025-04-15`
fn java_major(answer: &str) -> Option<u32> {
    answer.split('"').nth(1)?.split(['.', '-', '+']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::java_major;

    #[test]
    fn the_major_version_of_java_is_read() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK …"), Some(17));
        assert_eq!(java_major("openjdk version \"25-ea\" 2025-09-16"), Some(25));
        assert_eq!(java_major("java version \"1.8.0_392\""), Some(1));
        assert_eq!(java_major("not java"), None);
    }
}
