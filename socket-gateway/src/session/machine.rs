//! The protocol of one session, pure: [`Input`]s and the time in, [`Output`]s out.
//!
//! Refusals (a SEND or SUBSCRIBE that can't be done) are told on `/user/queue/errors` and the connection stays; where
//! nobody listens there, and for every breach of the protocol, the answer is ERROR and the end.

mod acks;
mod connect;
mod outputs;
mod sends;
mod subscribe;
mod transactions;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chassis::jwt::TokenError;
use proto::{Code, rpc::v1::AckKind};
use tokio::time::Instant;

use self::outputs::Outputs;
use super::{
    Event,
    acks::{Message, Reports},
    destination::Topic,
    frames,
    frames::About,
    lane::{Lane, Retry},
    rate::Bucket,
    subscriptions::{Over, Resumed, Subscription},
    transactions::{self as held, Due, Held, Transactions},
};
pub use sends::Request;

use crate::{
    disconnect::Disconnect,
    hub::{Head, Scope, Start},
    metrics::Metrics,
    refusal::Refusal,
    session::lane::Submission,
    stomp::{Command, Connect, DecodeError, Frame, Version},
};

/// What sessions may do; from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub connect_timeout: Duration,
    /// Shortest intervals of heart-beats; zero: none.
    pub heart_beat_send: Duration,
    pub heart_beat_receive: Duration,
    pub heart_beat_tolerance: Duration,
    pub retry: Retry,
    pub typing_interval: Duration,
    pub subscriptions: usize,
    pub resumed_conversations: usize,
    pub sends_in_flight: usize,
    pub sends_per_second: u32,
    pub sends_burst: u32,
    pub subscribes_per_second: u32,
    pub subscribes_burst: u32,
    pub message_body: usize,
    /// An id that a client chooses, bytes.
    pub id: usize,
    pub held: held::Limits,
    /// Gaps between acknowledged messages, and the order of messages that is remembered for `ack:client`.
    pub unacknowledged: usize,
    pub connections_per_user: usize,
    pub outgoing: usize,
    pub drain_sends: Duration,
}

/// A token that was found good.
#[derive(Clone, Debug)]
pub struct Verified {
    pub user: i64,
    pub expires_in: Duration,
    pub may_read: bool,
    pub may_write: bool,
    /// False: the user has as many connections as allowed.
    pub admitted: bool,
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input {
    /// Bytes came, be it a heart-beat.
    Received,
    Frame(Frame),
    Undecodable(DecodeError),
    /// The transport under it can't be read any more.
    Broken(Disconnect),
    /// The answer to [`Output::Verify`]. A token that can't be used by a client is `Err` with what is wrong.
    Verified(Result<Verified, TokenError>),
    Event(Event),
    /// The answer to [`Output::Detach`]: so many `Event::Detached` will come.
    Detaching {
        subscription: u32,
        answers: usize,
    },
    /// Frames were written: a heart-beat is not due for a while.
    Wrote,
    /// The outgoing queue has overflowed.
    Overflowed,
    /// Go away at that time.
    Drain {
        at: Instant,
    },
    Tick,
}

/// What is to be done for a session, in this order.
#[derive(Debug)]
pub enum Output {
    Write(String),
    Verify {
        token: String,
    },
    /// CONNECTED: frames are of this version from now on, and the connection is registered.
    Opened {
        user: i64,
        version: Version,
        device_id: Option<String>,
    },
    Attach {
        subscription: u32,
        conversation: i64,
        scope: Scope,
        start: Start,
        head: Head,
        user_seq: Option<i64>,
        joined_user_seq: Option<i64>,
    },
    Detach {
        subscription: u32,
        conversations: Vec<i64>,
    },
    /// `known`: the `user_seq` up to which nothing has to be told.
    WatchUser {
        subscription: u32,
        known: Option<i64>,
    },
    UnwatchUser {
        subscription: u32,
    },
    Submit {
        conversation: i64,
        submission: Submission,
    },
    Typing {
        no: u64,
        conversation: i64,
    },
    /// How far the user has read, or has got messages.
    Position {
        no: u64,
        conversation: i64,
        kind: AckKind,
        seq: i64,
        epoch: i64,
    },
    Disconnect(Disconnect),
}

#[derive(Debug)]
enum Phase {
    /// Before CONNECT.
    Opening {
        deadline: Instant,
    },
    Verifying {
        connect: Connect,
    },
    Open,
    /// Nothing more is taken; the end comes when all that was taken is answered, or at the deadline.
    Leaving {
        receipt: Option<String>,
        end: Disconnect,
        deadline: Option<Instant>,
    },
    Ended,
}

/// What is asked elsewhere beside messages and subscriptions.
#[derive(Debug)]
enum Asked {
    /// By the client: typing, its read position.
    Request { due: Due, conversation: i64 },
    /// That its prefix be stored.
    Delivered(Message),
}

#[derive(Debug)]
pub struct Machine {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    id: String,
    phase: Phase,
    /// What the WebSocket has agreed on.
    subprotocol: Option<Version>,
    version: Version,
    user: i64,
    may_read: bool,
    may_write: bool,
    expires_at: Option<Instant>,
    /// A token is being verified for `/app/token`; with the receipt that is due.
    renewing: Option<Option<String>>,
    received_at: Instant,
    written_at: Instant,
    beat_out: Option<Duration>,
    beat_in: Option<Duration>,
    drain_at: Option<Instant>,
    subscriptions: Vec<Subscription>,
    next_subscription: u32,
    over: Over,
    /// Receipts of UNSUBSCRIBEs, with the answers that are still to come.
    detaching: HashMap<u32, (usize, Option<String>)>,
    resumed: Resumed,
    lanes: HashMap<i64, Lane>,
    asked: HashMap<u64, Asked>,
    reports: Reports,
    transactions: Transactions,
    /// Frames of COMMITs that are still to be applied, with the numbers of their COMMITs.
    applying: VecDeque<(u64, Held)>,
    next_no: u64,
    in_flight: usize,
    send_bucket: Bucket,
    subscribe_bucket: Bucket,
    typed_at: HashMap<i64, Instant>,
    outputs: Outputs,
}

impl Machine {
    /// `subprotocol`: what the transport has agreed on with the client, if it has.
    pub fn new(
        id: String,
        settings: Arc<Settings>,
        metrics: Arc<Metrics>,
        now: Instant,
        subprotocol: Option<Version>,
    ) -> Self {
        Self {
            over: Over::new(settings.subscriptions),
            transactions: Transactions::new(settings.held),
            send_bucket: Bucket::new(settings.sends_per_second, settings.sends_burst, now),
            subscribe_bucket: Bucket::new(settings.subscribes_per_second, settings.subscribes_burst, now),
            phase: Phase::Opening { deadline: now + settings.connect_timeout },
            settings,
            metrics,
            id,
            subprotocol,
            version: subprotocol.unwrap_or(Version::V1_2),
            user: 0,
            may_read: false,
            may_write: false,
            expires_at: None,
            renewing: None,
            received_at: now,
            written_at: now,
            beat_out: None,
            beat_in: None,
            drain_at: None,
            subscriptions: Vec::new(),
            next_subscription: 0,
            detaching: HashMap::new(),
            resumed: Resumed::default(),
            lanes: HashMap::new(),
            asked: HashMap::new(),
            reports: Reports::default(),
            applying: VecDeque::new(),
            next_no: 0,
            in_flight: 0,
            typed_at: HashMap::new(),
            outputs: Outputs::default(),
        }
    }

    /// The token's subject; 0 before CONNECTED.
    pub fn user(&self) -> i64 {
        self.user
    }

    /// What is to be done now; empty when nothing is.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        self.outputs.take()
    }

    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// False while so much is in flight that the client is not read, and when nothing more is taken.
    pub fn wants_input(&self) -> bool {
        match self.phase {
            Phase::Opening { .. } => true,
            Phase::Open => {
                self.in_flight < self.settings.sends_in_flight && self.renewing.is_none() && self.applying.is_empty()
            }
            Phase::Verifying { .. } | Phase::Leaving { .. } | Phase::Ended => false,
        }
    }

    /// Subscriptions and their conversations, to be left when the session ends.
    pub fn attached(&self) -> Vec<(u32, Vec<i64>)> {
        self.subscriptions.iter().map(|subscription| (subscription.no, Self::conversations(subscription))).collect()
    }

    /// ACKs may come: every [`Event::Delivered`] has to be handled before them.
    pub fn acknowledges(&self) -> bool {
        self.subscriptions.iter().any(|subscription| subscription.acks.is_some())
    }

    /// Subscriptions that follow the user.
    pub fn watching(&self) -> impl Iterator<Item = u32> {
        self.subscriptions.iter().filter(|s| s.queue.is_some()).map(|s| s.no)
    }

    pub fn handle(&mut self, input: Input, now: Instant) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        let was_read = self.wants_input();
        match input {
            Input::Received => self.received_at = now,
            Input::Wrote => self.written_at = now,
            Input::Frame(frame) => self.frame(frame, now),
            Input::Undecodable(error) => self.end(error.into()),
            Input::Broken(end) => self.end(end),
            Input::Verified(result) => self.verified(result, now),
            Input::Event(event) => self.event(event, now),
            Input::Detaching { subscription, answers } => self.detached(subscription, Some(answers)),
            Input::Overflowed => self.end(Disconnect::slow_consumer(self.settings.outgoing)),
            Input::Drain { at } => self.drain_at = Some(at),
            Input::Tick => self.tick(now),
        }
        self.go_on_applying(now);
        self.leave_if_done();
        if !was_read && self.wants_input() {
            // What it sent meanwhile, heart-beats too, is still to be read.
            self.received_at = now;
        }
    }

    fn frame(&mut self, frame: Frame, now: Instant) {
        self.metrics.frame_in(frame.verb);
        if let Some(end) = self.negotiate(&frame).or_else(|| self.check_ids(&frame)) {
            return self.end(end);
        }
        let command = match Command::parse(frame, self.version) {
            Ok(command) => command,
            Err(error) => return self.end(error.into()),
        };
        match (&self.phase, command) {
            (Phase::Opening { .. }, Command::Connect(connect)) => self.connect(connect),
            (Phase::Opening { .. }, other) => {
                self.end(Disconnect::protocol("expected CONNECT first").receipt(other.receipt().cloned()));
            }
            (Phase::Open, Command::Connect(again)) => {
                self.end(Disconnect::protocol("CONNECT came twice").receipt(again.receipt));
            }
            (Phase::Open, Command::Send(send)) => self.send(send, now),
            (Phase::Open, Command::Subscribe(subscribe)) => self.subscribe(subscribe, now),
            (Phase::Open, Command::Unsubscribe { id, receipt }) => self.unsubscribe(&id, receipt),
            (Phase::Open, Command::Disconnect { receipt }) => {
                let deadline = Some(now + self.settings.retry.deadline);
                self.phase = Phase::Leaving { receipt, end: Disconnect::normal(), deadline };
            }
            (Phase::Open, Command::Ack(ack)) => self.ack(ack),
            (Phase::Open, Command::Begin(transaction)) => self.begin(transaction),
            (Phase::Open, Command::Commit(transaction)) => self.commit(transaction),
            (Phase::Open, Command::Abort(transaction)) => self.abort(transaction),
            // Frames behind a DISCONNECT, or while nothing more is taken.
            (Phase::Verifying { .. } | Phase::Leaving { .. } | Phase::Ended, _) => {}
        }
    }

    fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Sent { conversation, no, result } => self.sent(conversation, no, result, now),
            Event::Done { no, result } => match self.asked.remove(&no) {
                None => {}
                Some(Asked::Delivered(message)) => self.reported(message, result, now),
                Some(Asked::Request { due, conversation }) => {
                    self.in_flight -= 1;
                    match result {
                        Ok(()) => self.done(due),
                        Err(refusal) => self.failed(due, &refusal, Some(conversation)),
                    }
                }
            },
            Event::Delivered { subscription, conversation, seq } => {
                self.delivered(subscription, Message { conversation, seq });
            }
            Event::Attached { subscription, conversation, head } => self.attached_to(subscription, conversation, head),
            Event::Refused { subscription, conversation, refusal } => {
                self.attach_refused(subscription, conversation, &refusal, now);
            }
            Event::Ended { subscription, conversation, at_seq, removed } => {
                self.subscription_ended(subscription, conversation, at_seq, removed);
            }
            Event::Detached { subscription } => self.detached(subscription, None),
            Event::UserState { subscription, state } => self.user_state(subscription, state),
            Event::UserRefused { subscription, refusal } => self.attach_refused(subscription, 0, &refusal, now),
        }
    }

    /// The next time that [`Input::Tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Opening { deadline } => Some(*deadline),
            Phase::Leaving { deadline, .. } => *deadline,
            Phase::Verifying { .. } | Phase::Open | Phase::Ended => None,
        };
        let beat_in = self.beat_in.filter(|_| self.wants_input());
        let own = [
            phase,
            self.expires_at,
            self.drain_at,
            self.reports.retry_at,
            self.beat_out.map(|every| self.written_at + every),
            beat_in.map(|every| self.received_at + every + self.settings.heart_beat_tolerance),
        ];
        let lanes = self.lanes.values().filter_map(Lane::deadline);
        let queues = self.subscriptions.iter().filter_map(|s| s.queue.as_ref()?.retry_at);
        own.into_iter().flatten().chain(lanes).chain(queues).min()
    }

    fn tick(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match &self.phase {
            Phase::Opening { deadline } if *deadline <= now => {
                let message = format!("no CONNECT within {:?}", self.settings.connect_timeout);
                return self.end(Disconnect::unauthenticated(Code::Unauthenticated, message));
            }
            Phase::Leaving { deadline, .. } if due(*deadline) => {
                self.tick_lanes(now);
                return self.leave();
            }
            _ => {}
        }
        if due(self.expires_at) {
            let message = "the access token has expired; send a new one to /app/token in time";
            return self.end(Disconnect::unauthenticated(Code::TokenExpired, message));
        }
        if due(self.drain_at) {
            self.drain_at = None;
            if !matches!(self.phase, Phase::Leaving { .. }) {
                let deadline = Some(now + self.settings.drain_sends);
                self.phase = Phase::Leaving { receipt: None, end: Disconnect::going_away(), deadline };
            }
        }
        if let Some(every) = self.beat_in.filter(|_| self.wants_input())
            && due(Some(self.received_at + every + self.settings.heart_beat_tolerance))
        {
            return self.end(Disconnect::protocol(format!("no heart-beat within {every:?}")));
        }
        if due(self.beat_out.map(|every| self.written_at + every)) {
            self.written_at = now;
            self.outputs.put(Output::Write(crate::stomp::HEART_BEAT.to_owned()));
        }
        self.tick_lanes(now);
        self.retry_queues(now);
        self.retry_reports(now);
    }

    /// Ends a session that is leaving as soon as every frame before was answered.
    fn leave_if_done(&mut self) {
        if !matches!(self.phase, Phase::Leaving { .. }) {
            return;
        }
        let owed = self.subscriptions.iter().any(|s| s.receipt.is_some())
            || !self.detaching.is_empty()
            || !self.applying.is_empty()
            || self.transactions.is_committing()
            || self.reports.is_waited_for();
        if self.in_flight == 0 && !owed {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if let Phase::Leaving { receipt, end, .. } = &mut self.phase {
            let (receipt, end) = (receipt.take(), end.clone());
            self.receipt(receipt);
            self.end(end);
        }
    }

    fn receipt(&mut self, receipt: Option<String>) {
        if let Some(id) = receipt {
            self.outputs.put(Output::Write(frames::receipt(self.version, &id)));
        }
    }

    /// Tells why something can't be done; where nobody listens, that is the end.
    fn refuse(&mut self, refusal: &Refusal, about: About) {
        self.metrics.refused(refusal.code);
        let no = self.next_no + 1;
        match self.errors() {
            Some(subscription) => {
                let frame = frames::refusal(self.version, &subscription.head, no, refusal, &about);
                self.next_no = no;
                self.outputs.put(Output::Write(frame));
            }
            None => self.finish(Disconnect::refused(refusal.code, refusal.message.clone()).receipt(about.receipt)),
        }
    }

    /// The subscription to `/user/queue/errors`.
    fn errors(&self) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| subscription.topic == Topic::Errors)
    }

    fn end(&mut self, end: Disconnect) {
        if let Some(error) = &end.error {
            self.metrics.refused(error.code);
        }
        self.finish(end);
    }

    fn finish(&mut self, end: Disconnect) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        self.phase = Phase::Ended;
        let rest = self.reports.rest();
        self.report(rest);
        if let Some(error) = &end.error {
            self.outputs.put(Output::Write(frames::error(self.version, error)));
        }
        self.outputs.put(Output::Disconnect(end));
    }
}

#[cfg(test)]
mod tests;
