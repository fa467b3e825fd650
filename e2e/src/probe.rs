//! The command line of `probe`: the canary and first message of `cargo xtask up`, the terminal client, the load
//! generator.

mod backup;
mod canary;
mod chat;
mod durable;
mod first_message;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use crate::{
    bench::{self, Scenario},
    endpoints::Endpoints,
    load::{self, Plan, Subscribe},
};

#[derive(Debug, Parser)]
#[command(name = "probe", about = "Looks at a running Switchboard stack from outside")]
pub struct Cli {
    /// The stack's endpoints.json; without it, the file that SWITCHBOARD_ENDPOINTS names
    #[arg(long, global = true, value_name = "FILE")]
    endpoints: Option<PathBuf>,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Inserts an outbox row by hand and waits until Kafka has it
    Canary {
        /// How long it may take
        #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
        deadline: Duration,
    },
    /// Copies the database into a new folder, while the server goes on
    Backup(backup::Options),
    /// Sends a message from alice on the first gateway to bob on the second, and shows its way
    FirstMessage,
    /// A small terminal client
    Chat(ChatOptions),
    /// Without a scenario: sends messages at a fixed rate and judges what arrives; exits with 1 on loss, duplicates or
    /// disorder. With one: a benchmark, which prints figures and judges nothing
    #[command(args_conflicts_with_subcommands = true)]
    Load(Box<LoadOptions>),
    /// Pushes messages through the durable path, to its limit or at a rate, and prints what each process spent on them
    Durable(crate::durable::Plan),
}

#[derive(Debug, Args)]
struct ChatOptions {
    /// Who you are; the account is made on first use
    name: String,
    /// Which gateway to try first, from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    gateway: usize,
    /// The conversation's id or name; without it, the demonstration's channel
    #[arg(long, value_name = "ID|NAME")]
    conversation: Option<String>,
}

#[derive(Debug, Args)]
struct LoadOptions {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    #[arg(long, value_name = "N", default_value_t = 200)]
    users: usize,
    /// Conversations
    #[arg(long, value_name = "N", default_value_t = 50)]
    rooms: usize,
    /// Conversations that each user is in
    #[arg(long, value_name = "N", default_value_t = 2)]
    rooms_per_user: usize,
    /// Messages a second, over all users; sent on schedule, whether answers come or not
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    rate: f64,
    /// How long to send
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Text of each message, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,
    /// How many of the gateways are used: `all`, or a number
    #[arg(long, value_name = "all|N", default_value = "all", value_parser = gateway_spread)]
    gateway_spread: usize,
    /// One subscription for each conversation, or one for all of a user's
    #[arg(long, value_enum, default_value = "topic")]
    subscribe: Subscribe,
    /// How long to wait for what is under way when the sending ends
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// Also writes the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn gateway_spread(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        _ => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err("expected `all` or a number from 1".to_owned()),
        },
    }
}

/// Runs one task to its end.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    if let Task::Load(load) = &cli.task
        && let Some(Scenario::Plot(options)) = &load.scenario
    {
        bench::plot::run(options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let endpoints = Endpoints::load(cli.endpoints.as_deref())?;
    match cli.task {
        Task::Canary { deadline } => canary::run(&endpoints, deadline).await?,
        Task::Backup(options) => backup::run(&endpoints, &options).await?,
        Task::FirstMessage => first_message::run(&endpoints).await?,
        Task::Chat(options) => chat::run(&endpoints, &options).await?,
        Task::Load(mut load) => match load.scenario.take() {
            Some(scenario) => bench::run(&endpoints, scenario).await?,
            None => return run_load(&endpoints, *load).await,
        },
        Task::Durable(plan) => durable::run(&endpoints, &plan).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_load(endpoints: &Endpoints, options: LoadOptions) -> Result<ExitCode> {
    let plan = Plan {
        users: options.users,
        rooms: options.rooms,
        rooms_per_user: options.rooms_per_user,
        rate: options.rate,
        time: options.time,
        size: options.size,
        gateways: options.gateway_spread,
        subscribe: options.subscribe,
        drain: options.drain,
    };
    let report = load::run(endpoints, &plan, |line| println!("{line}")).await?;
    print!("\n{report}");
    if let Some(file) = options.json {
        let json = serde_json::to_vec_pretty(&report)?;
        std::fs::write(&file, json).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
