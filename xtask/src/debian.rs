//! Debian packages without root: downloaded with everything they need, verified with Debian's keyring, and unpacked
//! into a folder of `.switchboard/pkg` instead of being installed.
//!
//! They come from the mirror that this machine uses anyway. apt gets private lists, caches and an empty package
//! database, so the machine's own stay as they are.

use crate::apt_sources;
use crate::command::{self, on_path};
use crate::interrupt::Interrupt;
use crate::layout::Layout;
use crate::report::Report;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const STAMP: &str = "switchboard-stamp";

/// Which Debian the packages are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// The only one that has MySQL and a current Go. Its programs need its own C library, hence its own loader.
    Sid,
    /// The machine's: its programs run with the machine's C library, which is left out, and with theirs otherwise.
    Machine,
}

/// Not unpacked where the machine's own is used.
const C_LIBRARY: &str = "libc6_";

/// What to unpack where.
#[derive(Debug)]
pub struct Unpacked<'a> {
    pub suite: Suite,
    /// The folder's name in `.switchboard/pkg`.
    pub folder: &'a str,
    pub packages: &'a [&'a str],
    /// Anything else that makes an older download worthless when it changes.
    pub pinned: &'a str,
}

impl Unpacked<'_> {
    /// The folder that stands for `/`.
    pub fn root(&self, layout: &Layout) -> PathBuf {
        layout.pkg().join(self.folder)
    }

    /// Downloads and unpacks, unless a finished download of the same is there.
    pub fn install(&self, layout: &Layout, report: &Report, step: &str, interrupt: &Interrupt) -> Result<()> {
        let root = self.root(layout);
        let suite = match self.suite {
            Suite::Sid => "sid".to_owned(),
            Suite::Machine => apt_sources::debian()?.suite,
        };
        let stamp = format!("{} from {suite}; {}\n", self.packages.join(" "), self.pinned);
        if fs::read_to_string(root.join(STAMP)).ok().as_ref() == Some(&stamp) {
            return Ok(());
        }
        if on_path("apt-get").is_none() || on_path("dpkg").is_none() {
            bail!(
                "apt-get and dpkg are missing: on a machine that is not Debian, put mysqld 8.0 or newer and redis-server on the \
                 PATH, for the tests go and chromium too"
            );
        }
        ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing: apt-get install debian-archive-keyring");
        let log = layout.log(step);
        let work = layout.pkg().join(format!("{}.download", self.folder));
        let fresh = layout.pkg().join(format!("{}.partial", self.folder));
        for folder in [&work, &fresh] {
            remove_folder(folder)?;
        }
        let apt = Apt::prepare(&work, &suite)?;
        report.line(step, format_args!("reading the package lists of {suite}"));
        command::run(apt.command(&["update"]), &log, interrupt, |_| {})?;
        report.line(step, format_args!("downloading {} and what they need", self.packages.join(", ")));
        let arguments = ["install", "--download-only", "--no-install-recommends"];
        let arguments: Vec<&str> = arguments.iter().chain(self.packages).copied().collect();
        command::run(apt.command(&arguments), &log, interrupt, |line| {
            if line.starts_with("Need to get") {
                report.line(step, line);
            }
        })?;
        let mut archives = apt.archives()?;
        if self.suite == Suite::Machine {
            archives.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(C_LIBRARY)));
        }
        report.line(step, format_args!("unpacking {} packages", archives.len()));
        fs::create_dir_all(&fresh)?;
        for archive in &archives {
            let mut dpkg = Command::new("dpkg");
            dpkg.arg("-x").arg(archive).arg(&fresh);
            command::run(dpkg, &log, interrupt, |_| {})?;
        }
        fs::write(fresh.join(STAMP), stamp)?;
        remove_folder(&root)?;
        fs::rename(&fresh, &root)?;
        remove_folder(&work)
    }
}

/// apt-get with folders of its own.
struct Apt {
    options: Vec<String>,
    archives: PathBuf,
}

impl Apt {
    fn prepare(work: &Path, suite: &str) -> Result<Self> {
        let mirror = apt_sources::debian()?.mirror;
        let (lists, cache, sources) = (work.join("lists"), work.join("cache"), work.join("sources.list"));
        for folder in [lists.join("partial"), cache.join("archives/partial")] {
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let status = work.join("status");
        fs::write(&status, "")?;
        fs::write(&sources, format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))?;
        let options = [
            format!("Dir::State::Lists={}", lists.display()),
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::Cache={}", cache.display()),
            // As if nothing were installed: the packages must be complete without the machine's own. A file of our own,
            // because apt puts its lock beside it.
            format!("Dir::State::status={}", status.display()),
            // The user that apt downloads as can't write into this folder.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ];
        Ok(Self { options: options.into(), archives: cache.join("archives") })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y"]);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command.args(arguments);
        command
    }

    /// What was downloaded.
    fn archives(&self) -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(&self.archives)?.flatten().map(|entry| entry.path());
        let mut archives: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "deb")).collect();
        archives.sort();
        Ok(archives)
    }
}

/// Removes a folder that may not be there.
fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
