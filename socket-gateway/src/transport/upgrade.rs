//! The upgrade to a WebSocket, and what stands in the way of any connection.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderMap, Request, StatusCode,
    header::{HeaderName, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tracing::debug;

use super::{Encoding, Inlet, inlet::WebSocket, sockjs::Sockjs};
use crate::{
    config,
    metrics::Metrics,
    session::{self, Sink},
    stomp::Version,
    websocket::{
        self,
        handshake::{self, RFC_6455, Refused},
    },
};

/// Origin, in the drafts before RFC 6455.
const DRAFT_ORIGIN: HeaderName = HeaderName::from_static("sec-websocket-origin");
/// What a proxy says of its client.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What new connections need to know.
pub struct Gate {
    pub services: Arc<session::Services>,
    pub settings: config::WebSocket,
    pub sockjs: Sockjs,
    pub limits: config::Limits,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    pub open: AtomicUsize,
    pub by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// One of the connections that are open; dropped when it ends.
pub struct Place {
    gate: Arc<Gate>,
    address: Option<IpAddr>,
}

impl Gate {
    pub fn new(services: Arc<session::Services>, config: &config::Config) -> Self {
        Self {
            services,
            settings: config.websocket.clone(),
            sockjs: Sockjs::new(config),
            limits: config.limits.clone(),
            trusted_proxies: config.server.trusted_proxies.clone(),
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
        }
    }

    /// Lets one more connection in, unless it is one too many.
    pub fn enter(self: &Arc<Self>, headers: &HeaderMap, peer: SocketAddr) -> Result<Place, Box<Response>> {
        if !self.allows_origin(headers) {
            return Err(Box::new(Self::foreign_origin()));
        }
        if self.services.draining.is_cancelled() {
            return Err(Box::new(self.busy("this gateway is going away: connect to another\n")));
        }
        // From here on the place is given back by its drop.
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        self.metrics().connections.inc();
        let mut place = Place { gate: Arc::clone(self), address: None };
        if before >= self.limits.connections {
            let why = "this gateway has as many connections as it may have: try again later\n";
            return Err(Box::new(self.busy(why)));
        }
        if self.limits.connections_per_address > 0 {
            let address = self.address(headers, peer);
            let mut open = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = open.entry(address).or_default();
            if *count >= self.limits.connections_per_address {
                drop(open);
                self.metrics().connections_refused.inc();
                let why = "your address has as many connections as it may have: close one, or try again later\n";
                return Err(Box::new(self.try_again(StatusCode::TOO_MANY_REQUESTS, why)));
            }
            *count += 1;
            place.address = Some(address);
        }
        Ok(place)
    }

    pub fn foreign_origin() -> Response {
        (StatusCode::FORBIDDEN, "this Origin is not allowed here\n").into_response()
    }

    fn metrics(&self) -> &Metrics {
        &self.services.metrics
    }

    /// Requests without an Origin are not a browser's, or only read: scripts of JSONP, and what the page in an iframe
    /// gets. To send, browsers say their Origin.
    pub fn allows_origin(&self, headers: &HeaderMap) -> bool {
        let allowed = &self.settings.allowed_origins;
        let origin = headers.get(ORIGIN).or_else(|| headers.get(DRAFT_ORIGIN));
        origin.is_none_or(|origin| {
            allowed.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
        })
    }

    /// Whose connection it is: the last that a trusted proxy has seen, else the peer.
    fn address(&self, headers: &HeaderMap, peer: SocketAddr) -> IpAddr {
        let peer = peer.ip().to_canonical();
        if !self.trusted_proxies.contains(&peer) {
            return peer;
        }
        let forwarded = headers.get_all(FORWARDED_FOR).iter().next_back().and_then(|value| value.to_str().ok());
        forwarded.and_then(|list| list.rsplit(',').next()?.trim().parse().ok()).unwrap_or(peer)
    }

    fn busy(&self, why: &'static str) -> Response {
        self.metrics().connections_refused.inc();
        self.try_again(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    fn try_again(&self, status: StatusCode, why: &'static str) -> Response {
        let after = self.limits.retry_after.max(Duration::from_secs(1)).as_secs().to_string();
        (status, [(RETRY_AFTER, after)], why).into_response()
    }
}

impl std::ops::Drop for Place {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        self.gate.metrics().connections.dec();
        let Some(address) = self.address else { return };
        let mut open = self.gate.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

/// What WebSocket messages hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Stomp,
    /// Frames of SockJS with STOMP in them.
    SockJs,
}

/// Answers a request for a WebSocket; the session begins when the answer is out.
pub fn upgrade(gate: &Arc<Gate>, request: Request<Incoming>, peer: SocketAddr) -> Response {
    match handshake::check(&request, &RFC_6455, &Version::SUBPROTOCOLS, gate.settings.compression) {
        Ok(agreed) => accept(gate, request, peer, &agreed, Dialect::Stomp),
        Err(refused) => self::refused(refused),
    }
}

/// Why a request does not become a WebSocket, and what it takes.
pub fn refused(refused: Refused) -> Response {
    let needs = [(UPGRADE, "websocket"), (SEC_WEBSOCKET_VERSION, RFC_6455[0])];
    (refused.status(), needs, format!("{refused}\n")).into_response()
}

/// Answers a request that was found to be for a WebSocket.
pub fn accept(
    gate: &Arc<Gate>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    agreed: &handshake::Accepted,
    dialect: Dialect,
) -> Response {
    let place = match gate.enter(request.headers(), peer) {
        Ok(place) => place,
        Err(refusal) => return *refusal,
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let response = agreed.response::<Body>();
    let (encoding, decoder) = codec(&gate.settings, agreed, dialect);
    let subprotocol = agreed.protocol.and_then(Version::from_subprotocol);
    let services = Arc::clone(&gate.services);
    gate.services.tasks.spawn(async move {
        let client = match upgraded.await {
            Ok(upgraded) => client(upgraded),
            Err(error) => return debug!(%error, "a client went away before it was a WebSocket"),
        };
        let (socket, left) = client;
        let (read, write) = socket.into_split();
        let websocket = WebSocket::new(read, decoder, left);
        let inlet = match dialect {
            Dialect::Stomp => Inlet::WebSocket(websocket),
            Dialect::SockJs => Inlet::sockjs(websocket),
        };
        let outgoing = services.outgoing(Sink::Socket(write), encoding);
        session::serve(inlet, outgoing, subprotocol, services).await;
        drop(place);
    });
    response
}

fn codec(
    settings: &config::WebSocket,
    agreed: &handshake::Accepted,
    dialect: Dialect,
) -> (Encoding, websocket::Decoder) {
    let min = settings.compression_min;
    let encoding = match (dialect, agreed.deflate) {
        (Dialect::SockJs, deflate) => Encoding::SockJsWebSocket { deflate: deflate.map(|deflate| (deflate, min)) },
        (Dialect::Stomp, Some(deflate)) => Encoding::Deflate { deflate, min },
        (Dialect::Stomp, None) => Encoding::WebSocket,
    };
    let limits = websocket::Limits { frame: settings.max_frame, message: settings.max_message };
    (encoding, websocket::Decoder::new(limits, agreed.deflate.is_some()))
}

/// The socket under an upgraded connection, and what was read of it already.
fn client(upgraded: Upgraded) -> (TcpStream, bytes::Bytes) {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().expect("the listener serves TCP streams");
    (parts.io.into_inner(), parts.read_buf)
}
