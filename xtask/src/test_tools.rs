//! What only tests need: clients that we did not write (npm and Python packages, Spring's jars), grpcurl and a browser.
//! They go into `.switchboard/pkg`. A machine without Go gets one there too; node and pip, if missing, are installed by
//! apt.

use crate::command::{self, on_path};
use crate::debian::{Suite, Unpacked};
use crate::interrupt::Interrupt;
use crate::jars::{self, Jars};
use crate::layout::Layout;
use crate::report::Report;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const STEP: &str = "test-tools";
const GRPCURL: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3";
/// Chromium without windows, by its own name or as a mode of the whole one.
const BROWSERS: [&str; 2] = ["chromium-headless-shell", "chromium"];

/// Where they are.
pub struct TestTools {
    /// Goes before the PATH.
    bin: PathBuf,
    python: PathBuf,
    browser: PathBuf,
    /// Class path of the Java client.
    spring: PathBuf,
}

impl TestTools {
    pub fn install(layout: &Layout, report: &Report, interrupt: &Interrupt) -> Result<Self> {
        let installer = Installer { layout, report, interrupt };
        let tools = Self {
            bin: layout.pkg().join("bin"),
            python: layout.pkg().join("python"),
            browser: installer.browser()?,
            spring: layout.pkg().join("spring"),
        };
        fs::create_dir_all(&tools.bin)?;
        installer.debian_packages()?;
        let spring = Jars { what: "Spring", profile: None, folder: "" };
        jars::copy(layout, report, (STEP, "e2e/java/pom.xml"), &tools.spring, &[spring], interrupt)?;
        installer.python_packages(&tools.python)?;
        installer.node_packages()?;
        installer.grpcurl(&tools.bin)?;
        report.line(STEP, "all there");
        Ok(tools)
    }

    /// For a command that runs tests.
    pub fn set_environment(&self, command: &mut Command) -> Result<()> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.bin.clone()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders)?).env("PYTHONPATH", &self.python);
        command.env("SWITCHBOARD_BROWSER", &self.browser).env("SWITCHBOARD_SPRING", &self.spring);
        Ok(())
    }
}

struct Installer<'a> {
    layout: &'a Layout,
    report: &'a Report,
    interrupt: &'a Interrupt,
}

impl Installer<'_> {
    /// Interpreters that the machine lacks: the one thing that is installed into the system.
    fn debian_packages(&self) -> Result<()> {
        let mut missing = Vec::new();
        if on_path("node").is_none() || on_path("npm").is_none() {
            missing.extend(["nodejs", "npm"]);
        }
        if command::output("python3", &["-m", "pip", "--version"]).is_none() {
            missing.extend(["python3", "python3-pip"]);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let install = format!("apt-get install {}", missing.join(" "));
        if on_path("apt-get").is_none() || !(nix::unistd::geteuid().is_root() || on_path("sudo").is_some()) {
            bail!("the tests need node with npm, and python3 with pip. As root: {install}");
        }
        self.report.line(STEP, &install);
        for arguments in [&["update"][..], &["install", "--no-install-recommends"]] {
            let mut apt = Command::new(if nix::unistd::geteuid().is_root() { "env" } else { "sudo" });
            apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]).args(arguments);
            if arguments[0] == "install" {
                apt.args(&missing);
            }
            self.run(apt)?;
        }
        Ok(())
    }

    /// The machine's Chromium, else that of its Debian release.
    fn browser(&self) -> Result<PathBuf> {
        if let Some(browser) = BROWSERS.iter().find_map(|name| on_path(name)) {
            return Ok(browser);
        }
        let packages =
            Unpacked { suite: Suite::Machine, folder: "chromium", packages: &BROWSERS[..1], pinned: "for tests" };
        packages.install(self.layout, self.report, STEP, self.interrupt)?;
        let root = packages.root(self.layout);
        // Its processes start each other, so the way to the libraries goes with them.
        let script = format!(
            "#!/bin/sh\nroot='{root}'\nexport LD_LIBRARY_PATH=\"$root/usr/lib/{abi}:$root/lib/{abi}:$root/usr/lib/{abi}/pulseaudio\"\n\
             exec \"$root/usr/lib/chromium/{program}\" \"$@\"\n",
            root = root.display(),
            abi = format_args!("{}-linux-gnu", std::env::consts::ARCH),
            program = BROWSERS[0],
        );
        let start = root.join("start");
        fs::write(&start, script).with_context(|| format!("writing {}", start.display()))?;
        fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
        Ok(start)
    }

    fn python_packages(&self, target: &Path) -> Result<()> {
        let requirements = self.layout.root().join("examples/python/requirements.txt");
        self.unless_stamped(&requirements, &target.join("stamp"), "Python packages", || {
            if target.exists() {
                fs::remove_dir_all(target)?;
            }
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(target);
            pip.arg("--requirement").arg(&requirements);
            self.run(pip)
        })
    }

    fn node_packages(&self) -> Result<()> {
        let folder = self.layout.root().join("examples/javascript");
        let lock = folder.join("package-lock.json");
        self.unless_stamped(&lock, &folder.join("node_modules/.switchboard-stamp"), "npm packages", || {
            let mut npm = Command::new("npm");
            npm.args(["ci", "--no-audit", "--no-fund", "--cache"]).arg(self.layout.pkg().join("npm-cache"));
            npm.current_dir(&folder);
            self.run(npm)
        })
    }

    fn grpcurl(&self, bin: &Path) -> Result<()> {
        if bin.join("grpcurl").exists() {
            return Ok(());
        }
        self.report.line(STEP, "building grpcurl");
        let go_folder = self.layout.pkg().join("go");
        let mut go = Command::new(self.go()?);
        go.args(["install", GRPCURL]).env("GOBIN", bin).env("GOPATH", &go_folder);
        // Modules that can be deleted again without changing their modes first.
        go.env("GOCACHE", go_folder.join("cache")).env("GOFLAGS", "-modcacherw");
        self.run(go)
    }

    /// The machine's Go, else Debian's newest.
    fn go(&self) -> Result<PathBuf> {
        if let Some(go) = on_path("go") {
            return Ok(go);
        }
        let packages = Unpacked { suite: Suite::Sid, folder: "golang", packages: &["golang-go"], pinned: GRPCURL };
        packages.install(self.layout, self.report, STEP, self.interrupt)?;
        let libraries = packages.root(self.layout).join("usr/lib");
        let folders = fs::read_dir(&libraries)?.flatten().map(|entry| entry.path().join("bin/go"));
        folders.into_iter().find(|go| go.exists()).with_context(|| format!("no Go in {}", libraries.display()))
    }

    /// Runs `install` unless the stamp holds the very content of the file that pins the versions.
    fn unless_stamped(
        &self,
        pinned: &Path,
        stamp: &Path,
        what: &str,
        install: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let content = fs::read_to_string(pinned).with_context(|| format!("reading {}", pinned.display()))?;
        if fs::read_to_string(stamp).ok().as_ref() == Some(&content) {
            return Ok(());
        }
        self.report.line(STEP, format_args!("installing {what}"));
        install()?;
        fs::write(stamp, content).with_context(|| format!("writing {}", stamp.display()))
    }

    fn run(&self, command: Command) -> Result<()> {
        command::run(command, &self.layout.log(STEP), self.interrupt, |_| {})
    }
}
