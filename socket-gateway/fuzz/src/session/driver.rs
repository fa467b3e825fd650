//! A session's machine, and what is watched of it.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use chassis::hops::HopRing;
use socket_gateway::{
    disconnect::Disconnect,
    metrics::Metrics,
    session::{HeldLimits, Input, Machine, Output, Retry, Settings},
    stomp::{Decoder, Frame, Limits, Verb, Version},
    websocket::Fault,
};
use tokio::time::Instant;

use super::{
    super::stomp_decoder::{self, WIDE},
    receipts::Receipts,
    world::{self, World},
};

/// Outputs of one input: far fewer than this are asked for by any.
const MAX_OUTPUTS: usize = 600;
/// When all is answered well, a session is at rest after so long.
const SETTLING: Duration = Duration::from_secs(120);

/// A server's frame may quote what was wrong with a client's, escaped.
const WRITTEN: Limits = Limits { line: 1 << 20, headers: 64, head: 1 << 20, body: 1 << 20 };

const TIMES_MS: [u64; 10] = [0, 1, 50, 500, 1_000, 2_000, 5_000, 10_000, 60_000, 3_600_000];

thread_local! {
    /// Made once: it is large.
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new(HopRing::new(0)));
}

pub struct Driver {
    machine: Machine,
    now: Instant,
    /// Anything may come, in any order.
    wild: bool,
    subscriptions: usize,
    decoder: Decoder,
    buffer: BytesMut,
    /// Of what the session writes.
    version: Version,
    connecting: bool,
    opened: bool,
    ended: bool,
    ticking: bool,
    world: World,
    receipts: Receipts,
}

fn settings(high: bool) -> Settings {
    let of = |low: usize, many: usize| if high { many } else { low };
    Settings {
        connect_timeout: Duration::from_secs(10),
        heart_beat_send: Duration::from_secs(10),
        heart_beat_receive: Duration::from_secs(10),
        heart_beat_tolerance: Duration::from_secs(5),
        retry: Retry {
            deadline: Duration::from_secs(10),
            base: Duration::from_millis(50),
            max: Duration::from_secs(1),
        },
        typing_interval: Duration::from_secs(2),
        subscriptions: of(3, 256),
        resumed_conversations: of(3, 1000),
        sends_in_flight: of(2, 256),
        sends_per_second: of(2, 200) as u32,
        sends_burst: of(6, 2000) as u32,
        subscribes_per_second: of(2, 50) as u32,
        subscribes_burst: of(6, 512) as u32,
        message_body: of(64, 65_536),
        id: 1024,
        held: HeldLimits { transactions: of(2, 16), frames: of(4, 1000), bytes: of(200, 262_144) },
        unacknowledged: of(3, 1000),
        connections_per_user: 1,
        outgoing: 1 << 20,
        drain_sends: Duration::from_secs(10),
    }
}

impl Driver {
    pub fn new(wild: bool, high: bool) -> Self {
        let (now, settings) = (Instant::now(), settings(high));
        Self {
            subscriptions: settings.subscriptions,
            machine: Machine::new("s1".into(), Arc::new(settings), METRICS.with(Arc::clone), now, None),
            now,
            wild,
            decoder: Decoder::new(WIDE),
            buffer: BytesMut::new(),
            version: Version::V1_2,
            connecting: false,
            opened: false,
            ended: false,
            ticking: false,
            world: World::default(),
            receipts: Receipts::default(),
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.handle(Input::Received);
        self.buffer.extend_from_slice(bytes);
        self.decode();
    }

    pub fn answer(&mut self, which: usize, how: usize) {
        if let Some(input) = self.world.answer(which, how) {
            self.handle(input);
            self.decode();
        }
    }

    pub fn user_state(&mut self, which: usize, members: Vec<(i64, i64)>) {
        if let Some(input) = self.world.user_state(which, members) {
            self.handle(input);
            self.decode();
        }
    }

    pub fn unasked(&mut self, what: usize, subscription: usize, conversation: usize) {
        if self.wild {
            self.handle(world::unasked(what, subscription, conversation));
        }
    }

    pub fn pass(&mut self, time: usize) {
        self.now += Duration::from_millis(TIMES_MS[time % TIMES_MS.len()]);
        self.tick();
    }

    pub fn pass_to_deadline(&mut self) {
        if let Some(deadline) = self.machine.deadline() {
            self.now = self.now.max(deadline);
            self.tick();
        }
    }

    pub fn happens(&mut self, what: u8) {
        self.handle(match what {
            b'R' => Input::Received,
            b'W' => Input::Wrote,
            b'O' => Input::Overflowed,
            _ => Input::Broken(Disconnect::from(Fault { close_code: 1002, message: "it is broken".into() })),
        });
    }

    pub fn drain(&mut self, time: usize) {
        let at = self.now + Duration::from_millis(TIMES_MS[time % TIMES_MS.len()]);
        self.handle(Input::Drain { at });
    }

    fn tick(&mut self) {
        self.ticking = true;
        self.handle(Input::Tick);
        self.ticking = false;
        if !self.ended {
            let deadline = self.machine.deadline();
            assert!(deadline.is_none_or(|at| at > self.now), "a tick is due right after a tick");
        }
        self.decode();
    }

    /// As the session's task does it: only while the machine wants more. Or not.
    fn decode(&mut self) {
        while !self.ended && (self.wild || self.machine.wants_input()) {
            let input = match self.decoder.decode(&mut self.buffer) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    self.came(&frame);
                    Input::Frame(frame)
                }
                Err(error) => {
                    // The frame at fault may have asked for one.
                    error.receipt.iter().for_each(|id| self.receipts.asked(id, false));
                    Input::Undecodable(error)
                }
            };
            self.handle(input);
        }
    }

    fn came(&mut self, frame: &Frame) {
        let connect = matches!(frame.verb, Verb::Connect | Verb::Stomp);
        if connect
            && !self.connecting
            && let Some(version) = Version::negotiate(frame.headers.get("accept-version"), None)
        {
            (self.connecting, self.version) = (true, version);
        }
        let Some(id) = frame.headers.get("receipt") else { return };
        // What becomes of one within a transaction is decided by how that ends.
        self.receipts.asked(id, !connect && frame.headers.get("transaction").is_none());
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(input, self.now);
        let outputs = self.machine.take_outputs();
        assert!(outputs.len() <= MAX_OUTPUTS, "{} outputs", outputs.len());
        let mut answers = Vec::new();
        for output in outputs {
            assert!(!self.ended, "after the end: {output:?}");
            answers.extend(self.world.asked(&output));
            match output {
                Output::Write(text) => self.written(&text),
                Output::Opened { version, .. } => {
                    assert!(!self.opened, "it was open");
                    self.opened = true;
                    assert_eq!(self.version, version);
                    self.decoder.set_version(version);
                }
                Output::Disconnect(end) => self.disconnected(&end),
                _ => {}
            }
        }
        assert_eq!(self.ended, self.machine.has_ended());
        assert!(self.machine.attached().len() <= self.subscriptions, "too many subscriptions");
        answers.into_iter().for_each(|answer| self.handle(answer));
    }

    fn written(&mut self, text: &str) {
        if text == "\n" {
            return;
        }
        let decoded = stomp_decoder::decode(&[text.as_bytes()], WRITTEN, self.version, false);
        let ([frame], None) = (&decoded.frames[..], &decoded.error) else {
            panic!("{text:?} is read as {decoded:?}");
        };
        let servers = [Verb::Connected, Verb::Message, Verb::Receipt, Verb::Error];
        assert!(servers.contains(&frame.verb), "{text:?}");
        match frame.headers.get("receipt-id") {
            Some(id) => self.receipts.answered(id),
            None => assert_ne!(frame.verb, Verb::Receipt, "{text:?}"),
        }
    }

    fn disconnected(&mut self, end: &Disconnect) {
        self.ended = true;
        if !self.wild && *end == Disconnect::normal() && !self.ticking {
            let missing = self.receipts.missing();
            assert!(missing.is_empty(), "the session ends in order, but these receipts are missing: {missing:?}");
        }
    }

    /// Everything is answered well: no receipt may be missing then.
    pub fn settle(&mut self) {
        if self.wild || !self.opened {
            return;
        }
        let until = self.now + SETTLING;
        while self.now < until {
            if self.ended {
                return;
            }
            if let Some(at) = self.world.requests.iter().position(|request| !request.is_follow()) {
                self.answer(at, 0);
            } else if let Some(at) = self.world.watching.values().position(|told| !told) {
                self.user_state(at, vec![(7, 1)]);
            } else if self.receipts.missing().is_empty() {
                return;
            } else {
                self.handle(Input::Received);
                let due = self.machine.deadline().filter(|at| *at < until);
                assert!(due.is_some(), "nothing is due, but receipts are missing: {:?}", self.receipts.missing());
                self.pass_to_deadline();
            }
        }
        panic!("receipts are missing: {:?}", self.receipts.missing());
    }
}
