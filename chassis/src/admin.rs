//! The admin listener: `/livez`, `/readyz`, `/metrics`, and what the service adds. Loopback by default.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{
    Json, Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;
use tokio::net::TcpListener;
use tracing::info;

use crate::Process;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) async fn serve(
    process: &Process,
    listen: SocketAddr,
    metrics: Registry,
    extra: Router,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("admin.listen: can't bind {listen}"))?;
    let bound = listener.local_addr().context("the admin listener has no address")?;
    let metrics = Arc::new(metrics);
    let ready = process.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readyz(&ready) }))
        .route("/metrics", get(move || async move { render(&metrics) }))
        .merge(extra);
    info!(%bound, "the admin listener is up");
    // Answers until the very end, so that a drain can be watched.
    let stopping = process.lifecycle.stopping();
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin listener ended");
        }
    });
    Ok(bound)
}

fn readyz(process: &Process) -> Response {
    let missing = process.readiness.missing();
    let draining = process.lifecycle.is_draining();
    let ready = missing.is_empty() && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "draining": draining, "missing": missing }))).into_response()
}

fn render(metrics: &Registry) -> Response {
    let mut text = String::new();
    match encode(&mut text, metrics) {
        Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
