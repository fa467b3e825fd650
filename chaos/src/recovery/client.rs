//! One client: it subscribes to its room, sends what it is given, and comes back when its connection is gone.
//!
//! It does what `docs/protocol.md` asks of a client: it remembers `seq` and `epoch` of the last event, resumes with
//! them on whatever gateway it gets, and sends what has no answer again under its first `client_message_id`.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::stomp::{Connected, Frame, Incoming, Options, Refusal, Writer, connect};
use serde_json::json;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::ledger::Ledger;
use crate::{history::Cursor, workload::Lanes};

/// A gateway that gives no CONNECTED by then is left for another.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Between tries to connect, in ms.
const BACK_OFF: std::ops::Range<u64> = 50..400;
/// A SEND is answered within the gateway's `session.send_deadline` of 10 s, by a refusal if need be.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Before a SUBSCRIBE that was refused for a reason that passes is sent again.
const SUBSCRIBE_AGAIN: Duration = Duration::from_millis(300);
/// The receipt of SUBSCRIBE; those of SENDs are numbers.
const SUBSCRIBED: &str = "subscribed";
/// Codes that say "later".
const PASSING: [&str; 4] = ["unavailable", "rate_limited", "draining", "internal"];
/// Where clients come from, and how many from each address: a gateway has a limit for each.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const PER_ADDRESS: usize = 500;

/// What all clients share.
#[derive(Debug)]
pub struct Shared {
    /// WebSocket addresses.
    pub gateways: Vec<String>,
    pub ledger: Arc<Ledger>,
    /// For connections that nothing has cut: the first one, and those of clients that go home.
    pub calmly: Semaphore,
}

pub struct Client {
    pub shared: Arc<Shared>,
    /// Its number among all clients.
    pub seat: usize,
    pub token: String,
    pub conversation: i64,
    /// The gateway that it goes to first, and when it is told to.
    pub home: usize,
    pub go_home: watch::Receiver<u32>,
    /// Numbers of messages to send.
    pub work: mpsc::Receiver<usize>,
    pub state: State,
}

/// What it remembers over all its sessions.
#[derive(Debug, Default)]
pub struct State {
    cursor: Option<Cursor>,
    lanes: Lanes,
    subscribe_at: Option<Instant>,
}

/// How a session ended.
enum End {
    Cut,
    Home,
}

impl Client {
    /// Never ends by itself.
    pub async fn run(mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let (mut gateway, mut going_home) = (self.home, true);
        loop {
            let permit = match going_home {
                true => Some(shared.calmly.acquire().await.context("nobody closes it")?),
                false => None,
            };
            let connected = self.connect(&mut gateway, going_home).await;
            drop(permit);
            let end = self.session(connected, gateway).await.with_context(|| format!("client {}", self.seat))?;
            self.shared.ledger.sit(self.seat, None);
            self.state.lanes.forget_connection();
            (gateway, going_home) = match end {
                End::Home => (self.home, true),
                End::Cut => (self.another(gateway), false),
            };
        }
    }

    /// Any other gateway, so that those of one that is gone spread.
    fn another(&self, gateway: usize) -> usize {
        let count = self.shared.gateways.len();
        (gateway + 1 + self.seat % (count - 1).max(1)) % count
    }

    /// A session at that gateway, or at another if that is not to be had and no other is wanted.
    async fn connect(&self, gateway: &mut usize, no_other: bool) -> Connected {
        let from = Ipv4Addr::from(u32::from(FIRST_ADDRESS) + (self.seat / PER_ADDRESS) as u32);
        let options = Options { from: Some(from), ..Options::new(&self.token) };
        loop {
            let url = &self.shared.gateways[*gateway];
            if let Ok(Ok(connected)) = timeout(CONNECT_LIMIT, connect(url, &options)).await {
                return connected;
            }
            if !no_other {
                *gateway = self.another(*gateway);
            }
            sleep(Duration::from_millis(rand::random_range(BACK_OFF))).await;
        }
    }

    async fn session(&mut self, connected: Connected, gateway: usize) -> Result<End> {
        let Connected { mut writer, mut reader, .. } = connected;
        let errors = Frame::new("SUBSCRIBE").with("id", "errors").with("destination", "/user/queue/errors");
        if writer.send(&errors).await.is_err() {
            return Ok(End::Cut);
        }
        self.state.subscribe_at = Some(Instant::now());
        loop {
            if self.write_what_is_due(&mut writer).await.is_err() {
                return Ok(End::Cut);
            }
            let wake = self.next_wake();
            tokio::select! {
                incoming = reader.next() => match incoming? {
                    Incoming::Frame { frame, .. } => {
                        if !self.take(&frame, gateway)? {
                            return Ok(End::Cut);
                        }
                    }
                    Incoming::Closed(_) => return Ok(End::Cut),
                },
                Some(message) = self.work.recv() => {
                    let text = format!("{message:x<128}");
                    self.state.lanes.add(self.conversation, message.to_string(), text);
                }
                told = self.go_home.changed() => {
                    told?;
                    return Ok(End::Home);
                }
                () = sleep_until(wake) => {}
            }
            if self.state.lanes.oldest().is_some_and(|sent| sent.elapsed() > ANSWER_LIMIT) {
                self.shared.ledger.put_off("no answer");
                return Ok(End::Cut);
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let answer = self.state.lanes.oldest().map(|sent| sent + ANSWER_LIMIT);
        let wakes = [self.state.subscribe_at, self.state.lanes.next_due(), answer];
        wakes.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + ANSWER_LIMIT)
    }

    async fn write_what_is_due(&mut self, writer: &mut Writer) -> Result<()> {
        let now = Instant::now();
        if self.state.subscribe_at.is_some_and(|at| at <= now) {
            self.state.subscribe_at = None;
            let mut frame = Frame::new("SUBSCRIBE")
                .with("id", "room")
                .with("destination", format_args!("/topic/conversations/{}", self.conversation))
                .with("receipt", SUBSCRIBED);
            if let Some(cursor) = self.state.cursor {
                frame = frame.with("after-seq", cursor.seq).with("after-epoch", cursor.epoch);
            }
            writer.send(&frame).await?;
        }
        for (conversation, outgoing) in self.state.lanes.take_due(now) {
            let body = json!({ "body": outgoing.text, "client_message_id": outgoing.client_message_id });
            let frame = Frame::new("SEND")
                .with("destination", format_args!("/app/conversations/{conversation}/messages"))
                .with("content-type", "application/json")
                .with("receipt", &outgoing.client_message_id)
                .with_body(body.to_string());
            writer.send(&frame).await?;
        }
        Ok(())
    }

    /// `false`: the gateway has ended the session.
    fn take(&mut self, frame: &Frame, gateway: usize) -> Result<bool> {
        match (frame.command.as_str(), Refusal::of(frame)) {
            ("RECEIPT", _) => {
                let id = frame.header("receipt-id").context("a RECEIPT without receipt-id")?;
                if id == SUBSCRIBED {
                    self.shared.ledger.sit(self.seat, Some(gateway));
                } else {
                    let seq = frame.number("seq").with_context(|| format!("no seq in {frame:?}"))?;
                    self.shared.ledger.answered(id.parse()?, seq);
                    self.state.lanes.done(self.conversation, id);
                }
            }
            ("MESSAGE", None) => self.event(frame)?,
            ("MESSAGE", Some(refusal)) => self.refused(frame, &refusal)?,
            ("ERROR", _) => return Ok(false),
            (other, _) => bail!("the gateway sent {other}"),
        }
        Ok(true)
    }

    fn refused(&mut self, frame: &Frame, refusal: &Refusal) -> Result<()> {
        let id = frame.header("receipt-id").with_context(|| format!("refused, but what? {frame:?}"))?;
        let passes = PASSING.contains(&refusal.code.as_str());
        if id == SUBSCRIBED {
            ensure!(passes, "the subscription was refused: {refusal}");
            self.state.subscribe_at = Some(Instant::now() + SUBSCRIBE_AGAIN);
        } else if passes {
            self.state.lanes.again_later(self.conversation, id, Instant::now());
        } else {
            self.state.lanes.done(self.conversation, id);
            self.shared.ledger.complain(|faults| &mut faults.refused, format!("message {id} was refused: {refusal}"));
        }
        self.shared.ledger.put_off(&refusal.code);
        Ok(())
    }

    fn event(&mut self, frame: &Frame) -> Result<()> {
        let (ledger, seat) = (&self.shared.ledger, self.seat);
        let epoch = frame.number("epoch").with_context(|| format!("no epoch in {frame:?}"))?;
        let conversation = self.conversation;
        if frame.header("event-type") == Some("RESUMED") {
            let body = frame.json();
            let data = &body["data"];
            let after = data["after_seq"].as_i64().with_context(|| format!("no after_seq in {body}"))?;
            let asked = self.state.cursor.map(|cursor| cursor.seq);
            if data["recovered"] != json!(true) || asked.is_some_and(|asked| asked != after) {
                let text = format!("client {seat} resumed after {asked:?} and was told {body}");
                ledger.complain(|faults| &mut faults.not_recovered, text);
            }
            self.state.cursor = Some(Cursor { conversation, seq: after, epoch });
            return Ok(());
        }
        let Some(seq) = frame.number("seq") else { return Ok(()) };
        let before = self.state.cursor.context("an event before RESUMED")?.seq;
        if seq <= before {
            let text = format!("client {seat} got {seq} of {conversation} after {before}");
            ledger.complain(|faults| &mut faults.duplicates, text);
            return Ok(());
        }
        if seq > before + 1 {
            let text = format!("client {seat} got {seq} of {conversation} after {before}");
            ledger.complain(|faults| &mut faults.gaps, text);
        }
        self.state.cursor = Some(Cursor { conversation, seq, epoch });
        if frame.header("event-type") == Some("MESSAGE") {
            let body = frame.json();
            let id = body["data"]["client_message_id"].as_str().and_then(|id| id.parse().ok());
            ledger.delivered(id.with_context(|| format!("whose message is {body}?"))?, seq);
        }
        Ok(())
    }
}
