//! The task of one session: it moves bytes between the WebSocket, the decoder and the machine, and does what the
//! machine puts out. It never waits for a slow client: while a write is blocked everything else goes on.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use chassis::jwt::{KeySource, TokenError};
use proto::claims::{SCOPE_MESSAGES_READ, SCOPE_MESSAGES_WRITE};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    Class, Event, Input, Machine, Outgoing, Output, Pushed, Settings, Sink, lane::Submission, machine::Verified,
    outgoing::News,
};
use crate::{
    config::Config,
    disconnect::Disconnect,
    hub::{Attach, Hub, SubscriptionKey},
    metrics::Metrics,
    registration::{Connections, Registered},
    stomp::{Decoder, Limits, Version},
    transport::{Encoding, Inlet, Received},
    upstream::{Core, Outbound, Sends},
    websocket::frame,
};

/// How far the timer is set when nothing is due.
const NEVER: Duration = Duration::from_secs(86400 * 365);

/// What all sessions share.
pub struct Services {
    pub settings: Arc<Settings>,
    pub stomp: Limits,
    pub replay_low_water: usize,
    pub close_timeout: Duration,
    /// After so long without a frame a SockJS WebSocket gets a heart-beat of SockJS.
    pub sockjs_heartbeat: Duration,
    pub drain_window: Duration,
    pub hub: Hub,
    pub core: Core,
    pub sends: Sends,
    pub connections: Connections,
    pub keys: Arc<KeySource>,
    pub metrics: Arc<Metrics>,
    pub draining: CancellationToken,
    /// Sessions, and the calls they wait for: waited for at the end.
    pub tasks: TaskTracker,
    pub users: Arc<Users>,
    pub next_session: AtomicU64,
}

impl Settings {
    pub fn from_config(config: &Config) -> Self {
        let Config { session, limits, drain, .. } = config;
        Self {
            connect_timeout: session.connect_timeout,
            heart_beat_send: session.heart_beat_send,
            heart_beat_receive: session.heart_beat_receive,
            heart_beat_tolerance: session.heart_beat_tolerance,
            retry: super::lane::Retry {
                deadline: session.send_deadline,
                base: session.retry_base,
                max: session.retry_max,
            },
            typing_interval: session.typing_interval,
            subscriptions: limits.subscriptions,
            resumed_conversations: limits.resumed_conversations,
            sends_in_flight: limits.sends_in_flight,
            sends_per_second: limits.sends_per_second,
            sends_burst: limits.sends_burst,
            subscribes_per_second: limits.subscribes_per_second,
            subscribes_burst: limits.subscribes_burst,
            message_body: limits.message_body,
            id: limits.id,
            held: super::transactions::Limits {
                transactions: limits.transactions,
                frames: limits.transaction_frames,
                bytes: limits.transaction_bytes,
            },
            unacknowledged: limits.unacknowledged,
            connections_per_user: limits.connections_per_user,
            outgoing: limits.outgoing,
            drain_sends: drain.sends,
        }
    }
}

/// How many connections each user has here.
#[derive(Debug, Default)]
pub struct Users(Mutex<HashMap<i64, usize>>);

/// One connection of a user; dropped when it ends.
struct Admission {
    users: Arc<Users>,
    user: i64,
}

impl Users {
    fn admit(self: &Arc<Self>, user: i64, limit: usize) -> Option<Admission> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(user).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Admission { users: Arc::clone(self), user })
    }
}

impl std::ops::Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

struct Session {
    no: u64,
    id: String,
    machine: Machine,
    decoder: Decoder,
    buffer: BytesMut,
    /// The buffer may hold a whole frame.
    undecoded: bool,
    inlet: Inlet,
    /// The client has closed: nothing is read any more.
    client_closed: bool,
    outgoing: Arc<Outgoing>,
    services: Arc<Services>,
    admission: Option<Admission>,
    registered: bool,
    /// When a heart-beat of the transport may be due, where it has them: looked at then.
    beat_at: Option<Instant>,
    /// The connection is to be dropped without a word.
    cut: bool,
    end: Option<Disconnect>,
}

/// Why a session's task goes on.
enum Wake {
    Received(Received),
    News(News),
}

impl Services {
    /// The queue of a new session: where its frames go, and how they are built.
    pub fn outgoing(&self, sink: Sink, encoding: Encoding) -> Arc<Outgoing> {
        let bounds = (self.settings.outgoing, self.replay_low_water);
        Arc::new(Outgoing::new(sink, encoding, bounds, Arc::clone(&self.metrics)))
    }
}

/// Serves a client until one side ends it.
pub async fn serve(inlet: Inlet, outgoing: Arc<Outgoing>, subprotocol: Option<Version>, services: Arc<Services>) {
    let no = services.next_session.fetch_add(1, Ordering::Relaxed);
    let id = uuid::Uuid::now_v7().simple().to_string();
    let now = Instant::now();
    let (settings, metrics) = (Arc::clone(&services.settings), Arc::clone(&services.metrics));
    let beat_at = outgoing.encoding().heartbeat().map(|_| now + services.sockjs_heartbeat);
    let mut session = Session {
        no,
        inlet,
        client_closed: false,
        outgoing,
        machine: Machine::new(id.clone(), settings, metrics, now, subprotocol),
        id,
        decoder: Decoder::new(services.stomp),
        buffer: BytesMut::new(),
        undecoded: false,
        services,
        admission: None,
        registered: false,
        beat_at,
        cut: false,
        end: None,
    };
    session.run().await;
    Box::pin(session.leave()).await;
}

impl Session {
    async fn run(&mut self) {
        let services = Arc::clone(&self.services);
        let draining = services.draining.cancelled();
        tokio::pin!(draining);
        if let Some(open) = self.outgoing.encoding().open() {
            self.outgoing.push(Class::Control, open);
        }
        let mut told_to_drain = false;
        let timer = sleep_until(Instant::now() + NEVER);
        tokio::pin!(timer);
        while self.end.is_none() {
            self.decode();
            if self.machine.has_outputs() {
                // Not a part of the task: most are idle most of the time, and this is the larger part.
                Box::pin(self.run_outputs()).await;
            }
            if self.end.is_some() {
                break;
            }
            if self.undecoded && self.machine.wants_input() {
                // A message may be of many small frames: the neighbours have a turn between them.
                tokio::task::yield_now().await;
                continue;
            }
            // A deadline that has moved on is found when the timer fires: most do, with each frame.
            let deadlines = [self.machine.deadline(), self.beat_at];
            let deadline = deadlines.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + NEVER);
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                // The timer first: it is seldom due, and must not starve behind a client that never pauses.
                biased;
                () = &mut timer => {
                    self.machine.handle(Input::Wrote, self.outgoing.wrote_at());
                    self.machine.handle(Input::Tick, Instant::now());
                    self.beat(Instant::now());
                }
                () = &mut draining, if !told_to_drain => {
                    told_to_drain = true;
                    let window = services.drain_window.mul_f64(rand::random());
                    let now = Instant::now();
                    self.machine.handle(Input::Drain { at: now + window }, now);
                }
                wake = poll_fn(|cx| self.poll(cx)) => self.woken(wake).await,
            }
        }
        let end = self.end.take().unwrap_or_else(Disconnect::normal);
        debug!(session.id = self.id, close.code = end.close_code, reason = end.reason, "the session ends");
        self.services.metrics.closed(end.close_code);
        if !self.cut {
            // The peer may not read any more: it is not waited for long.
            let _ = timeout(self.services.close_timeout, self.close(&end)).await;
        }
    }

    /// Sends a heart-beat of the transport, if nothing was written for as long.
    fn beat(&mut self, now: Instant) {
        if self.beat_at.is_none_or(|at| at > now) {
            return;
        }
        let every = self.services.sockjs_heartbeat;
        let due = self.outgoing.wrote_at() + every;
        if due <= now
            && let Some(beat) = self.outgoing.encoding().heartbeat()
        {
            // Where it does not fit, there is more to come anyway.
            self.outgoing.push(Class::Unsequenced, beat);
        }
        self.beat_at = Some(if due > now { due } else { now + every });
    }

    /// Writes what is queued, then reads if more is wanted. Can be dropped at any time without loss.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(news) = self.outgoing.poll(cx) {
            return Poll::Ready(Wake::News(news));
        }
        if self.machine.wants_input() {
            return self.inlet.poll(cx, &mut self.buffer).map(Wake::Received);
        }
        Poll::Pending
    }

    async fn woken(&mut self, wake: Wake) {
        let now = Instant::now();
        match wake {
            Wake::Received(Received::Data) => {
                // What an ACK answers is known before it.
                if self.machine.acknowledges() {
                    for event in self.outgoing.take_events() {
                        self.machine.handle(Input::Event(event), now);
                    }
                }
                self.machine.handle(Input::Received, now);
                self.undecoded = true;
            }
            // Who pings is alive.
            Wake::Received(Received::Pong) => self.machine.handle(Input::Received, now),
            Wake::Received(Received::Ping(payload)) => {
                self.machine.handle(Input::Received, now);
                if self.outgoing.push(Class::Control, frame::pong(&payload)) == Pushed::Closed {
                    self.machine.handle(Input::Overflowed, now);
                }
            }
            Wake::Received(Received::Closed(code)) => {
                self.client_closed = true;
                self.end = Some(Disconnect::answering(code));
            }
            Wake::Received(Received::Broken(fault)) => self.machine.handle(Input::Broken(fault.into()), now),
            Wake::Received(Received::Garbled) => {
                (self.client_closed, self.cut) = (true, true);
                self.end = Some(Disconnect::protocol("a message is no JSON array of strings"));
            }
            Wake::News(News { broken: true, .. }) => {
                self.client_closed = true;
                self.end = Some(Disconnect::normal());
            }
            Wake::News(News { events, waiters, overflowed, .. }) => {
                for event in events {
                    self.machine.handle(Input::Event(event), now);
                }
                for waiter in waiters {
                    Box::pin(self.services.hub.go_on(self.no, waiter)).await;
                }
                if overflowed {
                    self.machine.handle(Input::Overflowed, now);
                }
            }
        }
    }

    /// Frames are taken one by one, for the answer to one decides whether the next is taken.
    fn decode(&mut self) {
        while self.machine.wants_input() && !self.machine.has_outputs() {
            let now = Instant::now();
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(frame)) => self.machine.handle(Input::Frame(frame), now),
                Ok(None) => {
                    self.undecoded = false;
                    break;
                }
                Err(error) => self.machine.handle(Input::Undecodable(error), now),
            }
        }
        if self.buffer.is_empty() {
            // Given back while idle: there are many sessions.
            self.buffer = BytesMut::new();
        }
    }

    async fn run_outputs(&mut self) {
        while self.machine.has_outputs() {
            for output in self.machine.take_outputs() {
                self.run_output(output).await;
            }
        }
    }

    async fn run_output(&mut self, output: Output) {
        let key = |subscription| SubscriptionKey { session: self.no, subscription };
        let services = &self.services;
        match output {
            Output::Write(frame) => {
                services.metrics.frame_out(&frame);
                let frame = self.outgoing.encoding().encode(&[&frame]);
                if self.machine.has_ended() {
                    // Also past a queue that has overflowed, and no event comes behind it.
                    self.outgoing.push_last(frame);
                } else if self.outgoing.push(Class::Control, frame) == Pushed::Closed {
                    // Now, or a message of many frames would be answered past the bound.
                    self.machine.handle(Input::Overflowed, Instant::now());
                }
            }
            Output::Verify { token } => {
                let verified = self.verify(&token).await;
                self.machine.handle(Input::Verified(verified), Instant::now());
            }
            Output::Opened { user, version, device_id } => {
                self.decoder.set_version(version);
                self.registered = true;
                services.metrics.sessions.inc();
                services.connections.register(Registered { id: self.id.clone(), user, device_id }).await;
            }
            Output::Attach { subscription, conversation, scope, start, head, user_seq, joined_user_seq } => {
                let (key, user, outgoing) = (key(subscription), self.machine.user(), Arc::clone(&self.outgoing));
                let attach =
                    Attach { key, user, conversation, scope, start, head, outgoing, user_seq, joined_user_seq };
                services.hub.attach(attach).await;
            }
            Output::Detach { subscription, conversations } => {
                let answers = services.hub.detach(key(subscription), &conversations, &self.outgoing).await;
                self.machine.handle(Input::Detaching { subscription, answers }, Instant::now());
            }
            Output::WatchUser { subscription, known } => {
                let outgoing = Arc::clone(&self.outgoing);
                services.hub.watch_user(key(subscription), self.machine.user(), known, outgoing).await;
            }
            Output::UnwatchUser { subscription } => {
                services.hub.unwatch_user(key(subscription), self.machine.user()).await;
            }
            Output::Submit { conversation, submission } => {
                let outgoing = Arc::clone(&self.outgoing);
                let Submission { core, run, no, request } = submission;
                services.sends.submit(core, Outbound { conversation, run, no, request, outgoing });
            }
            Output::Typing { no, conversation } => {
                let (core, outgoing, user) = (services.core.clone(), Arc::clone(&self.outgoing), self.machine.user());
                services.tasks.spawn(async move {
                    let result = core.publish_typing(conversation, user).await;
                    outgoing.notify(Event::Done { no, result });
                });
            }
            Output::Position { no, conversation, kind, seq, epoch } => {
                let (core, outgoing, user) = (services.core.clone(), Arc::clone(&self.outgoing), self.machine.user());
                services.tasks.spawn(async move {
                    let result = core.store_position(kind, conversation, user, seq, epoch).await;
                    outgoing.notify(Event::Done { no, result });
                });
            }
            Output::Disconnect(end) => self.end = Some(end),
        }
    }

    async fn verify(&mut self, token: &str) -> Result<Verified, TokenError> {
        let claims = self.services.keys.verify(token).await?;
        let user = claims.user_id().ok_or(TokenError::Malformed("a session needs a user's token, not a service's"))?.0;
        if self.admission.is_none() {
            self.admission = self.services.users.admit(user, self.services.settings.connections_per_user);
        }
        let left_s = claims.exp.saturating_sub(chassis::now_us() / 1_000_000);
        Ok(Verified {
            user,
            expires_in: Duration::from_secs(left_s.max(0) as u64),
            may_read: claims.has_scope(SCOPE_MESSAGES_READ),
            may_write: claims.has_scope(SCOPE_MESSAGES_WRITE),
            admitted: self.admission.is_some(),
        })
    }

    /// Writes what is queued and the close frame, and waits for the peer's.
    async fn close(&mut self, end: &Disconnect) {
        if self.outgoing.is_taken() {
            // The client comes for it.
            return self.outgoing.end(end.close_code, end.reason);
        }
        self.outgoing.push_last(self.outgoing.encoding().close(end.close_code, end.reason));
        poll_fn(|cx| self.outgoing.poll_written(cx)).await;
        // What it still sends is read, or the last frames could be lost with a reset.
        while !self.client_closed {
            self.buffer.clear();
            let received = poll_fn(|cx| self.inlet.poll(cx, &mut self.buffer)).await;
            self.client_closed = matches!(received, Received::Closed(_) | Received::Broken(_) | Received::Garbled);
        }
    }

    /// Takes the session out of everything that knows it.
    async fn leave(&mut self) {
        self.outgoing.close();
        let hub = self.services.hub.clone();
        let user = self.machine.user();
        for subscription in self.machine.watching().collect::<Vec<_>>() {
            hub.unwatch_user(SubscriptionKey { session: self.no, subscription }, user).await;
        }
        for (subscription, conversations) in self.machine.attached() {
            self.services.metrics.subscriptions.dec();
            let key = SubscriptionKey { session: self.no, subscription };
            hub.detach(key, &conversations, &self.outgoing).await;
        }
        if self.registered {
            self.services.metrics.sessions.dec();
            self.services.connections.unregister(std::mem::take(&mut self.id)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_session_is_small() {
        let (task, queue) = (size(serve), size_of::<Outgoing>());
        println!("{task} bytes, and {queue} of its queue");
        assert!(task + queue <= 3 * 1024, "{task} bytes, and {queue} of its queue");
    }
}
