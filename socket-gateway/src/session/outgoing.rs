//! What waits for one session: frames to be written, and events for its state machine.
//!
//! Others put things in under a short lock and never wait; the session's task takes them out. Frames are bounded in
//! bytes: over the bound unsequenced ones are dropped first, and if that does not suffice the session has *overflowed*:
//! the queue is emptied, takes nothing more, and the session ends itself as a slow consumer. Replay is not counted,
//! because who feeds it waits for the queue to run low ([`Outgoing::wait_for_low_water`]). Events are bounded by what
//! the session has asked for: each answers one request, or ends one subscription.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use axum::extract::ws::Utf8Bytes;
use proto::rpc::v1::CreateMessageResponse;

use crate::{hub::UserState, refusal::Refusal};

/// What a queued frame costs beside its bytes.
const FRAME_OVERHEAD: usize = 48;

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
    Attached { subscription: u32, conversation: i64 },
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

/// A replay that goes on when the queue has run low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    pub subscription: u32,
    pub conversation: i64,
}

/// The queue of one session.
#[derive(Debug)]
pub struct Outgoing {
    state: Mutex<State>,
    limit: usize,
    low_water: usize,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<(Class, Utf8Bytes)>,
    /// Bytes of frames that count.
    counted: usize,
    /// Bytes of replayed frames.
    replayed: usize,
    events: Vec<Event>,
    waiters: Vec<Waiter>,
    overflowed: bool,
    closed: bool,
    waker: Option<Waker>,
}

/// What the session's task took out.
#[derive(Debug, Default)]
pub struct Taken {
    pub events: Vec<Event>,
    /// Replays to be told to go on.
    pub waiters: Vec<Waiter>,
    pub overflowed: bool,
    /// Bytes that still wait.
    pub backlog: usize,
}

impl Outgoing {
    /// `limit`: counted bytes over which the session is a slow consumer. `low_water`: bytes under which replay goes on.
    pub fn new(limit: usize, low_water: usize) -> Self {
        Self { state: Mutex::default(), limit, low_water }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame; see [`Class`] for what happens when the queue is full.
    pub fn push(&self, class: Class, frame: Utf8Bytes) -> Pushed {
        let cost = frame.len() + FRAME_OVERHEAD;
        let mut state = self.lock();
        if state.closed || state.overflowed {
            return Pushed::Closed;
        }
        if class == Class::Replay {
            state.replayed += cost;
        } else if state.counted + cost > self.limit && !state.make_room(class, cost, self.limit) {
            if class == Class::Unsequenced {
                return Pushed::Dropped;
            }
            state.overflowed = true;
            state.frames = VecDeque::new();
            wake(state);
            return Pushed::Closed;
        } else {
            state.counted += cost;
        }
        state.frames.push_back((class, frame));
        wake(state);
        Pushed::Queued
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
        let wait = state.counted + state.replayed >= self.low_water && !state.closed && !state.overflowed;
        if wait && !state.waiters.contains(&waiter) {
            state.waiters.push(waiter);
        }
        wait
    }

    /// Moves frames of about `bytes` to `batch`, and all events out; remembers whom to wake when more comes.
    pub fn take(&self, cx: &mut Context<'_>, batch: &mut VecDeque<Utf8Bytes>, bytes: usize) -> Taken {
        let mut state = self.lock();
        let mut taken = 0;
        while taken < bytes {
            let Some((class, frame)) = state.frames.pop_front() else { break };
            let cost = frame.len() + FRAME_OVERHEAD;
            taken += cost;
            match class {
                Class::Replay => state.replayed -= cost,
                _ => state.counted -= cost,
            }
            batch.push_back(frame);
        }
        if state.frames.is_empty() {
            // Given back while idle: there are many sessions.
            state.frames = VecDeque::new();
        }
        let backlog = state.counted + state.replayed;
        let low = backlog < self.low_water;
        state.waker.clone_from(&Some(cx.waker().clone()));
        Taken {
            events: std::mem::take(&mut state.events),
            waiters: if low { std::mem::take(&mut state.waiters) } else { Vec::new() },
            overflowed: state.overflowed,
            backlog,
        }
    }

    /// Takes nothing more; what waits is dropped.
    pub fn close(&self) {
        *self.lock() = State { closed: true, ..State::default() };
    }
}

impl State {
    /// Drops unsequenced frames for a more important one; true when it fits now.
    fn make_room(&mut self, class: Class, cost: usize, limit: usize) -> bool {
        if class == Class::Unsequenced {
            return false;
        }
        let mut freed = 0;
        self.frames.retain(|(class, frame)| {
            let droppable = *class == Class::Unsequenced;
            freed += if droppable { frame.len() + FRAME_OVERHEAD } else { 0 };
            !droppable
        });
        self.counted -= freed;
        self.counted + cost <= limit
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
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Utf8Bytes {
        "x".repeat(bytes).into()
    }

    fn take(queue: &Outgoing) -> (Vec<usize>, Taken) {
        let mut batch = VecDeque::new();
        let taken = queue.take(&mut Context::from_waker(Waker::noop()), &mut batch, usize::MAX);
        (batch.iter().map(|frame| frame.len()).collect(), taken)
    }

    #[test]
    fn unsequenced_frames_go_first_when_the_queue_is_full() {
        let queue = Outgoing::new(1000, 100);
        assert_eq!(queue.push(Class::Sequenced, frame(400)), Pushed::Queued);
        assert_eq!(queue.push(Class::Unsequenced, frame(400)), Pushed::Queued);
        assert_eq!(queue.push(Class::Unsequenced, frame(400)), Pushed::Dropped);
        assert_eq!(queue.push(Class::Sequenced, frame(401)), Pushed::Queued);
        assert_eq!(take(&queue).0, [400, 401]);
    }

    #[test]
    fn a_reader_that_is_too_slow_overflows_by_bytes_and_gets_nothing_more() {
        let queue = Outgoing::new(1000, 100);
        assert_eq!(queue.push(Class::Sequenced, frame(900)), Pushed::Queued);
        assert_eq!(queue.push(Class::Sequenced, frame(900)), Pushed::Closed);
        assert_eq!(queue.push(Class::Control, frame(1)), Pushed::Closed);
        let (frames, taken) = take(&queue);
        assert!(frames.is_empty() && taken.overflowed);
    }

    #[test]
    fn replay_is_not_counted_and_waits_for_the_low_water() {
        let queue = Outgoing::new(1000, 100);
        let waiter = Waiter { subscription: 1, conversation: 7 };
        assert!(!queue.wait_for_low_water(waiter));
        assert_eq!(queue.push(Class::Replay, frame(5000)), Pushed::Queued);
        assert_eq!(queue.push(Class::Sequenced, frame(100)), Pushed::Queued);
        assert!(queue.wait_for_low_water(waiter) && queue.wait_for_low_water(waiter));
        let (frames, taken) = take(&queue);
        assert_eq!((frames, taken.waiters, taken.overflowed), (vec![5000, 100], vec![waiter], false));
        assert!(!queue.wait_for_low_water(waiter));
    }

    #[test]
    fn a_closed_queue_takes_nothing() {
        let queue = Outgoing::new(1000, 100);
        queue.close();
        assert_eq!(queue.push(Class::Sequenced, frame(1)), Pushed::Closed);
        queue.notify(Event::Detached { subscription: 1 });
        assert!(take(&queue).1.events.is_empty());
    }
}
