//! One SockJS session whose client comes with HTTP requests: what the requests and the session's task share.
//!
//! Requests that send put STOMP into [`Session::put`]'s buffer, which the task reads through its [`Mail`]. One request at
//! a time receives: it takes frames out of the session's [`Outgoing`]. The session ends when its task ends it, when a
//! request that received was cut off, or when none came for a while. What the end was is told to every further request
//! that receives, until none came for a while once more.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::session::{Outgoing, Pulled};

/// A session that lost its client: a request that received was cut off, or none came.
pub const INTERRUPTED: (u16, &str) = (1002, "Connection interrupted");

#[derive(Debug)]
pub struct Session {
    outgoing: Arc<Outgoing>,
    /// Bytes of STOMP that may wait for the session's task.
    queue: usize,
    /// So long without a request that receives.
    disconnect_delay: Duration,
    state: Mutex<State>,
    /// There may be room for more STOMP, or nothing is taken any more.
    room: Notify,
    /// A request that receives has come or gone.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// The client knows that the session is there.
    opened: bool,
    /// The HTTP connection of the request that receives.
    receiver: Option<CancellationToken>,
    received_at: Instant,
    /// The client is lost.
    interrupted: bool,
    /// A request was told of the end.
    told: bool,
    incoming: BytesMut,
    /// The task reads no more.
    over: bool,
    /// The task's.
    waker: Option<Waker>,
}

/// What a request that receives is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Open,
    /// JSON strings.
    Messages(Vec<Bytes>),
    Close(u16, &'static str),
}

impl Session {
    pub fn new(outgoing: Arc<Outgoing>, queue: usize, disconnect_delay: Duration) -> Self {
        let state = State {
            opened: false,
            receiver: None,
            received_at: Instant::now(),
            interrupted: false,
            told: false,
            incoming: BytesMut::new(),
            over: false,
            waker: None,
        };
        let (room, changed) = (Notify::new(), Notify::new());
        Self { outgoing, queue, disconnect_delay, state: Mutex::new(state), room, changed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request, of that HTTP connection, the one that receives; false where there is one already.
    pub fn attach(&self, connection: CancellationToken) -> bool {
        let mut state = self.lock();
        if state.receiver.is_some() {
            return false;
        }
        state.receiver = Some(connection);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// The request that receives is answered.
    pub fn detach(&self) {
        self.gone(false);
    }

    /// The request that receives was cut off: what it was told may be lost.
    pub fn interrupt(&self) {
        self.gone(true);
    }

    fn gone(&self, interrupted: bool) {
        let mut state = self.lock();
        state.receiver = None;
        state.received_at = Instant::now();
        state.interrupted |= interrupted;
        wake(state);
        self.changed.notify_one();
    }

    /// For the request that receives: what is next, in messages of about so many bytes.
    pub fn poll(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<Told> {
        let mut state = self.lock();
        if state.interrupted {
            state.told = true;
            return Poll::Ready(Told::Close(INTERRUPTED.0, INTERRUPTED.1));
        }
        if !std::mem::replace(&mut state.opened, true) {
            return Poll::Ready(Told::Open);
        }
        drop(state);
        self.outgoing.poll_pull(cx, bytes).map(|pulled| match pulled {
            Pulled::Frames(frames) => Told::Messages(frames),
            Pulled::End(code, reason) => {
                self.lock().told = true;
                Told::Close(code, reason)
            }
        })
    }

    /// Hands STOMP to the session's task; waits while too much waits already. What comes after the end is dropped, as it
    /// would be on a socket that is being closed.
    pub async fn put(&self, bytes: BytesMut) {
        loop {
            // Before the look at the state: what changes between is seen.
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if state.over || state.interrupted {
                    return;
                }
                if state.incoming.is_empty() || state.incoming.len() + bytes.len() <= self.queue {
                    state.incoming.unsplit(bytes);
                    return wake(state);
                }
            }
            room.await;
        }
    }

    /// After the session's end: waits until no request wants to know of it any more, or where there is a `hurry` until one
    /// was told. One that does not read its answer is cut off after `patience`, and in a hurry nobody is waited for
    /// longer.
    pub async fn expired(&self, patience: Duration, hurry: bool) {
        let give_up = Instant::now() + patience;
        loop {
            let now = Instant::now();
            let until = {
                let mut state = self.lock();
                let expiry = if hurry { give_up } else { state.received_at + self.disconnect_delay };
                match &state.receiver {
                    Some(connection) if give_up <= now => {
                        connection.cancel();
                        state.receiver = None;
                        continue;
                    }
                    Some(_) => give_up,
                    None if expiry <= now || (hurry && (state.told || state.interrupted)) => return,
                    None => expiry,
                }
            };
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

/// Wakes the session's task, after the lock is released.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The task's side: what the client has sent.
#[derive(Debug)]
pub struct Mail {
    session: Arc<Session>,
    expiry: Pin<Box<Sleep>>,
}

impl Mail {
    pub fn new(session: Arc<Session>) -> Self {
        let expiry = Box::pin(sleep_until(Instant::now() + session.disconnect_delay));
        Self { session, expiry }
    }

    /// Appends what was sent to `buffer`; false when the client is lost.
    pub fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<bool> {
        let mut state = self.session.lock();
        if !state.incoming.is_empty() {
            buffer.unsplit(std::mem::take(&mut state.incoming));
            drop(state);
            self.session.room.notify_waiters();
            return Poll::Ready(true);
        }
        if state.interrupted {
            return Poll::Ready(false);
        }
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        if state.receiver.is_some() {
            return Poll::Pending;
        }
        let at = state.received_at + self.session.disconnect_delay;
        if self.expiry.deadline() != at {
            self.expiry.as_mut().reset(at);
        }
        self.expiry.as_mut().poll(cx).map(|()| {
            state.interrupted = true;
            false
        })
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        state.over = true;
        state.incoming = BytesMut::new();
        drop(state);
        self.session.room.notify_waiters();
    }
}

#[cfg(test)]
pub mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::{
        metrics::Metrics,
        session::{Class, Sink},
        transport::Encoding,
    };

    pub const DELAY: Duration = Duration::from_secs(5);
    const PATIENCE: Duration = Duration::from_secs(2);

    /// A session whose frames the test pushes.
    pub fn session() -> (Arc<Session>, Arc<Outgoing>) {
        let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
        let outgoing = Arc::new(Outgoing::new(Sink::taken(), Encoding::SockJs, (1 << 20, 1 << 10), metrics));
        (Arc::new(Session::new(Arc::clone(&outgoing), 10, DELAY)), outgoing)
    }

    async fn told(session: &Session) -> Told {
        poll_fn(|cx| session.poll(cx, usize::MAX)).await
    }

    async fn mail(mail: &mut Mail) -> Option<Bytes> {
        let mut buffer = BytesMut::new();
        poll_fn(|cx| mail.poll(cx, &mut buffer)).await.then(|| buffer.freeze())
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_nobody_received_for_the_disconnect_delay() {
        let (session, _outgoing) = session();
        let mut inlet = Mail::new(Arc::clone(&session));
        let start = Instant::now();
        assert!(session.attach(CancellationToken::new()));
        // While somebody receives, it does not end, however long.
        assert!(tokio::time::timeout(DELAY * 100, mail(&mut inlet)).await.is_err());
        session.detach();
        assert_eq!(mail(&mut inlet).await, None);
        assert_eq!(start.elapsed(), DELAY * 101);
        assert_eq!(told(&session).await, Told::Close(1002, "Connection interrupted"));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_one_receiver_and_its_loss_is_the_end() {
        let (session, _outgoing) = session();
        let mut inlet = Mail::new(Arc::clone(&session));
        assert!(session.attach(CancellationToken::new()));
        assert!(!session.attach(CancellationToken::new()));
        assert_eq!(told(&session).await, Told::Open);
        session.interrupt();
        assert_eq!(mail(&mut inlet).await, None);
        assert!(session.attach(CancellationToken::new()));
        assert_eq!(told(&session).await, Told::Close(1002, "Connection interrupted"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_queued_comes_before_the_close_and_the_close_comes_again() {
        let (session, outgoing) = session();
        outgoing.push(Class::Control, Bytes::from_static(b"\"ERROR\""));
        outgoing.end(4400, "protocol_error");
        assert_eq!(told(&session).await, Told::Open);
        assert_eq!(told(&session).await, Told::Messages(vec![Bytes::from_static(b"\"ERROR\"")]));
        for _ in 0..3 {
            assert_eq!(told(&session).await, Told::Close(4400, "protocol_error"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_waits_while_the_queue_is_full() {
        let (session, _outgoing) = session();
        let mut inlet = Mail::new(Arc::clone(&session));
        // More than the queue holds, but nothing else waits.
        session.put(BytesMut::from("twelve bytes")).await;
        let waiting = session.put(BytesMut::from("more"));
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        assert_eq!(mail(&mut inlet).await.unwrap(), "twelve bytes");
        waiting.await;
        assert_eq!(mail(&mut inlet).await.unwrap(), "more");
        session.put(BytesMut::from("twelve bytes")).await;
        let waiting = session.put(BytesMut::from("more"));
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        drop(inlet);
        // Nobody reads any more: who sends is not held.
        waiting.await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_ended_session_is_forgotten_when_nobody_asks_and_cuts_off_who_does_not_read() {
        let (session, _outgoing) = session();
        let start = Instant::now();
        session.expired(PATIENCE, false).await;
        assert_eq!(start.elapsed(), DELAY);

        for hurry in [false, true] {
            let connection = CancellationToken::new();
            assert!(session.attach(connection.clone()));
            let start = Instant::now();
            session.expired(PATIENCE, hurry).await;
            assert_eq!(start.elapsed(), PATIENCE);
            assert!(connection.is_cancelled());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_hurry_an_ended_session_is_forgotten_as_soon_as_one_was_told() {
        let (session, outgoing) = session();
        outgoing.end(1001, "draining");
        let start = Instant::now();
        session.expired(PATIENCE, true).await;
        assert_eq!(start.elapsed(), PATIENCE, "a poll might have come");
        assert!(session.attach(CancellationToken::new()));
        let start = Instant::now();
        let asks = async {
            assert_eq!(told(&session).await, Told::Open);
            assert_eq!(told(&session).await, Told::Close(1001, "draining"));
            session.detach();
        };
        tokio::join!(session.expired(PATIENCE, true), asks);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
