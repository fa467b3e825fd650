//! One session of a client, from CONNECTED to its end, planned or not.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use e2e::stomp::{Connected, Frame, Incoming, Reader, Refusal, Writer};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Phase, Told,
    client::{Client, Topic, TopicState, topic_name},
    view::MINE,
};
use crate::history::{ClientRecord, Cursor, Resume, digest};

/// What clients ask of the gateway and give themselves; the gateways of a run are set to agree.
pub const HEART_BEAT: Duration = Duration::from_secs(2);
/// A gateway that is silent for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(6);
/// A write that takes so long is given up, with the connection.
const WRITE_LIMIT: Duration = Duration::from_secs(3);
/// A SEND is answered within the gateway's `session.send_deadline` of 10 s, by a refusal if need be.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Before a SUBSCRIBE that was refused for a reason that passes is sent again.
const SUBSCRIBE_AGAIN: Duration = Duration::from_millis(300);
/// From DISCONNECT to the gateway's close.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Codes that say "later": the request is made again.
const PASSING: [&str; 4] = ["unavailable", "rate_limited", "draining", "internal"];

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By the client, which comes back.
    Away,
    /// Not by the client.
    Cut,
    /// By the client, for good.
    Closed,
}

/// Why a session goes no further.
enum Stop {
    Cut(String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// What a receipt will be for.
enum Pending {
    Send { conversation: i64, client_message_id: String },
    Topic(i64),
    Mine,
    Resume,
    Disconnect,
}

struct Wire {
    writer: Writer,
    reader: Reader,
    pending: HashMap<String, Pending>,
    receipts: u64,
    /// When the next heart-beat is due.
    beat: Instant,
}

impl Wire {
    async fn send(&mut self, frame: Frame, pending: Option<Pending>) -> Result<(), Stop> {
        let mut frame = frame;
        if let Some(pending) = pending {
            self.receipts += 1;
            let id = self.receipts.to_string();
            frame = frame.with("receipt", &id);
            self.pending.insert(id, pending);
        }
        finished(timeout(WRITE_LIMIT, self.writer.send(&frame)).await)
    }

    async fn beat(&mut self) -> Result<(), Stop> {
        self.beat = Instant::now() + HEART_BEAT;
        finished(timeout(WRITE_LIMIT, self.writer.beat()).await)
    }
}

fn finished(written: Result<Result<()>, tokio::time::error::Elapsed>) -> Result<(), Stop> {
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Stop::Cut(format!("{error:#}"))),
        Err(_) => Err(Stop::Cut("could not write".to_owned())),
    }
}

/// `data` of RESUMED.
#[derive(Deserialize)]
struct Resumed {
    conversation_id: String,
    after_seq: i64,
    head: i64,
    epoch: i64,
    user_seq: Option<i64>,
    recovered: bool,
    ended: bool,
    tier: String,
    #[serde(default)]
    skipped: Vec<(i64, i64)>,
}

/// Where in its session a client is.
struct Plan {
    born: Phase,
    ends: Instant,
    next_send: Instant,
    /// DISCONNECT was sent, for this end; the gateway must have closed by then.
    leaving: Option<(End, Instant)>,
}

impl Client {
    /// Says how the session ended, and why, for people.
    pub(super) async fn use_session(
        &mut self,
        connected: Connected,
        told: &mut mpsc::Receiver<Told>,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<(End, String)> {
        self.session += 1;
        self.record(ClientRecord::Connected { session: self.session, gateway: self.gateway_name() })?;
        let Connected { writer, reader, .. } = connected;
        let now = Instant::now();
        let mut wire = Wire { writer, reader, pending: HashMap::new(), receipts: 0, beat: now + HEART_BEAT };
        let mut plan = Plan {
            born: *phase.borrow_and_update(),
            ends: now + self.exponential(self.setting.load.session.as_secs_f64()),
            next_send: now + self.pause(),
            leaving: None,
        };
        let stop = match self.attach(&mut wire).await {
            Ok(()) => self.go_on(&mut wire, &mut plan, told, phase).await,
            Err(stop) => Err(stop),
        };
        match stop {
            Ok(end) => Ok((end, "asked".to_owned())),
            Err(Stop::Cut(why)) => match plan.leaving {
                Some((end, _)) => Ok((end, format!("asked, then {why}"))),
                None => Ok((End::Cut, why)),
            },
            Err(Stop::Failed(error)) => Err(error.context(self.name.clone())),
        }
    }

    /// Subscribes to everything, from where it got to.
    async fn attach(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        let errors = Frame::new("SUBSCRIBE").with("id", "errors").with("destination", "/user/queue/errors");
        wire.send(errors, None).await?;
        let now = Instant::now();
        // One whose membership ended is asked for again only after another join.
        self.topics.retain(|_, topic| topic.state != TopicState::Ended || topic.joined_again);
        for topic in self.topics.values_mut() {
            *topic = Topic { state: TopicState::Due(now), joined_again: false, ..*topic };
        }
        self.mine.attached = false;
        if self.style.mine {
            self.subscribe_to_mine(wire).await?;
        }
        self.subscribe_to_topics(wire).await
    }

    async fn subscribe_to_mine(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        let cursors: Vec<Cursor> = self.mine.cursors.values().copied().collect();
        let user_seq = self.mine.user_seq;
        let known = !cursors.is_empty() || user_seq.is_some();
        self.record(ClientRecord::Subscribed {
            session: self.session,
            subscription: MINE.to_owned(),
            conversation: None,
            resume: known.then(|| Resume { cursors: cursors.clone(), user_seq }),
        })?;
        if known {
            // Several add up.
            let cut = self.rng.random_range(0..=cursors.len());
            for (part, user_seq) in [(&cursors[..cut], None), (&cursors[cut..], user_seq)] {
                let named = part
                    .iter()
                    .map(|one| (one.conversation.to_string(), json!({ "seq": one.seq, "epoch": one.epoch })));
                let mut body = json!({ "conversations": named.collect::<serde_json::Map<_, _>>() });
                if let Some(user_seq) = user_seq {
                    body["user_seq"] = json!(user_seq);
                }
                wire.send(send_frame("/app/resume", &body), Some(Pending::Resume)).await?;
            }
        }
        let frame = Frame::new("SUBSCRIBE").with("id", MINE).with("destination", "/user/queue/events");
        wire.send(frame, Some(Pending::Mine)).await
    }

    async fn subscribe_to_topics(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        let now = Instant::now();
        let due = self.topics.iter_mut().filter(|(_, topic)| matches!(topic.state, TopicState::Due(at) if at <= now));
        let due: Vec<(i64, Option<Cursor>)> = due
            .map(|(id, topic)| {
                topic.state = TopicState::Asked;
                (*id, topic.cursor)
            })
            .collect();
        for (conversation, cursor) in due {
            self.record(ClientRecord::Subscribed {
                session: self.session,
                subscription: topic_name(conversation),
                conversation: Some(conversation),
                resume: cursor.map(|cursor| Resume { cursors: vec![cursor], user_seq: None }),
            })?;
            let mut frame = Frame::new("SUBSCRIBE")
                .with("id", topic_name(conversation))
                .with("destination", format_args!("/topic/conversations/{conversation}"));
            if let Some(cursor) = cursor {
                frame = frame.with("after-seq", cursor.seq).with("after-epoch", cursor.epoch);
            }
            wire.send(frame, Some(Pending::Topic(conversation))).await?;
        }
        Ok(())
    }

    async fn go_on(
        &mut self,
        wire: &mut Wire,
        plan: &mut Plan,
        told: &mut mpsc::Receiver<Told>,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<End, Stop> {
        loop {
            if plan.leaving.is_none() {
                self.write_what_is_due(wire).await?;
            }
            self.show(plan.leaving.is_none());
            let wake = self.next_wake(wire, plan, *phase.borrow());
            tokio::select! {
                incoming = wire.reader.next() => match incoming? {
                    Incoming::Frame { frame, .. } => self.take(wire, &frame)?,
                    Incoming::Closed(closed) => {
                        return match plan.leaving {
                            Some((end, _)) => Ok(end),
                            None => Err(Stop::Cut(format!("closed {:?} {}", closed.code, closed.reason))),
                        };
                    }
                },
                // Never closed before the phase that ends this loop.
                Some(news) = told.recv() => self.hear(news),
                // The run holds the other end for longer than this.
                _ = phase.changed() => {}
                () = sleep_until(wake) => {}
            }
            let (now, phase) = (Instant::now(), *phase.borrow());
            if let Some((_, until)) = plan.leaving {
                if now >= until {
                    return Err(Stop::Cut("the gateway did not close".to_owned()));
                }
            } else if let Some(end) = self.wants_to_leave(plan, phase, now) {
                if end == End::Away && self.rng.random_bool(0.3) && phase == Phase::Use {
                    // As a client that lost its network: without a word.
                    return Ok(end);
                }
                plan.leaving = Some((end, now + LEAVE_LIMIT));
                wire.send(Frame::new("DISCONNECT"), Some(Pending::Disconnect)).await?;
            } else if phase == Phase::Use && now >= plan.next_send {
                self.compose();
                plan.next_send = now + self.pause();
            }
            if now >= wire.beat {
                wire.beat().await?;
            }
            if wire.reader.last_read().elapsed() > SILENCE {
                return Err(Stop::Cut("silent".to_owned()));
            }
            if self.lanes.oldest().is_some_and(|sent| sent.elapsed() > ANSWER_LIMIT) {
                return Err(Stop::Cut("a SEND was not answered".to_owned()));
            }
        }
    }

    fn wants_to_leave(&self, plan: &Plan, phase: Phase, now: Instant) -> Option<End> {
        match phase {
            Phase::Use => (now >= plan.ends).then_some(End::Away),
            Phase::Arrive | Phase::Quiet => None,
            Phase::Again => (plan.born < Phase::Again).then_some(End::Away),
            Phase::Close => Some(End::Closed),
        }
    }

    fn next_wake(&self, wire: &Wire, plan: &Plan, phase: Phase) -> Instant {
        let silent = Instant::from_std(wire.reader.last_read() + SILENCE);
        let mut wake = wire.beat.min(silent);
        if let Some((_, until)) = plan.leaving {
            wake = wake.min(until);
        } else if phase == Phase::Use {
            wake = wake.min(plan.ends).min(plan.next_send);
        }
        let topics = self.topics.values().filter_map(|topic| match topic.state {
            TopicState::Due(at) => Some(at),
            _ => None,
        });
        topics.chain(self.lanes.next_due()).fold(wake, Instant::min)
    }

    async fn write_what_is_due(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        self.subscribe_to_topics(wire).await?;
        for (conversation, outgoing) in self.lanes.take_due(Instant::now()) {
            let (client_message_id, text) = (outgoing.client_message_id, outgoing.text);
            self.sending(conversation, &client_message_id, &text)?;
            let body = json!({ "body": text, "client_message_id": client_message_id });
            let frame = send_frame(&format!("/app/conversations/{conversation}/messages"), &body);
            wire.send(frame, Some(Pending::Send { conversation, client_message_id })).await?;
        }
        Ok(())
    }

    /// Somebody's request has changed this user's memberships.
    fn hear(&mut self, news: Told) {
        match news {
            Told::Joined(conversation) => {
                self.member_of.insert(conversation);
                if !self.style.topics {
                    return;
                }
                let fresh = Topic { cursor: None, state: TopicState::Due(Instant::now()), joined_again: false };
                match self.topics.get_mut(&conversation) {
                    Some(topic) if topic.state == TopicState::Ended => self.subscribe_again(conversation),
                    // Its end may still be on its way.
                    Some(topic) => topic.joined_again = true,
                    None => {
                        self.topics.insert(conversation, fresh);
                    }
                }
            }
            Told::Left(conversation) => {
                self.member_of.remove(&conversation);
                if let Some(topic) = self.topics.get_mut(&conversation) {
                    topic.joined_again = false;
                }
            }
        }
    }

    fn take(&mut self, wire: &mut Wire, frame: &Frame) -> Result<(), Stop> {
        match frame.command.as_str() {
            "RECEIPT" => {
                let pending = frame.header("receipt-id").and_then(|id| wire.pending.remove(id));
                self.answered(pending.context("a RECEIPT for nothing")?, frame)?;
                Ok(())
            }
            "MESSAGE" => match Refusal::of(frame) {
                Some(refusal) => {
                    let pending = frame.header("receipt-id").and_then(|id| wire.pending.remove(id));
                    self.refused(pending, frame, refusal)
                }
                None => Ok(self.event(frame)?),
            },
            "ERROR" => Err(Stop::Cut(format!("error {}", frame.header("code").unwrap_or_default()))),
            other => Err(anyhow!("the gateway sent {other}").into()),
        }
    }

    fn answered(&mut self, pending: Pending, frame: &Frame) -> Result<()> {
        let session = self.session;
        match pending {
            Pending::Send { conversation, client_message_id } => {
                let number = |name| frame.number(name).with_context(|| format!("no {name} in {frame:?}"));
                let (seq, message_id, epoch) = (number("seq")?, number("message")?, number("epoch")?);
                self.lanes.done(conversation, &client_message_id);
                self.record(ClientRecord::Acknowledged {
                    session,
                    conversation,
                    client_message_id,
                    seq,
                    message_id,
                    epoch,
                })
            }
            Pending::Topic(conversation) => {
                if let Some(topic) = self.topics.get_mut(&conversation)
                    && topic.state == TopicState::Asked
                {
                    topic.state = TopicState::Attached;
                }
                self.record(ClientRecord::Attached { session, subscription: topic_name(conversation) })
            }
            Pending::Mine => {
                self.mine.attached = true;
                self.record(ClientRecord::Attached { session, subscription: MINE.to_owned() })
            }
            Pending::Resume | Pending::Disconnect => Ok(()),
        }
    }

    fn refused(&mut self, pending: Option<Pending>, frame: &Frame, refusal: Refusal) -> Result<(), Stop> {
        self.setting.refusals.count(refusal.to_string());
        let (session, code) = (self.session, refusal.code);
        let passes = PASSING.contains(&code.as_str());
        let later = Instant::now() + SUBSCRIBE_AGAIN;
        match pending {
            Some(Pending::Send { conversation, client_message_id }) => {
                if passes {
                    self.lanes.again_later(conversation, &client_message_id, Instant::now());
                } else {
                    self.lanes.done(conversation, &client_message_id);
                }
                self.record(ClientRecord::Refused { session, conversation, client_message_id, code })?;
            }
            Some(Pending::Topic(conversation)) => {
                let subscription = topic_name(conversation);
                self.record(ClientRecord::Unsubscribed { session, subscription, taken_away: false })?;
                match self.topics.get_mut(&conversation) {
                    Some(topic) if passes || topic.joined_again => {
                        *topic = Topic { state: TopicState::Due(later), joined_again: false, ..*topic };
                    }
                    _ => {
                        self.topics.remove(&conversation);
                    }
                }
            }
            Some(Pending::Mine | Pending::Resume) => return Err(Stop::Cut(format!("refused {code}"))),
            Some(Pending::Disconnect) | None => {
                let conversation = frame.number("conversation-id");
                let Some(subscription) = frame.header("subscription-id") else { return Ok(()) };
                let (taken_away, subscription) = (code == "subscription_ended", subscription.to_owned());
                let is_mine = subscription == MINE;
                self.record(ClientRecord::Unsubscribed { session, subscription, taken_away })?;
                if is_mine {
                    return Err(Stop::Cut(format!("{code} of everything")));
                }
                let Some(conversation) = conversation else { return Ok(()) };
                self.topic_ended(conversation);
            }
        }
        Ok(())
    }

    /// The membership is over, and the gateway has taken the subscription away.
    fn topic_ended(&mut self, conversation: i64) {
        match self.topics.get_mut(&conversation) {
            Some(topic) if topic.joined_again => self.subscribe_again(conversation),
            Some(topic) => topic.state = TopicState::Ended,
            None => {}
        }
    }

    /// After another join: as a new member, or from where the last membership ended.
    fn subscribe_again(&mut self, conversation: i64) {
        let from_its_end = self.rng.random_bool(0.5);
        if let Some(topic) = self.topics.get_mut(&conversation) {
            let cursor = topic.cursor.filter(|_| from_its_end);
            *topic = Topic { cursor, state: TopicState::Due(Instant::now()), joined_again: false };
        }
    }

    fn event(&mut self, frame: &Frame) -> Result<()> {
        let subscription = frame.header("subscription").context("a MESSAGE without subscription")?.to_owned();
        let event_type = frame.header("event-type").context("an event without a type")?;
        if event_type == "RESUMED" {
            let mut body = frame.json();
            let resumed: Resumed = serde_json::from_value(body["data"].take())
                .with_context(|| format!("a RESUMED: {}", Value::to_string(&body)))?;
            return self.resumed(subscription, resumed);
        }
        let (Some(conversation), Some(seq)) = (frame.number("conversation-id"), frame.number("seq")) else {
            return Ok(());
        };
        let epoch = frame.number("epoch").context("a sequenced event without epoch")?;
        let cursor = Cursor { conversation, seq, epoch };
        if subscription == MINE {
            self.mine.cursors.insert(conversation, cursor);
        } else if let Some(topic) = self.topics.get_mut(&conversation) {
            topic.cursor = Some(cursor);
        }
        self.record(ClientRecord::Message {
            session: self.session,
            subscription,
            conversation,
            seq,
            epoch,
            event_type: event_type.to_owned(),
            event_id: frame.header("event-id").context("an event without id")?.to_owned(),
            body: digest(&frame.body),
        })
    }

    fn resumed(&mut self, subscription: String, resumed: Resumed) -> Result<()> {
        let Resumed { after_seq, head, epoch, user_seq, recovered, ended, tier, skipped, .. } = resumed;
        let conversation: i64 = resumed.conversation_id.parse().context("the conversation of a RESUMED")?;
        let cursor = Cursor { conversation, seq: after_seq, epoch };
        if subscription == MINE {
            self.mine.user_seq = self.mine.user_seq.max(user_seq);
            if ended {
                self.mine.cursors.remove(&conversation);
            } else {
                self.mine.cursors.insert(conversation, cursor);
            }
        } else if ended {
            self.topic_ended(conversation);
        } else if let Some(topic) = self.topics.get_mut(&conversation) {
            topic.cursor = Some(cursor);
        }
        self.record(ClientRecord::Resumed {
            session: self.session,
            subscription,
            conversation,
            after_seq,
            head,
            epoch,
            user_seq,
            recovered,
            ended,
            tier,
            skipped,
        })
    }
}

fn send_frame(destination: &str, body: &Value) -> Frame {
    Frame::new("SEND")
        .with("destination", destination)
        .with("content-type", "application/json")
        .with_body(body.to_string())
}
