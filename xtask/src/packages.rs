//! MySQL and Redis: what is on the PATH, else Debian's own packages, unpacked ([`crate::debian`]) and started through
//! the dynamic loader that comes with them. Nothing is installed into the system and no root is needed.
//!
//! `sid` moves: `deploy/mysql/tested-version` says what this was tested with; another version is taken with a notice.

use crate::command::{self, on_path};
use crate::debian::{Suite, Unpacked};
use crate::interrupt::Interrupt;
use crate::layout::Layout;
use crate::report::Report;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

const STEP: &str = "packages";
const DEBIAN: Unpacked = Unpacked { suite: Suite::Sid, folder: "debian", packages: &[], pinned: "" };

/// A server program and how to call it.
#[derive(Debug, Clone)]
pub struct Program {
    /// The words before its own arguments.
    pub argv: Vec<String>,
    /// The folder that stands for `/` when it was unpacked by us; `None` for one of this machine.
    pub root: Option<PathBuf>,
}

/// Installs what is missing and says what is used.
pub fn install(layout: &Layout, report: &Report, interrupt: &Interrupt) -> Result<()> {
    let tested = tested_mysql(layout)?;
    let mut wanted = Vec::new();
    if usable_mysqld_on_path().is_none() {
        wanted.push("mysql-server-core");
    }
    if on_path("redis-server").is_none() {
        wanted.push("redis-server");
    }
    if !wanted.is_empty() {
        let pinned = format!("tested with mysql {tested}");
        Unpacked { packages: &wanted, pinned: &pinned, ..DEBIAN }.install(layout, report, STEP, interrupt)?;
    }
    let (mysqld, redis) = (mysqld(layout)?, redis_server(layout)?);
    let mysql_version = version_of(&mysqld).context("mysqld is there but does not say its version")?;
    let redis_version = version_of(&redis).context("redis-server is there but does not say its version")?;
    report.line(STEP, format_args!("mysql {mysql_version}, redis {redis_version}"));
    if mysql_version != tested {
        report.line(STEP, format_args!("note: tested with mysql {tested}"));
    }
    Ok(())
}

pub fn mysqld(layout: &Layout) -> Result<Program> {
    match usable_mysqld_on_path() {
        Some(program) => Ok(program),
        None => unpacked_program(layout, "usr/sbin/mysqld"),
    }
}

pub fn redis_server(layout: &Layout) -> Result<Program> {
    match on_path("redis-server") {
        Some(path) => Ok(Program { argv: vec![path.to_string_lossy().into_owned()], root: None }),
        None => unpacked_program(layout, "usr/bin/redis-server"),
    }
}

fn tested_mysql(layout: &Layout) -> Result<String> {
    let path = layout.root().join("deploy/mysql/tested-version");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// MySQL 8.0 or newer. MariaDB calls its server `mysqld` too; Debezium's MySQL connector and our SQL don't fit it.
fn usable_mysqld_on_path() -> Option<Program> {
    let path = on_path("mysqld")?.to_string_lossy().into_owned();
    let answer = command::output(&path, &["--version"])?;
    is_usable_mysqld(&answer).then(|| Program { argv: vec![path], root: None })
}

fn is_usable_mysqld(answer: &str) -> bool {
    let major = version_in(answer).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    !answer.contains("MariaDB") && major.is_some_and(|major| major >= 8)
}

/// Called through the loader of its own packages: theirs is a newer libc than the machine's.
fn unpacked_program(layout: &Layout, program: &str) -> Result<Program> {
    let root = DEBIAN.root(layout);
    let path = root.join(program);
    ensure!(path.exists(), "{} is not there: run `{}` first", path.display(), layout.command("up"));
    let libraries = library_folder(&root)?;
    let loader = fs::read_dir(&libraries)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")))
        .with_context(|| format!("no dynamic loader in {}", libraries.display()))?;
    let library_path = format!("{0}:{0}/mysql", libraries.display());
    let argv = [&*loader.to_string_lossy(), "--library-path", &library_path, &*path.to_string_lossy()];
    Ok(Program { argv: argv.map(str::to_owned).into(), root: Some(root) })
}

/// `usr/lib/<architecture>-linux-gnu`
fn library_folder(root: &Path) -> Result<PathBuf> {
    let folder = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    ensure!(folder.is_dir(), "{} is not there", folder.display());
    Ok(folder)
}

fn version_of(program: &Program) -> Option<String> {
    let (first, rest) = program.argv.split_first()?;
    let arguments: Vec<&str> = rest.iter().map(String::as_str).chain(["--version"]).collect();
    version_in(&command::output(first, &arguments)?)
}

/// `mysqld  Ver 9.7.4-2 for Linux …` and `Redis server v=8.0.6 sha=…`, without the packager's suffix.
fn version_in(answer: &str) -> Option<String> {
    let (_, rest) = answer.split_once(" Ver ").or_else(|| answer.split_once(" v="))?;
    Some(rest.split([' ', '-', '+']).next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_servers_print() {
        assert_eq!(version_in("/x/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))").unwrap(), "9.7.4");
        assert_eq!(version_in("Redis server v=8.0.6 sha=00000000:0 malloc=jemalloc").unwrap(), "8.0.6");
        assert_eq!(version_in("nonsense"), None);
    }

    #[test]
    fn mariadb_and_old_servers_are_not_taken_for_mysql() {
        assert!(is_usable_mysqld("mysqld  Ver 8.0.40 for Linux on x86_64 (MySQL Community Server)"));
        assert!(!is_usable_mysqld("mysqld  Ver 5.7.44 for Linux on x86_64"));
        assert!(!is_usable_mysqld("mysqld  Ver 10.11.6-MariaDB-0+deb12u1 for debian-linux-gnu"));
    }
}
