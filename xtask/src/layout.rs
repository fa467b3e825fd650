//! Where everything lies. All state is under `.switchboard/` of the repository: what is shared by all stacks
//! in `pkg/`, and one folder for each stack.

use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// A stack on this machine. They run beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StackName {
    /// The one that `up` starts
    Dev,
    /// The one that `test` starts, always from empty data
    Test,
    /// The one that `chaos` starts and breaks, always from empty data
    Chaos,
}

impl StackName {
    pub fn folder(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Test => "test",
            Self::Chaos => "chaos",
        }
    }

    /// Added to every port unless `--port-offset` says otherwise.
    pub fn default_port_offset(self) -> u16 {
        match self {
            Self::Dev => 0,
            Self::Test => 5000,
            // Not 10000: the engines of `dev` are there. The highest stays below the ports that Linux gives to
            // connections (32768).
            Self::Chaos => 11000,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    stack: StackName,
}

impl Layout {
    pub fn of_this_repository(stack: StackName) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository");
        Self { root: root.to_owned(), stack }
    }

    pub fn stack(&self) -> StackName {
        self.stack
    }

    /// The repository's top folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is installed once for all stacks: engines, jars, test tools.
    pub fn pkg(&self) -> PathBuf {
        self.root.join(".switchboard/pkg")
    }

    /// Everything of this stack.
    pub fn dir(&self) -> PathBuf {
        self.root.join(".switchboard").join(self.stack.folder())
    }

    pub fn state_file(&self) -> PathBuf {
        self.dir().join("state.json")
    }

    pub fn endpoints_file(&self) -> PathBuf {
        self.dir().join("endpoints.json")
    }

    pub fn lock_file(&self) -> PathBuf {
        self.dir().join("lock")
    }

    pub fn secrets(&self) -> PathBuf {
        self.dir().join("secrets")
    }

    /// Generated configuration.
    pub fn run(&self) -> PathBuf {
        self.dir().join("run")
    }

    pub fn logs(&self) -> PathBuf {
        self.dir().join("log")
    }

    /// The log of a process, or of a step such as `build`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    pub fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Where cargo puts a binary of the workspace.
    pub fn binary(&self, name: &str, release: bool) -> PathBuf {
        self.target().join(if release { "release" } else { "debug" }).join(name)
    }

    /// The same for a service with bugs on purpose: in a target folder of its own, so that no other build ever has any.
    pub fn seeded_binary(&self, name: &str, release: bool) -> PathBuf {
        self.seeded_target().join(if release { "release" } else { "debug" }).join(name)
    }

    pub fn seeded_target(&self) -> PathBuf {
        self.target().join("seeded-bugs")
    }

    fn target(&self) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        self.root.join(target)
    }

    /// Says how to call this tool for this stack, for messages.
    pub fn command(&self, task: &str) -> String {
        match self.stack {
            StackName::Dev => format!("cargo xtask {task}"),
            StackName::Test | StackName::Chaos => format!("cargo xtask --stack {} {task}", self.stack.folder()),
        }
    }
}
