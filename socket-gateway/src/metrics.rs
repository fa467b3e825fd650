//! What this gateway counts; `GET /metrics` on the admin listener.

use std::sync::atomic::AtomicU64;

use chassis::hops::HopRing;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use proto::{Code, event::Tier, hops::DeliveryHop};

use crate::{hub::Stamp, stomp::Verb};

type Label = [(&'static str, &'static str); 1];
type ByLabel = Family<Label, Counter>;

/// Why an event was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// At or below the position.
    Duplicate,
    OldEpoch,
    /// No room to wait for a gap: it is read again.
    PendingFull,
    /// Unsequenced, for a client that is slow.
    QueueFull,
    /// For a conversation that nobody here follows.
    NotServed,
    /// Not to be read, or not to be delivered as text.
    Malformed,
}

/// Cheap to share; all counters are atomics.
#[derive(Debug)]
pub struct Metrics {
    pub connections: Gauge,
    pub connections_refused: Counter,
    pub sessions: Gauge,
    pub subscriptions: Gauge,
    pub frames_in: ByLabel,
    /// Of sessions themselves; MESSAGE frames of events are `deliveries` and `replayed`.
    pub frames_out: ByLabel,
    pub bytes_out: Counter,
    /// RESUMED events, by tier.
    pub resumed: ByLabel,
    /// Messages that clients could not handle.
    pub nacks: Counter,
    pub closes: Family<[(&'static str, u16); 1], Counter>,
    pub refusals: ByLabel,
    pub deliveries: Counter,
    replayed_ring: Counter,
    replayed_log: Counter,
    /// Of the event log, for those who come back.
    pub log_pages: Counter,
    /// Times that one was used by one more, without being read again.
    pub log_pages_shared: Counter,
    dropped: ByLabel,
    pub gaps: Counter,
    pub fills_log: Counter,
    pub phantoms: Counter,
    /// Skips over what the log no longer held.
    pub lost: Counter,
    pub resets: Counter,
    pub conversations: Gauge,
    pub users: Gauge,
    pub incarnations: Counter,
    pub stream_entries: Counter,
    pub sends_in_flight: Gauge,
    /// By the core's place in `core.endpoints`.
    breaker_openings: Family<[(&'static str, usize); 1], Counter>,
    pub queued_bytes: Gauge<i64>,
    /// From the broker's append to the subscribers' queues.
    pub delivery_seconds: Histogram,
    hops: HopRing<DeliveryHop>,
}

impl Metrics {
    pub fn new(hops: HopRing<DeliveryHop>) -> Self {
        Self {
            connections: Gauge::<i64>::default(),
            connections_refused: Counter::default(),
            sessions: Gauge::<i64>::default(),
            subscriptions: Gauge::<i64>::default(),
            frames_in: Family::default(),
            frames_out: Family::default(),
            bytes_out: Counter::default(),
            resumed: Family::default(),
            nacks: Counter::default(),
            closes: Family::default(),
            refusals: Family::default(),
            deliveries: Counter::<u64, AtomicU64>::default(),
            replayed_ring: Counter::default(),
            replayed_log: Counter::default(),
            log_pages: Counter::default(),
            log_pages_shared: Counter::default(),
            dropped: Family::default(),
            gaps: Counter::default(),
            fills_log: Counter::default(),
            phantoms: Counter::default(),
            lost: Counter::default(),
            resets: Counter::default(),
            conversations: Gauge::<i64>::default(),
            users: Gauge::<i64>::default(),
            incarnations: Counter::default(),
            stream_entries: Counter::default(),
            sends_in_flight: Gauge::<i64>::default(),
            breaker_openings: Family::default(),
            queued_bytes: Gauge::default(),
            delivery_seconds: Histogram::new([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]),
            hops,
        }
    }

    /// All of them under the prefix `gateway_`.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("gateway");
        let r = &mut registry;
        r.register("connections", "WebSockets that are open", self.connections.clone());
        r.register("connections_refused", "Upgrades answered with 503", self.connections_refused.clone());
        r.register("sessions", "Connections after CONNECTED", self.sessions.clone());
        r.register("subscriptions", "Subscriptions of all sessions", self.subscriptions.clone());
        r.register("frames_in", "Frames of clients, by command", self.frames_in.clone());
        let help = "Frames of sessions themselves, by command; events are deliveries and replayed";
        r.register("frames_out", help, self.frames_out.clone());
        r.register("bytes_out", "Bytes of frames given to sockets", self.bytes_out.clone());
        r.register("queued_bytes", "Bytes that wait for clients that are slow to read", self.queued_bytes.clone());
        r.register("resumed", "Subscriptions attached to a conversation, by tier", self.resumed.clone());
        r.register("nacks", "NACKs of messages", self.nacks.clone());
        r.register("closes", "Connections ended by this gateway, by close code", self.closes.clone());
        r.register("refusals", "Refusals and ERROR frames, by code", self.refusals.clone());
        r.register("deliveries", "Live MESSAGE frames queued for sessions", self.deliveries.clone());
        let help = "Replayed MESSAGE frames queued for sessions, from the ring";
        r.register("replayed_ring", help, self.replayed_ring.clone());
        let help = "Replayed MESSAGE frames queued for sessions, from the event log";
        r.register("replayed_log", help, self.replayed_log.clone());
        r.register("log_pages", "Pages of the event log read for clients that come back", self.log_pages.clone());
        let help = "Times that such a page was used by one more client, without being read again";
        r.register("log_pages_shared", help, self.log_pages_shared.clone());
        r.register("dropped", "Events not delivered, by reason", self.dropped.clone());
        r.register("gaps", "Gaps found in the live events of a conversation", self.gaps.clone());
        r.register("fills_log", "Pages of the event log read to fill gaps", self.fills_log.clone());
        r.register("phantoms", "Records above a head read after they came", self.phantoms.clone());
        r.register("lost", "Times that delivery went on behind what the log no longer held", self.lost.clone());
        r.register("resets", "Conversations started over: newer epoch, or a head that went back", self.resets.clone());
        r.register("conversations", "Conversations served", self.conversations.clone());
        r.register("users", "Users whose memberships are followed", self.users.clone());
        r.register("incarnations", "Incarnations taken", self.incarnations.clone());
        r.register("stream_entries", "Entries read from the stream", self.stream_entries.clone());
        r.register("sends_in_flight", "SENDs given to core and not answered", self.sends_in_flight.clone());
        let help = "Times that a core did not answer and was not asked for a while, by its place in core.endpoints";
        r.register("breaker_openings", help, self.breaker_openings.clone());
        let help = "From the broker's append to the subscribers' queues";
        r.register("delivery_seconds", help, self.delivery_seconds.clone());
        registry
    }

    pub fn frame_in(&self, verb: Verb) {
        self.frames_in.get_or_create(&[("command", verb.as_str())]).inc();
    }

    pub fn frame_out(&self, frame: &str) {
        let verb = frame.lines().next().and_then(|line| Verb::ALL.iter().find(|verb| verb.as_str() == line));
        self.frames_out.get_or_create(&[("command", verb.map_or("heart-beat", |verb| verb.as_str()))]).inc();
    }

    pub fn resumed_from(&self, tier: Tier) {
        let tier = match tier {
            Tier::Live => "live",
            Tier::Ring => "ring",
            Tier::Log => "log",
        };
        self.resumed.get_or_create(&[("tier", tier)]).inc();
    }

    pub fn replayed_from(&self, tier: Tier) {
        match tier {
            Tier::Log => self.replayed_log.inc(),
            Tier::Live | Tier::Ring => self.replayed_ring.inc(),
        };
    }

    pub fn refused(&self, code: Code) {
        self.refusals.get_or_create(&[("code", code.as_str())]).inc();
    }

    pub fn closed(&self, close_code: u16) {
        self.closes.get_or_create(&[("close_code", close_code)]).inc();
    }

    pub fn breaker_opened(&self, core: usize) {
        self.breaker_openings.get_or_create(&[("core", core)]).inc();
    }

    pub fn dropped(&self, why: Dropped) {
        let why = match why {
            Dropped::Duplicate => "duplicate",
            Dropped::OldEpoch => "old_epoch",
            Dropped::PendingFull => "pending_full",
            Dropped::QueueFull => "queue_full",
            Dropped::NotServed => "not_served",
            Dropped::Malformed => "malformed",
        };
        self.dropped.get_or_create(&[("reason", why)]).inc();
    }

    /// A live event is in the queues of its subscribers.
    pub fn delivered(&self, conversation_id: i64, seq: i64, stamp: Stamp) {
        let queued_us = chassis::now_us();
        let Stamp { kafka_ms, worker_us, redis_ms, read_us } = stamp;
        self.delivery_seconds.observe((queued_us - kafka_ms * 1000).max(0) as f64 / 1e6);
        self.hops.push(DeliveryHop { conversation_id, seq, kafka_ms, worker_us, redis_ms, read_us, queued_us });
    }
}
