//! A WebSocket that is read and written by one task: many frames are put into one write, and a blocked write does not
//! keep the task from reading.

use std::{
    collections::VecDeque,
    error::Error,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use futures_util::{Sink as _, Stream as _};

use crate::{
    metrics::Metrics,
    session::{Outgoing, outgoing::Taken},
};

/// About so many bytes are taken out of the queue at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Why the task was woken.
#[derive(Debug)]
pub enum Wake {
    Message(Message),
    /// The peer is gone.
    Closed,
    /// What it sends is no WebSocket, or larger than allowed.
    Broken(String),
    /// Events, or replays to be told to go on.
    Taken(Taken),
    /// All that was queued is written.
    Wrote,
}

#[derive(Debug)]
pub struct Link {
    socket: WebSocket,
    /// Taken out of the queue, not yet given to the socket.
    batch: VecDeque<Utf8Bytes>,
    /// Given to the socket, not yet flushed.
    dirty: bool,
    /// What `metrics.queued_bytes` says of this session.
    reported: usize,
    metrics: Arc<Metrics>,
}

impl Link {
    pub fn new(socket: WebSocket, metrics: Arc<Metrics>) -> Self {
        Self { socket, batch: VecDeque::new(), dirty: false, reported: 0, metrics }
    }

    pub fn socket(&mut self) -> &mut WebSocket {
        &mut self.socket
    }

    /// Queues a frame past the session's queue.
    pub fn push(&mut self, frame: Utf8Bytes) {
        self.batch.push_back(frame);
    }

    /// Writes what can be written, then reads if asked to. Can be dropped at any time without loss.
    pub fn poll(&mut self, cx: &mut Context<'_>, outgoing: &Outgoing, read: bool) -> Poll<Wake> {
        match self.poll_write(cx, outgoing) {
            Poll::Ready(wake) => return Poll::Ready(wake),
            Poll::Pending => {}
        }
        if read {
            return Pin::new(&mut self.socket).poll_next(cx).map(|message| match message {
                Some(Ok(message)) => Wake::Message(message),
                Some(Err(error)) if is_gone(&error) => Wake::Closed,
                Some(Err(error)) => Wake::Broken(error.to_string()),
                None => Wake::Closed,
            });
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outgoing: &Outgoing) -> Poll<Wake> {
        // No frames while a write is blocked, so that they count as waiting; but events, and an overflow.
        let bytes = if self.batch.is_empty() { BATCH_BYTES } else { 0 };
        let taken = outgoing.take(cx, &mut self.batch, bytes);
        self.report(taken.backlog);
        if !taken.events.is_empty() || !taken.waiters.is_empty() || taken.overflowed {
            return Poll::Ready(Wake::Taken(taken));
        }
        while !self.batch.is_empty() {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Wake::Closed),
                Poll::Ready(Ok(())) => {}
            }
            if let Some(frame) = self.batch.pop_front() {
                self.dirty = true;
                self.metrics.bytes_out.inc_by(frame.len() as u64);
                if Pin::new(&mut self.socket).start_send(Message::Text(frame)).is_err() {
                    return Poll::Ready(Wake::Closed);
                }
            }
        }
        if !self.dirty {
            return Poll::Pending;
        }
        self.batch = VecDeque::new();
        match Pin::new(&mut self.socket).poll_flush(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(Wake::Closed),
            Poll::Ready(Ok(())) => {
                self.dirty = false;
                Poll::Ready(Wake::Wrote)
            }
        }
    }

    /// The gauge is the sum over all sessions.
    fn report(&mut self, backlog: usize) {
        if backlog != self.reported {
            self.metrics.queued_bytes.inc_by(backlog as i64 - self.reported as i64);
            self.reported = backlog;
        }
    }

    /// Writes everything that is queued; events are of no use any more.
    pub async fn write_all(&mut self, outgoing: &Outgoing) {
        loop {
            match poll_fn(|cx| self.poll_write_or_done(cx, outgoing)).await {
                Some(Wake::Taken(Taken { overflowed: false, .. }) | Wake::Wrote) => {}
                Some(Wake::Taken(_)) => outgoing.close(),
                Some(Wake::Closed | Wake::Broken(_) | Wake::Message(_)) | None => return,
            }
        }
    }

    fn poll_write_or_done(&mut self, cx: &mut Context<'_>, outgoing: &Outgoing) -> Poll<Option<Wake>> {
        match self.poll_write(cx, outgoing) {
            Poll::Ready(wake) => Poll::Ready(Some(wake)),
            Poll::Pending if self.batch.is_empty() && !self.dirty => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Whether the peer went away without a close frame. axum hides the library's error type, but not its sources and text.
fn is_gone(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<io::Error>() {
            return true;
        }
        source = error.source();
    }
    error.to_string().contains("without closing handshake")
}

impl Drop for Link {
    fn drop(&mut self) {
        self.report(0);
    }
}
