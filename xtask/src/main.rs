//! `cargo xtask`: everything a developer does with a whole Switchboard stack on one machine.
//!
//! `up` installs what is missing into `.switchboard/pkg`, builds, starts the engines and services as
//! ordinary processes and sends a first message through; `down`, `status`, `restart` and `logs` work on the
//! same stack from any terminal. What a stack is made of and where its files lie is in [`stack`] and
//! [`layout`]; what runs is recorded in its `state.json` ([`state`]), and every process found there is
//! checked by pid and start time before it is touched ([`procfs`]).

#![expect(
    clippy::disallowed_methods,
    reason = "there is no async runtime here: loops that wait for a fact sleep between two looks"
)]

mod apt_sources;
mod backup;
mod chaos;
mod cli;
mod command;
mod compile;
mod connector;
mod debian;
mod down;
mod endpoints;
mod engines;
mod interrupt;
mod jars;
mod layout;
mod lint;
mod logs;
mod migrate;
mod overrides;
mod packages;
mod ports;
mod preflight;
mod probe;
mod procfs;
mod readiness;
mod report;
mod restart;
mod secrets;
mod services;
mod stack;
mod state;
mod status;
mod supervisor;
mod test;
mod test_tools;
mod unfinished;
mod up;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) if error.is::<interrupt::Interrupted>() => ExitCode::from(130),
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: cli::Cli) -> anyhow::Result<ExitCode> {
    use cli::Task;
    let layout = layout::Layout::of_this_repository(cli.stack);
    match cli.task {
        Task::Up(options) => up::run(layout, &options),
        Task::Down { purge } => down::run(&layout, purge),
        Task::Status { json } => status::run(&layout, json),
        Task::Restart { name } => restart::run(&layout, name),
        Task::Backup { folder } => backup::backup(&layout, &folder),
        Task::Restore { folder, reason } => backup::restore(&layout, &folder, reason.as_deref()),
        Task::Logs { name, follow } => logs::run(&layout, &name, follow),
        Task::Test(options) => test::run(&options),
        Task::Chaos { arguments } => chaos::replace_this_process(&arguments),
        Task::Lint => lint::run(&layout),
        Task::Migrate { task } => migrate::run(&layout, &task),
        Task::Chat { arguments } => probe::replace_this_process(&layout, "chat", &arguments),
        Task::Load { arguments } => probe::replace_this_process(&layout, "load", &arguments),
    }
}
