//! The protocol of one session, pure: [`Input`]s and the time in, [`Output`]s out.
//!
//! Refusals (a SEND or SUBSCRIBE that can't be done) are told on `/user/queue/errors` and the connection stays; where
//! nobody listens there, and for every breach of the protocol, the answer is ERROR and the end.

mod sends;
mod subscribe;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chassis::jwt::TokenError;
use proto::Code;
use tokio::time::Instant;

use super::{
    Event, frames,
    frames::About,
    lane::{Lane, Retry},
    rate::Bucket,
    subscriptions::{Resumed, Subscription},
};
use crate::{
    disconnect::Disconnect,
    hub::{Head, Scope, Start},
    metrics::Metrics,
    refusal::Refusal,
    session::lane::Submission,
    stomp::{Command, Connect, DecodeError, Frame, Verb, Version},
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
    pub message_body: usize,
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
    WatchUser {
        subscription: u32,
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
    Read {
        no: u64,
        conversation: i64,
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

/// A request that is neither a SEND of a message nor a SUBSCRIBE.
#[derive(Debug)]
struct Asked {
    receipt: Option<String>,
    conversation: i64,
}

#[derive(Debug)]
pub struct Machine {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    id: String,
    phase: Phase,
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
    /// Ids of subscriptions that were refused or have ended: their UNSUBSCRIBE may be on its way. The latest ones, as many
    /// as there may be subscriptions.
    over: VecDeque<String>,
    /// Receipts of UNSUBSCRIBEs, with the answers that are still to come.
    detaching: HashMap<u32, (usize, Option<String>)>,
    resumed: Resumed,
    lanes: HashMap<i64, Lane>,
    asked: HashMap<u64, Asked>,
    next_no: u64,
    in_flight: usize,
    bucket: Bucket,
    typed_at: HashMap<i64, Instant>,
    outputs: Vec<Output>,
}

impl Machine {
    pub fn new(id: String, settings: Arc<Settings>, metrics: Arc<Metrics>, now: Instant) -> Self {
        Self {
            bucket: Bucket::new(settings.sends_per_second, settings.sends_burst, now),
            phase: Phase::Opening { deadline: now + settings.connect_timeout },
            settings,
            metrics,
            id,
            version: Version::V1_2,
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
            over: VecDeque::new(),
            detaching: HashMap::new(),
            resumed: Resumed::default(),
            lanes: HashMap::new(),
            asked: HashMap::new(),
            next_no: 0,
            in_flight: 0,
            typed_at: HashMap::new(),
            outputs: Vec::new(),
        }
    }

    /// The token's subject; 0 before CONNECTED.
    pub fn user(&self) -> i64 {
        self.user
    }

    /// What is to be done now; empty when nothing is.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
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
            Phase::Open => self.in_flight < self.settings.sends_in_flight && self.renewing.is_none(),
            Phase::Verifying { .. } | Phase::Leaving { .. } | Phase::Ended => false,
        }
    }

    /// Subscriptions and their conversations, to be left when the session ends.
    pub fn attached(&self) -> Vec<(u32, Vec<i64>)> {
        self.subscriptions.iter().map(|subscription| (subscription.no, Self::conversations(subscription))).collect()
    }

    /// Subscriptions that follow the user.
    pub fn watching(&self) -> impl Iterator<Item = u32> {
        self.subscriptions.iter().filter(|s| s.queue.is_some()).map(|s| s.no)
    }

    pub fn handle(&mut self, input: Input, now: Instant) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
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
        self.leave_if_done();
    }

    fn frame(&mut self, frame: Frame, now: Instant) {
        self.metrics.frame_in(frame.verb);
        let command = match Command::parse(frame, self.version) {
            Ok(command) => command,
            Err(error) => return self.end(error.into()),
        };
        match (&self.phase, command) {
            (Phase::Opening { .. }, Command::Connect(connect)) => self.connect(connect),
            (Phase::Opening { .. }, _) => self.end(Disconnect::protocol("expected CONNECT first")),
            (Phase::Open, Command::Connect(_)) => self.end(Disconnect::protocol("CONNECT came twice")),
            (Phase::Open, Command::Send(send)) => self.send(send, now),
            (Phase::Open, Command::Subscribe(subscribe)) => self.subscribe(subscribe),
            (Phase::Open, Command::Unsubscribe { id, receipt }) => self.unsubscribe(&id, receipt),
            (Phase::Open, Command::Disconnect { receipt }) => {
                let deadline = Some(now + self.settings.retry.deadline);
                self.phase = Phase::Leaving { receipt, end: Disconnect::normal(), deadline };
            }
            (Phase::Open, Command::Unserved { verb, receipt }) => self.end(unserved(verb).receipt(receipt)),
            // Frames behind a DISCONNECT, or while nothing more is taken.
            (Phase::Verifying { .. } | Phase::Leaving { .. } | Phase::Ended, _) => {}
        }
    }

    fn connect(&mut self, connect: Connect) {
        match Version::negotiate(connect.accept_version.as_deref()) {
            None => return self.end(Disconnect::no_common_version(connect.accept_version.as_deref())),
            Some(version) => self.version = version,
        }
        let Some(token) = connect.token.clone() else {
            let message = "CONNECT needs an access token, as Authorization: Bearer or as passcode";
            return self.end(Disconnect::unauthenticated(Code::Unauthenticated, message));
        };
        self.phase = Phase::Verifying { connect };
        self.outputs.push(Output::Verify { token });
    }

    fn verified(&mut self, result: Result<Verified, TokenError>, now: Instant) {
        if let Some(receipt) = self.renewing.take() {
            return self.renewed(result, receipt, now);
        }
        let Phase::Verifying { connect } = &mut self.phase else { return };
        let (heart_beat, device_id) = (connect.heart_beat, connect.device_id.take());
        self.phase = Phase::Open;
        let verified = match result {
            Ok(verified) => verified,
            Err(error) => return self.end(Disconnect::unauthenticated(error.code(), error.to_string())),
        };
        if !verified.admitted {
            return self.end(Disconnect::too_many_connections(self.settings.connections_per_user));
        }
        self.user = verified.user;
        self.accept(&verified, now);
        let (can, wants) = heart_beat;
        let interval = |ours: Duration, theirs: u32| {
            (!ours.is_zero() && theirs > 0).then(|| ours.max(Duration::from_millis(theirs.into())))
        };
        self.beat_out = interval(self.settings.heart_beat_send, wants);
        self.beat_in = interval(self.settings.heart_beat_receive, can);
        self.received_at = now;
        let offered = [self.settings.heart_beat_send, self.settings.heart_beat_receive].map(|d| d.as_millis() as u32);
        let connected = frames::connected(self.version, &self.id, self.user, (offered[0], offered[1]));
        self.outputs.push(Output::Opened { user: self.user, version: self.version, device_id });
        self.outputs.push(Output::Write(connected));
    }

    fn renewed(&mut self, result: Result<Verified, TokenError>, receipt: Option<String>, now: Instant) {
        let about = About { receipt: receipt.clone(), ..About::default() };
        match result {
            Ok(verified) if verified.user == self.user => {
                self.accept(&verified, now);
                self.receipt(receipt);
            }
            Ok(_) => {
                let message = "the new token is of another subject; open another connection for it";
                self.refuse(&Refusal::new(Code::SpoofedSender, message), about);
            }
            Err(error) => self.refuse(&Refusal::new(error.code(), error.to_string()), about),
        }
    }

    fn accept(&mut self, verified: &Verified, now: Instant) {
        self.expires_at = Some(now + verified.expires_in);
        (self.may_read, self.may_write) = (verified.may_read, verified.may_write);
    }

    fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Sent { conversation, no, result } => self.sent(conversation, no, result, now),
            Event::Done { no, result } => {
                let Some(Asked { receipt, conversation }) = self.asked.remove(&no) else { return };
                self.in_flight -= 1;
                match result {
                    Ok(()) => self.receipt(receipt),
                    Err(refusal) => {
                        let about = About { receipt, conversation: Some(conversation), ..About::default() };
                        self.refuse(&refusal, about);
                    }
                }
            }
            Event::Delivered { .. } => {}
            Event::Attached { subscription, conversation } => self.attached_to(subscription, conversation),
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
            self.outputs.push(Output::Write(crate::stomp::HEART_BEAT.to_owned()));
        }
        self.tick_lanes(now);
        self.retry_queues(now);
    }

    /// Ends a session that is leaving as soon as every frame before was answered.
    fn leave_if_done(&mut self) {
        let owed = self.subscriptions.iter().any(|s| s.receipt.is_some()) || !self.detaching.is_empty();
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
            self.outputs.push(Output::Write(frames::receipt(self.version, &id)));
        }
    }

    /// Tells why something can't be done; where nobody listens, that is the end.
    fn refuse(&mut self, refusal: &Refusal, about: About) {
        self.metrics.refused(refusal.code);
        let errors = self.subscriptions.iter().find(|s| s.topic == super::destination::Topic::Errors);
        match errors {
            Some(subscription) => {
                self.next_no += 1;
                let frame = frames::refusal(self.version, &subscription.head, self.next_no, refusal, &about);
                self.outputs.push(Output::Write(frame));
            }
            None => self.finish(Disconnect::refused(refusal.code, refusal.message.clone()).receipt(about.receipt)),
        }
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
        if let Some(error) = &end.error {
            self.outputs.push(Output::Write(frames::error(self.version, error)));
        }
        self.outputs.push(Output::Disconnect(end));
    }
}

fn unserved(verb: Verb) -> Disconnect {
    let why = match verb {
        Verb::Ack | Verb::Nack => "acknowledgement is automatic here: subscribe with ack:auto and leave it out",
        _ => "transactions are not served: SENDs of a session to a conversation are committed in their order",
    };
    Disconnect::protocol(format!("{} is not served; {why}", verb.as_str()))
}

#[cfg(test)]
mod tests;
