//! The listener for clients: HTTP/1.1 with upgrades. A client that is slow with its request is dropped, an error of one
//! accept ends nothing, and draining closes the listener: at once, or when the last session that HTTP requests come for
//! has ended. New sessions are refused in between.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::response::Response;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    sockjs::{self, Asked},
    upgrade::{self, Gate},
};
use crate::websocket::handshake;

/// After a failed accept (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client's request line and headers, at most, bytes.
const MAX_HEAD: usize = 16 * 1024;

/// A listener with room for `backlog` connections that wait to be accepted. For each of them the kernel holds
/// `send_buffer` bytes, and no more.
pub fn bind(listen: SocketAddr, backlog: u32, send_buffer: usize) -> io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The connections of a gateway that ran here before may still be about.
    socket.set_reuseaddr(true)?;
    // What is accepted has it too.
    socket.set_send_buffer_size(u32::try_from(send_buffer).unwrap_or(u32::MAX))?;
    socket.bind(listen)?;
    socket.listen(backlog)
}

/// Accepts until `draining`, and what belongs to sessions until those have ended.
pub async fn serve(listener: TcpListener, gate: Arc<Gate>, header_timeout: Duration, draining: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(MAX_HEAD);
    let tasks = gate.services.tasks.clone();
    let over = async {
        draining.cancelled().await;
        gate.sockjs.emptied().await;
    };
    tokio::pin!(over);
    loop {
        let accepted = tokio::select! {
            () = &mut over => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (mut http, mut drain) = (http.clone(), draining.clone());
                if draining.is_cancelled() {
                    // For one request; it is not to be told to drain before that.
                    http.keep_alive(false);
                    drain = CancellationToken::new();
                }
                tasks.spawn(handle(stream, peer, Arc::clone(&gate), http, drain));
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, until it is upgraded or closed.
async fn handle(
    stream: TcpStream,
    peer: SocketAddr,
    gate: Arc<Gate>,
    http: http1::Builder,
    draining: CancellationToken,
) {
    // Small frames must not wait for more.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY could not be set");
    }
    // Ends this connection where it waits for a client that does not read.
    let cut = CancellationToken::new();
    let service = service_fn(|request| {
        let answer = route(&gate, request, peer, &cut);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = cut.cancelled() => return debug!("an HTTP connection was cut: the client does not read"),
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = connection => served,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = served {
        debug!(%error, "an HTTP connection ended");
    }
}

/// The plain WebSocket, or SockJS.
async fn route(gate: &Arc<Gate>, request: Request<Incoming>, peer: SocketAddr, cut: &CancellationToken) -> Response {
    if request.uri().path() == sockjs::BASE && handshake::is_upgrade(request.headers()) {
        return upgrade::upgrade(gate, request, peer);
    }
    // Boxed: it is large, and most connections have none.
    Box::pin(sockjs::answer(gate, Asked { request, peer, connection: cut.clone() })).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_holds_no_more_than_so_much_for_a_client_that_does_not_read() {
        const BUFFER: usize = 64 * 1024;
        let listener = bind("127.0.0.1:0".parse().unwrap(), 16, BUFFER).unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        let (client, accepted) = tokio::join!(client.connect(listener.local_addr().unwrap()), listener.accept());
        let (_silent, (server, _)) = (client.unwrap(), accepted.unwrap());
        let (piece, mut taken) = ([0; 16 * 1024], 0);
        server.writable().await.unwrap();
        // What the kernel says that it would wait for does not come: nobody reads.
        while let Ok(written) = server.try_write(&piece) {
            taken += written;
            // It counts its own overhead, and allows twice as much for that.
            assert!(taken <= 2 * BUFFER, "the kernel took {taken} bytes");
        }
        assert!(taken >= BUFFER / 2, "only {taken} bytes were taken");
    }
}
