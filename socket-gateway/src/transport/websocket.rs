//! `GET /ws`: the upgrade to a WebSocket, and what stands in its way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{
        State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{
    HeaderMap, StatusCode,
    header::{ORIGIN, RETRY_AFTER, UPGRADE},
};

use crate::{config, metrics::Metrics, session, stomp::Version};

/// What the upgrade needs to know.
pub struct Gate {
    pub services: Arc<session::Services>,
    pub settings: config::WebSocket,
    /// Connections of this gateway, and what a refused one is told to wait.
    pub max_connections: usize,
    pub retry_after: Duration,
    pub open: AtomicUsize,
}

pub fn router(gate: Arc<Gate>) -> Router {
    Router::new().route("/ws", get(upgrade)).with_state(gate)
}

/// One of the connections that are open; dropped when it ends.
struct Place(Arc<Gate>);

impl Gate {
    fn enter(self: &Arc<Self>) -> Option<Place> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        self.metrics().connections.inc();
        // A place that is one too many is given back at once.
        let place = Place(Arc::clone(self));
        (before < self.max_connections).then_some(place)
    }

    fn metrics(&self) -> &Metrics {
        &self.services.metrics
    }

    /// Requests without an Origin are not a browser's.
    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let allowed = &self.settings.allowed_origins;
        headers.get(ORIGIN).is_none_or(|origin| {
            allowed.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
        })
    }

    fn busy(&self, why: &'static str) -> Response {
        self.metrics().connections_refused.inc();
        let after = self.retry_after.as_secs().max(1).to_string();
        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, after)], why).into_response()
    }
}

impl std::ops::Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics().connections.dec();
    }
}

async fn upgrade(
    State(gate): State<Arc<Gate>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) if headers.contains_key(UPGRADE) => return rejection.into_response(),
        Err(_) => {
            let text = "This is a WebSocket endpoint: connect with Upgrade: websocket and speak STOMP.\n";
            return (StatusCode::UPGRADE_REQUIRED, [(UPGRADE, "websocket")], text).into_response();
        }
    };
    if !gate.lets_in(&headers) {
        return (StatusCode::FORBIDDEN, "this Origin is not allowed here\n").into_response();
    }
    if gate.services.draining.is_cancelled() {
        return gate.busy("this gateway is going away: connect to another\n");
    }
    let Some(place) = gate.enter() else {
        return gate.busy("this gateway has as many connections as it may have: try again later\n");
    };
    let services = Arc::clone(&gate.services);
    let tracked = services.tasks.token();
    let settings = &gate.settings;
    upgrade
        .read_buffer_size(settings.read_buffer)
        .write_buffer_size(settings.write_buffer)
        // The session's queue is what is bounded; this is only a frame on top of the write buffer.
        .max_write_buffer_size(usize::MAX)
        .max_message_size(settings.max_message)
        .max_frame_size(settings.max_frame)
        .protocols(Version::SUBPROTOCOLS)
        .on_upgrade(move |socket| async move {
            session::serve(socket, services).await;
            drop((place, tracked));
        })
}
