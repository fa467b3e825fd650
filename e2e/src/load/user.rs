//! One user of a run: a task that sends on schedule and one that reads.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::{Arc, atomic::Ordering},
};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Plan, Subscribe, clock::Clock, crowd::Crowd, tally::Tally};
use crate::stomp::{Client, Frame, Incoming, Reader, Receipt, Refusal, Writer};

/// Users that connect at the same time.
const CONCURRENTLY: usize = 8;

/// A connected user.
pub struct User {
    number: usize,
    client: Client,
}

/// Something that a user's subscriptions brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub user: usize,
    pub conversation: i64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Delivery starts behind this seq.
    Opened { after: i64 },
    /// An event; the message's number when it is one of this run.
    Event { seq: i64, message: Option<usize>, read_us: i64 },
}

/// Connects everybody and subscribes.
pub async fn connect_all(crowd: &Crowd, plan: &Plan) -> Result<Vec<User>> {
    stream::iter(0..crowd.sessions.len())
        .map(|number| connect(crowd, plan, number))
        .buffered(CONCURRENTLY)
        .try_collect()
        .await
}

async fn connect(crowd: &Crowd, plan: &Plan, number: usize) -> Result<User> {
    let session = &crowd.sessions[number];
    let gateway = &crowd.gateways[crowd.gateway_of(number)];
    let subscribed = async {
        let mut client = Client::connect(gateway, &session.token).await?;
        client.subscribe("/user/queue/errors").await?;
        match plan.subscribe {
            Subscribe::Queue => {
                client.subscribe("/user/queue/events").await?;
            }
            Subscribe::Topic => {
                for room in plan.rooms_of(number) {
                    client.subscribe(&format!("/topic/conversations/{}", crowd.rooms[room].id)).await?;
                }
            }
        }
        anyhow::Ok(client)
    };
    let client = subscribed.await.with_context(|| format!("{} at {gateway}", session.username))?;
    Ok(User { number, client })
}

impl User {
    /// The two tasks: the first ends when its part of the schedule is sent, the second when it is told to.
    pub fn into_tasks(
        self,
        crowd: &Arc<Crowd>,
        plan: &Plan,
        clock: &Clock,
        tally: &Arc<Tally>,
    ) -> (impl Future<Output = ()> + use<>, Receiver) {
        let Self { number, client } = self;
        let (writer, reader, early) = client.split();
        let mine = (0..plan.messages()).filter(|k| crowd.turn(*k).1 == number);
        let schedule: Vec<_> = mine.map(|k| (k, Instant::from_std(clock.start()) + plan.due(k))).collect();
        let receiver = Receiver {
            number,
            reader,
            early,
            crowd: Arc::clone(crowd),
            tally: Arc::clone(tally),
            clock: *clock,
            members: crowd.rooms.iter().map(|room| (room.id, room.members.len())).collect(),
            arrivals: Vec::new(),
        };
        let (crowd, tally, clock, size) = (Arc::clone(crowd), Arc::clone(tally), *clock, plan.size);
        let sending = async move {
            if let Err(error) = send(writer, schedule, &crowd, &tally, &clock, size).await {
                tally.complain(format!("{}: {error:#}", crowd.sessions[number].username));
            }
        };
        (sending, receiver)
    }
}

/// Sends this user's part of the schedule. The writer stays open until all is sent.
async fn send(
    mut writer: Writer,
    schedule: Vec<(usize, Instant)>,
    crowd: &Crowd,
    tally: &Tally,
    clock: &Clock,
    size: usize,
) -> Result<()> {
    let text: String = "switchboard ".chars().cycle().take(size).collect();
    for (k, due) in schedule {
        let room = &crowd.rooms[crowd.turn(k).0];
        let body = serde_json::json!({ "body": text, "client_message_id": crowd.tag(k) });
        let frame = Frame::new("SEND")
            .with("destination", format_args!("/app/conversations/{}/messages", room.id))
            .with("content-type", "application/json")
            .with("receipt", k)
            .with_body(body.to_string());
        sleep_until(due).await;
        tally.sent_us[k].store(clock.now_us(), Ordering::Relaxed);
        tally.sent.fetch_add(1, Ordering::Relaxed);
        writer.send(&frame).await?;
    }
    Ok(())
}

/// The reading half.
pub struct Receiver {
    number: usize,
    reader: Reader,
    early: VecDeque<Frame>,
    crowd: Arc<Crowd>,
    tally: Arc<Tally>,
    clock: Clock,
    /// Members of each conversation of this run.
    members: HashMap<i64, usize>,
    arrivals: Vec<Arrival>,
}

impl Receiver {
    /// Reads until it is told to stop or the connection ends, and gives what came.
    pub async fn run(mut self, stop: CancellationToken) -> Vec<Arrival> {
        let now = std::time::Instant::now();
        for frame in std::mem::take(&mut self.early) {
            self.take(&frame, self.clock.us(now));
        }
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => return self.arrivals,
                incoming = self.reader.next() => incoming,
            };
            let ended = match incoming {
                Ok(Incoming::Frame { frame, read_at }) => {
                    self.take(&frame, self.clock.us(read_at));
                    continue;
                }
                Ok(Incoming::Closed(closed)) => format!("the gateway closed ({:?}) {}", closed.code, closed.reason),
                Err(error) => format!("{error:#}"),
            };
            self.tally.complain(format!("{}: {ended}", self.crowd.sessions[self.number].username));
            return self.arrivals;
        }
    }

    fn take(&mut self, frame: &Frame, read_us: i64) {
        if let Some(refusal) = Refusal::of(frame) {
            self.tally.refused.fetch_add(1, Ordering::Relaxed);
            self.tally.complain(format!("{}: {refusal}", self.crowd.sessions[self.number].username));
        } else if frame.command == "RECEIPT" {
            self.acknowledged(frame, read_us);
        } else if frame.command == "MESSAGE" {
            self.delivered(frame, read_us);
        }
    }

    fn acknowledged(&mut self, frame: &Frame, read_us: i64) {
        let number = frame.header("receipt-id").and_then(|id| id.parse::<usize>().ok());
        let Some((k, receipt)) = number.zip(Receipt::of(frame).ok()) else { return };
        self.tally.acknowledged_us[k].store(read_us, Ordering::Relaxed);
        self.tally.seqs[k].store(receipt.seq, Ordering::Relaxed);
        let members = self.members.get(&receipt.conversation_id).copied().unwrap_or_default();
        self.tally.expected.fetch_add(members, Ordering::Relaxed);
        self.tally.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn delivered(&mut self, frame: &Frame, read_us: i64) {
        let resumed = frame.header("event-type") == Some("RESUMED");
        let body: Body = serde_json::from_slice(&frame.body).unwrap_or_default();
        let conversation = frame.number("conversation-id").or_else(|| body.data.conversation_id.as_ref()?.parse().ok());
        let Some(conversation) = conversation.filter(|id| self.members.contains_key(id)) else { return };
        let what = if resumed {
            What::Opened { after: body.data.after_seq }
        } else {
            let Some(seq) = frame.number("seq") else { return };
            let message = body.data.client_message_id.and_then(|tag| self.crowd.number(&tag));
            if message.is_some() {
                self.tally.delivered.fetch_add(1, Ordering::Relaxed);
            }
            What::Event { seq, message, read_us }
        };
        self.arrivals.push(Arrival { user: self.number, conversation, what });
    }
}

/// As much of the envelope as the verdict needs.
#[derive(Debug, Default, Deserialize)]
struct Body {
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    client_message_id: Option<String>,
    conversation_id: Option<String>,
    after_seq: i64,
}
