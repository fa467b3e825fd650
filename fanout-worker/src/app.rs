//! Puts the worker together and runs it until it is drained.

use anyhow::Context as _;
use chassis::{Backoff, Process, Secret};
use prometheus_client::registry::Registry;
use proto::Keys;
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    admin::{self, Admin},
    config::Config,
    consumer,
    coordinator::{Coordinator, View},
    dead_letter::{self, DeadLetters},
    metrics::Metrics,
    partition::Executor,
    publish::Publisher,
    redis_link,
    sweeper::Sweeper,
};

/// Commands beside serving.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Records that could not be routed: look at them, and replay what can be delivered now
    #[command(subcommand)]
    DeadLetters(dead_letter::command::Command),
}

/// Runs a command to its end.
pub async fn command(command: Command, config: Config, process: Process) -> anyhow::Result<()> {
    match command {
        Command::DeadLetters(command) => dead_letter::command::run(command, config, process).await,
    }
}

/// Serves until the process drains; an error is a failed start or a consumer that can't go on.
pub async fn serve(config: Config, process: Process) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let password = config.redis.password_file.as_deref().map(Secret::from_file).transpose()?;
    let (link, keeper) =
        redis_link::link(&config.redis, password.as_ref(), process.readiness.dependency("redis"), metrics.clone())
            .context("redis.url")?;
    let keys = Keys::new(&config.redis.key_prefix);
    let backoff = Backoff::new(config.redis.retry_base, config.redis.retry_max);
    let executor = Executor {
        batch: config.batch,
        backoff: backoff.clone(),
        publisher: Publisher {
            link: link.clone(),
            keys: keys.clone(),
            metrics: metrics.clone(),
            stream_max_len: config.redis.stream_max_len,
            pipeline_bytes: config.redis.pipeline_bytes,
        },
        dead_letters: DeadLetters::new(&config.kafka, backoff, metrics.clone()).context("the dead-letter producer")?,
        metrics: metrics.clone(),
    };
    let view = View::default();
    let (kafka, dependency, runtime) = (config.kafka, process.readiness.dependency("kafka"), Handle::current());
    let (settings, partition, its_view) = (kafka.clone(), config.partition, view.clone());
    let create = move || {
        let coordinator =
            Coordinator::new(&settings, partition.clone(), executor.clone(), its_view.clone(), runtime.clone());
        consumer::create(&settings, coordinator, dependency.clone())
    };

    let routes = admin::router(Admin { link: link.clone(), keys: keys.clone(), view });
    let address = process.serve_admin(config.admin.listen, registry, routes).await?;
    info!(%address, kafka.group = kafka.group_id, "the fanout worker runs");

    // Outlives everything that needs Redis: executors drain through it.
    let finished = CancellationToken::new();
    process.lifecycle.spawn("redis link", keeper.run(finished.clone()));
    let sweeper = Sweeper::new(config.sweeper, link, keys, metrics);
    process.lifecycle.spawn("sweeper", sweeper.run(process.lifecycle.draining()));

    let (done, ended) = oneshot::channel();
    let draining = process.lifecycle.draining();
    std::thread::Builder::new()
        .name("kafka-poll".to_owned())
        .spawn(move || {
            // Nobody listens any more only when the process is past waiting.
            let _ = done.send(consumer::run(create, &kafka, &draining));
        })
        .context("the poll thread")?;
    let outcome = ended.await.context("the poll thread panicked");
    finished.cancel();
    outcome?.context("the consumer stopped")
}
