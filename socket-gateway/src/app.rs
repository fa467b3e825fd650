//! The parts put together, and taken apart again in order.

use std::sync::Arc;

use anyhow::Context as _;
use chassis::{
    Process, Secret,
    hops::HopRing,
    jwt::{KeySource, Verifier},
    service_token::ServiceToken,
};
use proto::Keys;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    config::Config,
    hub::{Backend, Budget, Hub, Limits, Shard, Timing},
    metrics::Metrics,
    registration::{ConnectionsTask, Incarnations, InterestTask},
    session::{Services, Settings, Users},
    transport::{listener, upgrade::Gate},
    upstream::{Core, Endpoints, Sends},
};

/// Serves until drained.
pub async fn serve(config: Config, process: Process) -> anyhow::Result<()> {
    let Process { lifecycle, readiness, .. } = &process;
    let draining = lifecycle.draining();
    // What sessions need to end well goes on until they have ended.
    let stop = CancellationToken::new();
    // Also where something fails before that.
    let _stopped = stop.clone().drop_guard();
    let hops = HopRing::new(config.hops.capacity);
    let metrics = Arc::new(Metrics::new(hops.clone()));
    let crate::config::Server { listen, backlog, send_buffer, .. } = config.server;
    let listener =
        listener::bind(listen, backlog, send_buffer).with_context(|| format!("server.listen: can't bind {listen}"))?;

    let secret = Secret::from_file(&config.auth.client_secret_file).context("auth.client_secret_file")?;
    let token = Arc::new(ServiceToken::new(config.core.endpoints.clone(), &config.auth.client_id, secret));
    let verifier = Arc::new(Verifier::new(&config.auth.issuer));
    let keys = Arc::new(KeySource::new(config.core.endpoints.clone(), verifier));
    lifecycle.spawn("keys", Arc::clone(&keys).run(draining.clone(), readiness.dependency("core-keys")));
    lifecycle.spawn("token", Arc::clone(&token).run(draining.clone(), readiness.dependency("core-token")));

    let endpoints = Endpoints::new(&config.core, token, &metrics)?;
    let (core, calls) = Core::new(endpoints.clone(), &config.core, stop.clone());
    let (sends, streams) = Sends::new(&endpoints, &config.core, &metrics, &readiness.dependency("core"));

    let shards = match config.hub.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        shards => shards,
    };
    let (hub, inputs) = Hub::new(shards, config.hub.queue);
    let redis_keys = Keys::new(&config.redis.key_prefix);
    let incarnations = Incarnations::new(&config, hub.clone(), readiness.dependency("redis"), Arc::clone(&metrics))?;
    let (lives, batch) = (incarnations.lives(), config.registration.batch);
    let (interest, interest_task) =
        InterestTask::new(redis_keys, lives.clone(), incarnations.doubts(), hub.clone(), batch);
    let (connections, connections_task) =
        ConnectionsTask::new(endpoints, lives, batch, config.registration.ping_interval);

    // Not before all dependencies are known to be missing.
    process.serve_admin(config.admin.listen, metrics.registry(), hops.router()).await?;

    let until_stop = |name, task| critical(&process, name, stop.clone(), task);
    until_stop("calls", Box::pin(calls));
    for stream in streams {
        until_stop("sends", Box::pin(stream.run(stop.clone())));
    }
    until_stop("interest", Box::pin(interest_task.run(stop.clone())));
    until_stop("incarnations", Box::pin(incarnations.run(stop.clone())));
    let (last_session_ended, unregistered) = (CancellationToken::new(), CancellationToken::new());
    let registering = {
        let (ended, unregistered) = (last_session_ended.clone(), unregistered.clone());
        async move {
            connections_task.run(ended).await;
            unregistered.cancel();
        }
    };
    critical(&process, "connections", last_session_ended.clone(), Box::pin(registering));
    let budget = Budget::new(config.hub.replay_bytes, config.core.log_page_bytes);
    let backend = Backend { interest, core: core.clone(), budget };
    for inputs in inputs {
        let shard = Shard::new(Limits::from(&config), Timing::from(&config.hub), backend.clone(), Arc::clone(&metrics));
        until_stop("shard", Box::pin(shard.run(inputs, stop.clone())));
    }

    let tasks = TaskTracker::new();
    let services = Arc::new(Services {
        settings: Arc::new(Settings::from_config(&config)),
        stomp: config.stomp.limits(),
        replay_low_water: config.limits.replay_low_water,
        close_timeout: config.websocket.close_timeout,
        sockjs_heartbeat: config.sockjs.heartbeat,
        drain_window: config.drain.window,
        hub,
        core,
        sends,
        connections,
        keys,
        metrics: Arc::clone(&metrics),
        draining: draining.clone(),
        tasks: tasks.clone(),
        users: Arc::new(Users::default()),
        next_session: 1.into(),
    });
    let gate = Arc::new(Gate::new(Arc::clone(&services), &config));
    info!(bound = %listener.local_addr().context("the listener has no address")?, "clients may connect");
    listener::serve(listener, gate, config.server.header_timeout, draining).await;

    info!(sessions = metrics.sessions.get(), "draining: clients are told to go");
    tasks.close();
    tasks.wait().await;
    last_session_ended.cancel();
    // Not before: the tasks that serve sessions would take the last one's end for a failure.
    drop(services);
    unregistered.cancelled().await;
    stop.cancel();
    Ok(())
}

/// A task that goes on while the process drains, until `stop`; its end before that is a failure.
fn critical(
    process: &Process,
    name: &'static str,
    stop: CancellationToken,
    task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
) {
    process.lifecycle.spawn_critical(name, async move {
        task.await;
        anyhow::ensure!(stop.is_cancelled(), "it ended while it was needed");
        Ok(())
    });
}
