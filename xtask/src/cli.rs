//! The command line.

use crate::layout::StackName;
use crate::overrides::Override;
use crate::stack::ProcessName;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Most copies of one service: the ports of the eleventh would be the admin ports of the first.
const MAX_COPIES: i64 = 9;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Runs and tests Switchboard on this machine")]
pub struct Cli {
    /// Which stack: `dev`, or the one that `test` or `chaos` uses
    #[arg(long, global = true, value_enum, default_value = "dev")]
    pub stack: StackName,
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Debug, Subcommand)]
pub enum Task {
    /// Sets up what is missing, builds, starts everything, sends a first message through
    Up(UpOptions),
    /// Stops everything that `up` started
    Down {
        /// Also removes the data, so that the next `up` starts from nothing
        #[arg(long)]
        purge: bool,
    },
    /// Shows each process and the connector; exits with 1 when something is not healthy
    Status {
        #[arg(long)]
        json: bool,
    },
    /// Starts one process again, whether it runs or not
    Restart {
        /// e.g. `kafka`, `core-services-1`, `socket-gateway-2`
        name: ProcessName,
    },
    /// Copies the database into a new folder, while everything runs
    Backup { folder: PathBuf },
    /// Puts a copy of the database into its place and raises the epoch: docs/runbooks/restore.md
    Restore {
        folder: PathBuf,
        /// Why; kept with the epoch
        #[arg(long)]
        reason: Option<String>,
    },
    /// Prints the log of one process
    Logs {
        /// e.g. `kafka`, `core-services-1`; also `build`, `packages`, `jars`
        name: String,
        /// Goes on as the log grows
        #[arg(short, long)]
        follow: bool,
    },
    /// Lint and every test, on a stack of its own beside a running one
    Test(TestOptions),
    /// Breaks a stack of its own under load and judges what its clients saw: `cargo xtask chaos --help`
    #[command(disable_help_flag = true)]
    Chaos {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Formatting, clippy and rustdoc, with warnings as errors
    Lint,
    /// Database migrations
    Migrate {
        #[command(subcommand)]
        task: MigrateTask,
    },
    /// A small terminal client: `cargo xtask chat alice`
    #[command(disable_help_flag = true)]
    Chat {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The load generator: `cargo xtask load --help`
    #[command(disable_help_flag = true)]
    Load {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct UpOptions {
    /// Returns when all is ready and leaves it running
    #[arg(long)]
    pub detach: bool,
    /// Added to every port (the default of the test stack is 5000, of the chaos stack 11000)
    #[arg(long, value_name = "N")]
    pub port_offset: Option<u16>,
    /// An optimised build
    #[arg(long)]
    pub release: bool,
    /// Copies of socket-gateway
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=MAX_COPIES))]
    pub gateways: u16,
    /// Copies of fanout-worker
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAX_COPIES))]
    pub workers: u16,
    /// Copies of core-services
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAX_COPIES))]
    pub cores: u16,
    /// Sets a key of a service's configuration in all its copies, or in one, e.g.
    /// `socket-gateway.limits.connections=5000`, `socket-gateway-2.hub.linger=1s`
    #[arg(long = "set", value_name = "SERVICE.SECTION.KEY=VALUE")]
    pub overrides: Vec<Override>,
    /// MySQL, Redis, Kafka and Connect only: nothing is built
    #[arg(long)]
    pub engines_only: bool,
    /// The services of another build, which has bugs on purpose, with these on: `cargo xtask chaos --bug` asks for it
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', conflicts_with = "engines_only", hide = true)]
    pub seeded_bugs: Vec<String>,
}

#[derive(Debug, Args)]
pub struct TestOptions {
    /// Only tests whose name contains this
    #[arg(long, value_name = "NAME")]
    pub filter: Option<String>,
    /// Leaves the test stack and its data as they are at the end
    #[arg(long)]
    pub keep: bool,
    /// Leaves out formatting, clippy and rustdoc
    #[arg(long)]
    pub skip_lint: bool,
}

#[derive(Debug, Subcommand)]
pub enum MigrateTask {
    /// Makes `sql/NNNN_<name>.sql` with the next number
    New { name: String },
    /// Which migrations the running stack's database has
    Status,
}
