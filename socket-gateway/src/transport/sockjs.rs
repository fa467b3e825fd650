//! SockJS 0.3: sessions for clients whose WebSocket does not get through, over plain HTTP requests.
//!
//! The protocol is what its test-suite says (sockjs-protocol-0.3.3). A client gets `/ws/info`, and chooses a transport
//! and the ids in `/ws/{server}/{session}/{transport}`: the server's id is for balancers and means nothing here. With
//! `websocket` a SockJS session is a WebSocket; with the others it is a [`Session`] that requests come to: those that
//! receive ([`receiver`]) and those that send ([`sender`]). STOMP is inside the strings of SockJS messages.
//!
//! Each session has its task, as every client has ([`crate::session::serve`]), begun by the first request that receives.

pub mod framing;
mod headers;
pub mod json;
mod pages;
pub mod path;
pub mod query;
mod receiver;
mod sender;
mod session;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use http::{HeaderMap, Method, Request, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::{
    framing::Framing,
    path::{Path, Transport},
    query::Callback,
    receiver::Receiver,
    session::Session,
};
pub use self::{path::BASE, session::Mail};
use super::{
    Encoding, Inlet,
    upgrade::{self, Dialect, Gate, Place},
};
use crate::{
    config::{self, Config},
    session::{Outgoing, Sink, serve},
    stomp::Version,
    websocket::handshake::{self, RFC_6455_AND_DRAFTS, Refused},
};

/// What is said to a second request that receives.
const ANOTHER: (u16, &str) = (2010, "Another connection still open");

/// The sessions of this gateway, by the id that their client chose, and what they may.
pub struct Sockjs {
    settings: config::Sockjs,
    iframe: pages::Iframe,
    /// For the whole request, also its body.
    request_timeout: Duration,
    /// As many as there may be connections.
    sessions: Mutex<HashMap<Box<str>, Arc<Session>>>,
    /// The last of them is forgotten.
    emptied: Notify,
}

impl Sockjs {
    pub fn new(config: &Config) -> Self {
        let settings = config.sockjs.clone();
        Self {
            iframe: pages::Iframe::new(&settings.client_url, &config.websocket.allowed_origins),
            request_timeout: config.server.header_timeout,
            sessions: Mutex::default(),
            emptied: Notify::new(),
            settings,
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when there is no session, so that no request for one can come.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Before the look: a session that is forgotten in between is noticed.
            emptied.as_mut().enable();
            if self.sessions().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn forget(&self, id: &str) {
        let mut sessions = self.sessions();
        sessions.remove(id);
        if sessions.is_empty() {
            drop(sessions);
            self.emptied.notify_waiters();
        }
    }

    fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.sessions().get(id).cloned()
    }
}

/// One request, and the HTTP connection it came on.
pub struct Asked {
    pub request: Request<Incoming>,
    pub peer: SocketAddr,
    /// Ends the connection.
    pub connection: CancellationToken,
}

/// Answers any request that is not for the plain WebSocket at `/ws`.
pub async fn answer(gate: &Arc<Gate>, asked: Asked) -> Response {
    let request = &asked.request;
    if !gate.allows_origin(request.headers()) {
        return Gate::foreign_origin();
    }
    let sockjs = &gate.sockjs;
    let (method, headers) = (request.method().clone(), request.headers().clone());
    match path::parse(request.uri().path(), sockjs.settings.max_session_id) {
        Path::Greeting => pages::only(&method, &Method::GET, pages::greeting),
        Path::Iframe => pages::only(&method, &Method::GET, || sockjs.iframe.page(&headers)),
        Path::Info => match method {
            Method::OPTIONS => headers::options(&headers, "OPTIONS, GET"),
            Method::GET => headers::cors(pages::info(&sockjs.settings), &headers),
            _ => headers::not_allowed("OPTIONS, GET"),
        },
        Path::RawWebSocket => websocket(gate, asked, Dialect::Stomp),
        Path::Session { transport: Transport::WebSocket, .. } if sockjs.settings.websocket => {
            websocket(gate, asked, Dialect::SockJs)
        }
        Path::Session { id, transport } if transport != Transport::WebSocket => {
            let methods = transport.methods();
            if method == Method::OPTIONS {
                return headers::cookie(headers::options(&headers, methods), &headers, &sockjs.settings);
            }
            if method.as_str() != transport.method() {
                return headers::not_allowed(methods);
            }
            let id = id.to_owned();
            let response = match transport {
                Transport::XhrSend | Transport::JsonpSend => send(gate, &id, transport, asked).await,
                _ => receive(gate, id, transport, asked).await,
            };
            headers::cookie(headers::cors(headers::uncached(response), &headers), &headers, &sockjs.settings)
        }
        Path::Session { .. } | Path::Unknown => pages::unknown(),
    }
}

/// The answer to a request for a WebSocket that speaks SockJS, or for the raw one.
fn websocket(gate: &Arc<Gate>, asked: Asked, dialect: Dialect) -> Response {
    let Asked { request, peer, .. } = asked;
    match handshake::check(&request, &RFC_6455_AND_DRAFTS, &Version::SUBPROTOCOLS, gate.settings.compression) {
        Ok(agreed) => upgrade::accept(gate, request, peer, &agreed, dialect),
        Err(_) if request.method() != Method::GET => headers::not_allowed("GET"),
        Err(Refused::NoUpgrade) if !handshake::is_upgrade(request.headers()) => {
            (StatusCode::BAD_REQUEST, "Can \"Upgrade\" only to \"WebSocket\".\n").into_response()
        }
        Err(Refused::NoUpgrade) => (StatusCode::BAD_REQUEST, "\"Connection\" must be \"Upgrade\".\n").into_response(),
        Err(refused) => upgrade::refused(refused),
    }
}

/// A request that sends.
async fn send(gate: &Arc<Gate>, id: &str, transport: Transport, asked: Asked) -> Response {
    let Some(session) = gate.sockjs.find(id) else {
        return (StatusCode::NOT_FOUND, "there is no such session: it begins with a request that receives\n")
            .into_response();
    };
    let settings = &gate.sockjs.settings;
    let read = sender::read(asked.request, transport, settings.max_send);
    let stomp = match tokio::time::timeout(gate.sockjs.request_timeout, read).await {
        Ok(Ok(stomp)) => stomp,
        Ok(Err(refused)) => return refused.into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n").into_response(),
    };
    session.put(stomp).await;
    sender::taken(transport)
}

/// A request that receives; the first of a session begins it.
async fn receive(gate: &Arc<Gate>, id: String, transport: Transport, asked: Asked) -> Response {
    let framing = match transport {
        Transport::XhrStreaming => Framing::XhrStreaming,
        Transport::EventSource => Framing::EventSource,
        Transport::HtmlFile | Transport::Jsonp => match query::callback(asked.request.uri().query()) {
            Callback::Good(callback) if transport == Transport::Jsonp => Framing::Jsonp { callback },
            Callback::Good(callback) => Framing::HtmlFile { callback },
            Callback::Missing => return internal("\"callback\" parameter required\n"),
            Callback::Bad => return internal("invalid \"callback\" parameter: letters, digits, \"_\", \"-\", \".\"\n"),
        },
        _ => Framing::Xhr,
    };
    let session = match find_or_begin(gate, id, asked.request.headers(), asked.peer) {
        Ok(session) => session,
        Err(refused) => return *refused,
    };
    let settings = &gate.sockjs.settings;
    let limits = receiver::Limits { response: settings.response_limit, heartbeat: settings.heartbeat };
    let content_type = [(CONTENT_TYPE, framing.content_type())];
    let Some(mut receiver) = Receiver::attach(session, framing.clone(), limits, asked.connection) else {
        let mut body = framing.prelude().map(|prelude| prelude.to_vec()).unwrap_or_default();
        body.extend_from_slice(&framing.wrap(framing::close(ANOTHER.0, ANOTHER.1).as_bytes()));
        return (content_type, body).into_response();
    };
    if framing.polls() {
        let body = receiver.next().await.unwrap_or_default();
        return (content_type, body).into_response();
    }
    let pieces = stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), receiver))
    });
    (content_type, Body::from_stream(pieces)).into_response()
}

fn internal(message: &'static str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
}

fn find_or_begin(
    gate: &Arc<Gate>,
    id: String,
    headers: &HeaderMap,
    peer: SocketAddr,
) -> Result<Arc<Session>, Box<Response>> {
    if let Some(session) = gate.sockjs.find(&id) {
        return Ok(session);
    }
    let place = gate.enter(headers, peer)?;
    let settings = &gate.sockjs.settings;
    let outgoing = gate.services.outgoing(Sink::taken(), Encoding::SockJs);
    let session = Arc::new(Session::new(Arc::clone(&outgoing), settings.receive_queue, settings.disconnect_delay));
    let mut sessions = gate.sockjs.sessions();
    if let Some(session) = sessions.get(id.as_str()) {
        // Another request was quicker.
        return Ok(Arc::clone(session));
    }
    let id: Box<str> = id.into();
    sessions.insert(id.clone(), Arc::clone(&session));
    drop(sessions);
    gate.services.tasks.spawn(run(Arc::clone(gate), id, (Arc::clone(&session), outgoing), place));
    Ok(session)
}

/// One session's task, until nobody asks for the session any more.
async fn run(gate: Arc<Gate>, id: Box<str>, (session, outgoing): (Arc<Session>, Arc<Outgoing>), place: Place) {
    let services = Arc::clone(&gate.services);
    serve(Inlet::SockJs(Mail::new(Arc::clone(&session))), outgoing, None, Arc::clone(&services)).await;
    let patience = services.close_timeout;
    tokio::select! {
        () = session.expired(patience, false) => {}
        // Those that ended before keep a stop waiting no longer than those that end by it.
        () = services.draining.cancelled() => session.expired(patience, true).await,
    }
    gate.sockjs.forget(&id);
    drop(place);
}
