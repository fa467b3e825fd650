//! What waits for one session: frames to be written, and events for its state machine.
//!
//! Others put things in under a short lock and never wait for the client. Frames are written by whoever has just put
//! them in, without waking anybody: a shard that has delivered a batch flushes the queues of all receivers itself
//! ([`Outgoing::flush`]), many frames in one write. Only where the socket takes no more does the session's task come in:
//! it waits until the socket is writable and goes on ([`Outgoing::poll`]). Where the client comes for its frames with
//! requests of its own, each request pulls what there is ([`Outgoing::poll_pull`]), also after the session's end.
//!
//! Frames are bounded in bytes: over the bound unsequenced ones are dropped first, and if that does not suffice the
//! session has *overflowed*: the queue is emptied, takes nothing more, and the session ends itself as a slow consumer.
//! Replay is not counted, because who feeds it waits for the queue to run low ([`Outgoing::wait_for_low_water`]), with
//! what is on its way to it ([`Outgoing::reserve`]). Events
//! are bounded by what the session has asked for: each answers one request, ends one subscription, or is a note that has
//! come along with a frame.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use proto::rpc::v1::CreateMessageResponse;
use tokio::{net::tcp::OwnedWriteHalf, time::Instant};

use crate::{hub::UserState, metrics::Metrics, refusal::Refusal, transport::Encoding};

/// What a queued frame costs beside its bytes.
const FRAME_OVERHEAD: usize = 48;
/// So many frames are given to one write.
const SLICES: usize = 64;
/// Room for so many frames is kept while nothing waits.
const KEPT_FRAMES: usize = 4;
/// With so many events the session's task is woken, be it only for them.
const KEPT_NOTES: usize = 64;

/// How a frame is treated when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// RECEIPT, ERROR, RESUMED, refusals: counted, never dropped.
    Control,
    /// A live event with a seq: counted, never dropped.
    Sequenced,
    /// Typing, presence: dropped first.
    Unsequenced,
    /// A replayed event: paced by its feeder, not counted.
    Replay,
}

/// Whether a frame was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    /// The queue is full and the frame may be dropped.
    Dropped,
    /// The session has ended or is about to: nothing more is taken.
    Closed,
}

/// Something for the session's state machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// A SEND was committed or refused.
    Sent { conversation: i64, no: u64, result: Result<CreateMessageResponse, Refusal> },
    /// A request without a state of its own (typing, read position) was taken or refused.
    Done { no: u64, result: Result<(), Refusal> },
    /// RESUMED is queued: the subscription is attached to the conversation.
    /// `head`: of the attaching read, which has shown every membership that began up to there.
    Attached { subscription: u32, conversation: i64, head: i64 },
    /// A sequenced event is queued for a subscription that acknowledges.
    Delivered { subscription: u32, conversation: i64, seq: i64 },
    /// It could not be attached.
    Refused { subscription: u32, conversation: i64, refusal: Refusal },
    /// The subscriber was removed, or has got all that a former member may see; nothing more comes.
    Ended { subscription: u32, conversation: i64, at_seq: i64, removed: bool },
    /// After UNSUBSCRIBE: nothing more comes of that subscription.
    Detached { subscription: u32 },
    /// What the user may see, at the start and whenever it changed.
    UserState { subscription: u32, state: Arc<UserState> },
    /// The user's state could not be read.
    UserRefused { subscription: u32, refusal: Refusal },
}

/// A replay, or an attachment that is still to be told, that goes on when the queue has run low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter {
    pub subscription: u32,
    pub conversation: i64,
}

/// Where frames go.
#[derive(Debug)]
pub enum Sink {
    /// The client's socket.
    Socket(OwnedWriteHalf),
    /// Nowhere by themselves: they are taken out ([`Outgoing::take`], [`Outgoing::poll_pull`]).
    Taken(Box<Taken>),
}

/// Of a queue that is taken from.
#[derive(Debug, Default)]
pub struct Taken {
    /// Who waits for frames.
    puller: Option<Waker>,
    /// The session is over: the close code, and the reason.
    end: Option<(u16, &'static str)>,
}

/// What [`Outgoing::poll_pull`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// At least one.
    Frames(Vec<Bytes>),
    /// The session is over, and all of it was taken.
    End(u16, &'static str),
}

impl Sink {
    pub fn taken() -> Self {
        Self::Taken(Box::default())
    }
}

/// The queue of one session.
#[derive(Debug)]
pub struct Outgoing {
    state: Mutex<State>,
    limit: usize,
    low_water: usize,
    encoding: Encoding,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    sink: Sink,
    frames: VecDeque<(Class, Bytes)>,
    /// Bytes of the first frame that are written.
    written: usize,
    /// Bytes of frames that count.
    counted: usize,
    /// Bytes of those among them that may be dropped.
    unsequenced: usize,
    /// Bytes of replayed frames.
    replayed: usize,
    /// Bytes of a replay that are on their way here.
    reserved: usize,
    events: Vec<Event>,
    waiters: BTreeSet<Waiter>,
    /// Somebody will flush it soon.
    dirty: bool,
    /// The socket takes no more for now; the session's task waits for it.
    blocked: bool,
    /// The socket takes nothing ever again.
    broken: bool,
    overflowed: bool,
    closed: bool,
    waker: Option<Waker>,
    wrote_at: Instant,
    /// What `metrics.queued_bytes` says of this session.
    reported: usize,
}

/// What the session's task is to look at.
#[derive(Debug, Default)]
pub struct News {
    pub events: Vec<Event>,
    /// Replays to be told to go on.
    pub waiters: BTreeSet<Waiter>,
    pub overflowed: bool,
    /// The client is gone.
    pub broken: bool,
}

/// Queues that were delivered to and have still to be flushed.
pub type Unflushed = Vec<Arc<Outgoing>>;

/// Bytes that are on their way to a queue, until this is dropped.
#[derive(Debug)]
pub struct Reserved {
    outgoing: Arc<Outgoing>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut state = self.outgoing.lock();
        state.reserved -= self.bytes;
        if state.is_low(self.outgoing.low_water) && !state.waiters.is_empty() {
            wake(state);
        }
    }
}

impl Outgoing {
    /// `limit`: counted bytes over which the session is a slow consumer. `low_water`: bytes under which replay goes on.
    pub fn new(sink: Sink, encoding: Encoding, (limit, low_water): (usize, usize), metrics: Arc<Metrics>) -> Self {
        let state = State {
            sink,
            frames: VecDeque::new(),
            written: 0,
            counted: 0,
            unsequenced: 0,
            replayed: 0,
            reserved: 0,
            events: Vec::new(),
            waiters: BTreeSet::new(),
            dirty: false,
            blocked: false,
            broken: false,
            overflowed: false,
            closed: false,
            waker: None,
            wrote_at: Instant::now(),
            reported: 0,
        };
        Self { state: Mutex::new(state), limit, low_water, encoding, metrics }
    }

    /// How frames for this queue are built.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame, and wakes the session's task to write it; see [`Class`] for what happens when the queue is full.
    pub fn push(&self, class: Class, frame: Bytes) -> Pushed {
        self.push_noted(class, frame, None)
    }

    /// The same, with an event that the state machine gets if the frame is queued: such notes are in the order of their
    /// frames.
    pub fn push_noted(&self, class: Class, frame: Bytes, note: Option<Event>) -> Pushed {
        let mut state = self.lock();
        let pushed = state.push(class, frame, note, self.limit);
        if pushed == Pushed::Queued || state.overflowed {
            wake(state);
        }
        pushed
    }

    /// Queues a frame for many receivers, with a note as [`Self::push_noted`] takes it: nobody is woken, the caller
    /// flushes what it finds in `unflushed`. Notes wait for the session's task to look at them by itself, but not all.
    pub fn deliver(
        self: &Arc<Self>,
        class: Class,
        frame: Bytes,
        note: Option<Event>,
        unflushed: &mut Unflushed,
    ) -> Pushed {
        let mut state = self.lock();
        let pushed = state.push(class, frame, note, self.limit);
        if pushed == Pushed::Queued {
            if !state.dirty && !state.blocked {
                state.dirty = true;
                unflushed.push(Arc::clone(self));
            }
            if state.events.len() >= KEPT_NOTES {
                wake(state);
            }
        } else if state.overflowed {
            wake(state);
        }
        pushed
    }

    /// Queues a frame of the session itself, past every bound: the last ones of a session that has ended. Nobody else's
    /// comes behind it.
    pub fn push_last(&self, frame: Bytes) {
        let mut state = self.lock();
        state.closed = true;
        state.frames.push_back((Class::Control, frame));
    }

    /// Writes what the socket takes. What is left is written by the session's task.
    pub fn flush(&self, now: Instant) {
        let mut state = self.lock();
        state.dirty = false;
        if state.blocked || state.frames.is_empty() {
            return;
        }
        state.write(now, &self.metrics);
        let low = state.is_low(self.low_water);
        if state.blocked || state.broken || (low && !state.waiters.is_empty()) {
            wake(state);
        }
    }

    /// For the session's task: waits for news, and writes what can be written. Remembers whom to wake. Where there are
    /// events already, they come first: what they lead to goes out in the same write.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<News> {
        let mut state = self.lock();
        if state.events.is_empty() {
            state.poll_write(cx, &self.metrics);
        }
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        let low = state.is_low(self.low_water) && !state.waiters.is_empty();
        if state.events.is_empty() && !low && !state.overflowed && !state.broken {
            return Poll::Pending;
        }
        Poll::Ready(News {
            events: std::mem::take(&mut state.events),
            waiters: if low { std::mem::take(&mut state.waiters) } else { BTreeSet::new() },
            overflowed: state.overflowed,
            broken: state.broken,
        })
    }

    /// Ready when everything is written, or never will be.
    pub fn poll_written(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        state.poll_write(cx, &self.metrics);
        if state.frames.is_empty() || state.broken { Poll::Ready(()) } else { Poll::Pending }
    }

    /// What the state machine has to hear before anything that the client has sent since.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    /// Takes frames of about `bytes` out, where no socket does.
    pub fn take(&self, bytes: usize) -> Vec<Bytes> {
        self.lock().take(bytes, &self.metrics)
    }

    /// For a request of a client that comes for its frames: about `bytes` of what there is, or the end. Remembers whom to
    /// wake.
    pub fn poll_pull(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<Pulled> {
        let mut state = self.lock();
        let frames = state.take(bytes, &self.metrics);
        if !frames.is_empty() {
            if state.is_low(self.low_water) && !state.waiters.is_empty() {
                wake(state);
            }
            return Poll::Ready(Pulled::Frames(frames));
        }
        let Sink::Taken(taken) = &mut state.sink else { return Poll::Pending };
        match taken.end {
            Some((code, reason)) => Poll::Ready(Pulled::End(code, reason)),
            None => {
                taken.puller = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Whether frames are taken out by requests; such a session ends with [`Outgoing::end`].
    pub fn is_taken(&self) -> bool {
        matches!(self.lock().sink, Sink::Taken(_))
    }

    /// The session is over: what waits can still be taken, and then the end is told, however often.
    pub fn end(&self, code: u16, reason: &'static str) {
        let mut state = self.lock();
        state.closed = true;
        if let Sink::Taken(taken) = &mut state.sink {
            taken.end = Some((code, reason));
            wake_puller(taken);
        }
    }

    /// When something was written last.
    pub fn wrote_at(&self) -> Instant {
        self.lock().wrote_at
    }

    /// Hands an event to the session's state machine.
    pub fn notify(&self, event: Event) {
        let mut state = self.lock();
        if !state.closed {
            state.events.push(event);
            wake(state);
        }
    }

    /// True when the caller must wait: it will be told through the session's task when the queue has run low.
    pub fn wait_for_low_water(&self, waiter: Waiter) -> bool {
        let mut state = self.lock();
        let wait = !state.is_low(self.low_water) && !state.closed && !state.overflowed;
        if wait {
            state.waiters.insert(waiter);
        }
        wait
    }

    /// So many bytes are on their way here: other replays wait for them too.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Reserved {
        self.lock().reserved += bytes;
        Reserved { outgoing: Arc::clone(self), bytes }
    }

    /// Takes nothing more; what waits is dropped, where the client can't come for it.
    pub fn close(&self) {
        let mut state = self.lock();
        if let Sink::Socket(_) = state.sink {
            state.clear();
            // The socket is closed now, not when the last has let go of this queue.
            state.sink = Sink::taken();
        }
        state.closed = true;
        (state.events, state.waiters, state.waker) = (Vec::new(), BTreeSet::new(), None);
        state.report(&self.metrics);
    }
}

impl State {
    fn push(&mut self, class: Class, frame: Bytes, note: Option<Event>, limit: usize) -> Pushed {
        let cost = frame.len() + FRAME_OVERHEAD;
        if self.closed || self.overflowed {
            return Pushed::Closed;
        }
        if class == Class::Replay {
            self.replayed += cost;
        } else if self.counted + cost > limit && !self.make_room(class, cost, limit) {
            if class == Class::Unsequenced {
                return Pushed::Dropped;
            }
            self.overflowed = true;
            self.clear();
            return Pushed::Closed;
        } else {
            self.counted += cost;
            self.unsequenced += if class == Class::Unsequenced { cost } else { 0 };
        }
        self.frames.push_back((class, frame));
        self.events.extend(note);
        Pushed::Queued
    }

    /// Drops unsequenced frames for a more important one; true when it fits now.
    fn make_room(&mut self, class: Class, cost: usize, limit: usize) -> bool {
        if class == Class::Unsequenced {
            return false;
        }
        let (mut freed, mut first, written) = (0, true, self.written);
        self.frames.retain(|(class, frame)| {
            let begun = std::mem::take(&mut first) && written > 0;
            let droppable = *class == Class::Unsequenced && !begun;
            freed += if droppable { frame.len() + FRAME_OVERHEAD } else { 0 };
            !droppable
        });
        self.counted -= freed;
        self.unsequenced = self.unsequenced.saturating_sub(freed);
        self.counted + cost <= limit
    }

    /// Drops what waits, but for a frame that the client has the beginning of.
    fn clear(&mut self) {
        let begun = if self.written > 0 { self.frames.pop_front() } else { None };
        self.frames = begun.into_iter().map(|(_, frame)| (Class::Control, frame)).collect();
        self.counted = self.frames.iter().map(|(_, frame)| frame.len() + FRAME_OVERHEAD).sum();
        (self.unsequenced, self.replayed) = (0, 0);
    }

    fn backlog(&self) -> usize {
        self.counted + self.replayed
    }

    /// A replay may go on; what may be dropped for it does not keep it waiting.
    fn is_low(&self, low_water: usize) -> bool {
        (self.backlog() + self.reserved).saturating_sub(self.unsequenced) < low_water
    }

    fn take(&mut self, bytes: usize, metrics: &Metrics) -> Vec<Bytes> {
        let (mut taken, mut out) = (0, Vec::new());
        while (taken < bytes || out.is_empty())
            && let Some(frame) = self.pop()
        {
            taken += frame.len();
            out.push(frame);
        }
        if taken > 0 {
            self.wrote_at = Instant::now();
            metrics.bytes_out.inc_by(taken as u64);
            self.report(metrics);
        }
        out
    }

    fn pop(&mut self) -> Option<Bytes> {
        let (class, frame) = self.frames.pop_front()?;
        let cost = frame.len() + FRAME_OVERHEAD;
        match class {
            Class::Replay => self.replayed = self.replayed.saturating_sub(cost),
            // The last frames of a session are not counted.
            _ => self.counted = self.counted.saturating_sub(cost),
        }
        if class == Class::Unsequenced {
            self.unsequenced = self.unsequenced.saturating_sub(cost);
        }
        Some(frame)
    }

    /// Goes on with a write that was blocked, or begins one.
    fn poll_write(&mut self, cx: &mut Context<'_>, metrics: &Metrics) {
        while !self.frames.is_empty() && !self.broken {
            if self.blocked {
                let Sink::Socket(socket) = &self.sink else { return };
                match socket.as_ref().poll_write_ready(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => {
                        self.broken = true;
                        return;
                    }
                }
            }
            self.write(Instant::now(), metrics);
            if matches!(self.sink, Sink::Taken(_)) {
                return;
            }
        }
    }

    /// Writes until all is written or the socket takes no more.
    fn write(&mut self, now: Instant, metrics: &Metrics) {
        if let Sink::Taken(taken) = &mut self.sink {
            wake_puller(taken);
            return self.report(metrics);
        }
        let mut total = 0;
        let outcome = loop {
            let Sink::Socket(socket) = &self.sink else { break Ok(()) };
            let Some((_, first)) = self.frames.front() else { break Ok(()) };
            let first = &first[self.written..];
            let result = if self.frames.len() == 1 {
                socket.try_write(first)
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                slices[0] = IoSlice::new(first);
                let rest = self.frames.iter().skip(1);
                let count =
                    1 + slices[1..].iter_mut().zip(rest).map(|(slice, (_, f))| *slice = IoSlice::new(f)).count();
                socket.try_write_vectored(&slices[..count])
            };
            match result {
                Ok(bytes) => {
                    total += bytes;
                    self.wrote(bytes);
                }
                Err(error) => break Err(error.kind()),
            }
        };
        self.blocked = outcome == Err(io::ErrorKind::WouldBlock);
        self.broken |= outcome.is_err() && !self.blocked;
        if total > 0 {
            self.wrote_at = now;
            metrics.bytes_out.inc_by(total as u64);
        }
        if self.frames.is_empty() && self.frames.capacity() > KEPT_FRAMES {
            // Given back while idle: there are many sessions.
            self.frames = VecDeque::with_capacity(KEPT_FRAMES);
        }
        if self.blocked || self.reported > 0 {
            self.report(metrics);
        }
    }

    /// These bytes are gone.
    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        while self.frames.front().is_some_and(|(_, first)| first.len() <= self.written) {
            self.written -= self.pop().map_or(0, |frame| frame.len());
        }
    }

    /// The gauge is the sum over all sessions.
    fn report(&mut self, metrics: &Metrics) {
        let backlog = self.backlog();
        metrics.queued_bytes.inc_by(backlog as i64 - self.reported as i64);
        self.reported = backlog;
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let reported = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).reported;
        self.metrics.queued_bytes.dec_by(reported as i64);
    }
}

fn wake_puller(taken: &mut Taken) {
    if let Some(puller) = taken.puller.take() {
        puller.wake();
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

#[cfg(test)]
pub mod tests;
