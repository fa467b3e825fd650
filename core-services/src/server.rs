//! One listener for REST and gRPC: HTTP/1.1 and h2c, told apart by their first bytes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, extract::Request, middleware};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use crate::{app::App, config, grpc, rest};

/// After a failed accept (out of file descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// An HTTP/1 peer has this long for its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Binds the listener.
pub async fn bind(config: &config::Server) -> anyhow::Result<TcpListener> {
    let listen = config.listen;
    TcpListener::bind(listen).await.with_context(|| format!("server.listen: can't bind {listen}"))
}

/// Serves until draining; then no new connections, and those that are there finish their requests. What has not ended
/// after `server.drain_timeout` (a reflection stream, a body that never comes) is cut off.
pub async fn serve(app: Arc<App>, listener: TcpListener) -> anyhow::Result<()> {
    info!(bound = %listener.local_addr().context("the listener has no address")?, "REST and gRPC are up");

    let (routes, health) = grpc::routes(&app).context("the descriptors of gRPC reflection")?;
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    app.lifecycle.spawn("gRPC health", report_health(Arc::clone(&app), health));
    let grpc = routes.into_axum_router().reset_fallback().layer(middleware::from_fn(grpc::transport::with_code));
    let router = rest::router(&app).merge(grpc);

    let http = http(&app.config.server);
    let graceful = GracefulShutdown::new();
    let draining = app.lifecycle.draining();
    let cut_off = CancellationToken::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = draining.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY could not be set");
        }
        let service = TowerToHyperService::new(service(router.clone()));
        let (http, watcher) = (http.clone(), graceful.watcher());
        let (draining, cut_off) = (draining.clone(), cut_off.clone());
        tokio::spawn(async move {
            // One that says nothing at all holds a descriptor for so long, no longer.
            tokio::select! {
                spoken = timeout(HEADER_TIMEOUT, stream.readable()) => if spoken.is_err() { return },
                () = draining.cancelled() => return,
            }
            let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
            tokio::select! {
                ended = watcher.watch(connection) => if let Err(error) = ended {
                    debug!(%peer, %error, "a connection ended");
                },
                () = cut_off.cancelled() => debug!(%peer, "a connection is cut off: it did not drain in time"),
            }
        });
    }
    // gRPC streams end by themselves when draining begins (see `grpc::stream`).
    let limit = app.config.server.drain_timeout;
    if timeout(limit, graceful.shutdown()).await.is_err() {
        warn!(drain_timeout_ms = limit.as_millis() as u64, "some connections did not drain in time: cutting them off");
        cut_off.cancel();
    }
    Ok(())
}

fn service(
    router: Router,
) -> impl tower::Service<
    http::Request<hyper::body::Incoming>,
    Response = axum::response::Response,
    Error = Infallible,
    Future = impl Future<Output = Result<axum::response::Response, Infallible>> + Send,
> + Clone
+ Send {
    router
        .map_request(|request: http::Request<hyper::body::Incoming>| -> Request { request.map(axum::body::Body::new) })
}

fn http(config: &config::Server) -> auto::Builder<TokioExecutor> {
    let window = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX >> 1);
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        .initial_stream_window_size(window(config.stream_window))
        .initial_connection_window_size(window(config.connection_window))
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout);
    http
}

/// The health service says SERVING exactly while `/readyz` says ready.
async fn report_health(app: Arc<App>, mut health: tonic_health::server::HealthReporter) {
    let draining = app.lifecycle.draining();
    let mut look = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            () = draining.cancelled() => break,
            _ = look.tick() => {}
        }
        let ready = app.readiness.missing().is_empty();
        let status = if ready { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        health.set_service_status("", status).await;
    }
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    // Ends the streams of those who watch: they have heard the last there is.
    health.clear_service_status("").await;
}
