//! From the command line to a served process, and to its exit code: 0 done, 1 failed, 64 bad configuration or usage.

use std::{future::Future, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use axum::Router;
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use tracing::{error, info};

use crate::{Lifecycle, Readiness, Validate, admin, config, telemetry};

/// What a bad command line or configuration exits with (`EX_USAGE`).
const EXIT_CONFIG: u8 = 64;

/// What a service is.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub version: &'static str,
    pub about: &'static str,
    /// The commented YAML of all keys with their defaults.
    pub defaults: &'static str,
}

/// What a service is given: cheap to clone.
#[derive(Clone, Debug)]
pub struct Process {
    pub lifecycle: Lifecycle,
    pub readiness: Readiness,
    spec: Spec,
}

impl Process {
    /// A process for tests that run a service inside themselves: no signals, no logging.
    pub fn for_tests(name: &'static str) -> Self {
        let spec = Spec { name, version: "0.0.0", about: "", defaults: "" };
        Self { lifecycle: Lifecycle::new(), readiness: Readiness::default(), spec }
    }

    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    pub fn version(&self) -> &'static str {
        self.spec.version
    }

    /// Binds `listen` and serves `/livez`, `/readyz`, `/metrics` and `extra` until the process ends.
    pub async fn serve_admin(
        &self,
        listen: SocketAddr,
        metrics: Registry,
        extra: Router,
    ) -> anyhow::Result<SocketAddr> {
        admin::serve(self, listen, metrics, extra).await
    }
}

/// Runs a service that only serves.
pub fn run<C, S, F>(spec: Spec, serve: S) -> ExitCode
where
    C: DeserializeOwned + Validate + Send + 'static,
    S: FnOnce(C, Process) -> F,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    match parse(cli(spec)) {
        Ok(matches) => launch(spec, &matches, serve),
        Err(code) => code,
    }
}

/// Runs a service, or one of its commands beside serving, e.g. `migrate`. A command writes its answer to standard
/// output; the log goes to standard error.
pub fn run_command<C, T, S, F, D, G>(spec: Spec, serve: S, command: D) -> ExitCode
where
    C: DeserializeOwned + Validate + Send + 'static,
    T: clap::Subcommand,
    S: FnOnce(C, Process) -> F,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
    D: FnOnce(T, C, Process) -> G,
    G: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let cli = T::augment_subcommands(cli(spec)).subcommand_required(false).arg_required_else_help(false);
    let matches = match parse(cli) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    if matches.subcommand().is_none() {
        return launch(spec, &matches, serve);
    }
    match T::from_arg_matches(&matches) {
        Ok(task) => launch(spec, &matches, |config, process| command(task, config, process)),
        Err(error) => usage(&error),
    }
}

fn parse(cli: clap::Command) -> Result<clap::ArgMatches, ExitCode> {
    cli.try_get_matches().map_err(|error| usage(&error))
}

/// Says what was wrong with the command line, or what was asked for (`--help`).
fn usage(error: &clap::Error) -> ExitCode {
    let code = if error.use_stderr() { EXIT_CONFIG } else { 0 };
    // Nothing can be done when the terminal is gone.
    let _ = error.print();
    ExitCode::from(code)
}

/// Loads the configuration, starts the runtime, and sees `main` to its end.
fn launch<C, F>(spec: Spec, matches: &clap::ArgMatches, main: impl FnOnce(C, Process) -> F) -> ExitCode
where
    C: DeserializeOwned + Validate + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    if matches.get_flag("print-config") {
        print!("{}", spec.defaults);
        return ExitCode::SUCCESS;
    }
    let file = matches.get_one::<PathBuf>("config").cloned();
    let config = match config::load::<C>(spec.defaults, file.as_deref(), std::env::vars()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{}: bad configuration: {error}", spec.name);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if matches.get_flag("check-config") {
        println!("{}: the configuration is valid", spec.name);
        return ExitCode::SUCCESS;
    }

    if let Err(error) = telemetry::init(config.log()) {
        eprintln!("{}: bad configuration: log.filter: {error}", spec.name);
        return ExitCode::from(EXIT_CONFIG);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "the runtime did not start");
            return ExitCode::FAILURE;
        }
    };
    let process = Process { lifecycle: Lifecycle::new(), readiness: Readiness::default(), spec };
    let grace = config.shutdown().grace;
    let outcome = runtime.block_on(async {
        info!(service.name = spec.name, service.version = spec.version, "starting");
        #[cfg(feature = "seeded-bugs")]
        match crate::seeded::check() {
            Ok(bugs) => tracing::warn!(?bugs, "a build with seeded bugs: for chaos runs only"),
            Err(error) => anyhow::bail!(error),
        }
        process.lifecycle.listen_for_signals(grace).context("the signal handlers could not be installed")?;
        let main = tokio::spawn(main(config, process.clone()));
        process.lifecycle.supervise(main, grace).await
    });
    // Tasks that ignored the hard stop end here with the runtime.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!("stopped with an error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cli(spec: Spec) -> clap::Command {
    use clap::{Arg, ArgAction, Command, value_parser};
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).global(true).help(help)
    };
    Command::new(spec.name)
        .version(spec.version)
        .about(spec.about)
        .after_help("Any key can be set from the environment: SWITCHBOARD__<SECTION>__<KEY>=<value>.")
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .global(true)
                .value_parser(value_parser!(PathBuf))
                .help("YAML configuration; keys that it does not set have their defaults"),
        )
        .arg(flag("check-config", "Check the configuration and exit: 0 valid, 64 not"))
        .arg(flag("print-config", "Print all keys with their defaults and exit"))
}
