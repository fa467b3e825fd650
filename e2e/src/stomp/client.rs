//! A client for straight-line code: it waits for what it asked for and keeps the rest.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::time::timeout_at;

use super::{
    connection::{Closed, Connected, Incoming, Options, Reader, Writer, connect},
    frame::Frame,
};

/// How long an answer may take before the wait for it fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// The RECEIPT of a SEND: the message is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub conversation_id: i64,
    pub seq: i64,
    pub epoch: i64,
    /// The id of the message.
    pub message: i64,
    /// `<conversation>-<seq>`.
    pub message_id: String,
}

/// A refusal on `/user/queue/errors`, or an ERROR frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    pub code: String,
    pub message: String,
    /// It was an ERROR: the connection ends.
    pub fatal: bool,
}

/// A session at one gateway.
pub struct Client {
    writer: Writer,
    reader: Reader,
    connected: Frame,
    /// Frames that came while another was waited for, oldest first.
    inbox: VecDeque<Frame>,
    next_id: u64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("session", &self.connected.header("session")).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the gateway at `url` (`ws://…/ws`).
    pub async fn connect(url: &str, token: &str) -> Result<Self> {
        Self::connect_with(url, &Options::new(token)).await
    }

    pub async fn connect_with(url: &str, options: &Options) -> Result<Self> {
        Ok(Self::from(connect(url, options).await?))
    }

    /// The CONNECTED frame.
    pub fn connected(&self) -> &Frame {
        &self.connected
    }

    /// The two halves, for use from two tasks, and the frames that came and were not asked for yet.
    pub fn split(self) -> (Writer, Reader, VecDeque<Frame>) {
        (self.writer, self.reader, self.inbox)
    }

    /// An id for a receipt or subscription that this client has not used yet.
    pub fn fresh_id(&mut self) -> String {
        self.next_id += 1;
        self.next_id.to_string()
    }

    /// Writes a frame, without waiting for anything.
    pub async fn write(&mut self, frame: &Frame) -> Result<()> {
        self.writer.send(frame).await
    }

    /// Writes bytes that may be no frame.
    pub async fn write_raw(&mut self, text: &str) -> Result<()> {
        self.writer.send_raw(text).await
    }

    /// Writes a frame with a `receipt` header and waits for the RECEIPT.
    ///
    /// # Errors
    /// A [`Refusal`] when the gateway refused it.
    pub async fn request(&mut self, frame: Frame) -> Result<Frame> {
        let id = self.fresh_id();
        self.write(&frame.with("receipt", &id)).await?;
        self.receipt(&id).await
    }

    /// Waits for the RECEIPT with that id.
    pub async fn receipt(&mut self, id: &str) -> Result<Frame> {
        let frame = self.wait(&format!("a RECEIPT {id}"), |frame| answers(frame, id)).await?;
        match Refusal::of(&frame) {
            Some(refusal) => Err(anyhow!(refusal)),
            None => Ok(frame),
        }
    }

    /// Subscribes and waits for the RECEIPT; gives the subscription's id.
    pub async fn subscribe(&mut self, destination: &str) -> Result<String> {
        self.subscribe_with(destination, &[]).await
    }

    /// [`subscribe`](Self::subscribe) with more headers.
    pub async fn subscribe_with(&mut self, destination: &str, headers: &[(&str, String)]) -> Result<String> {
        let id = format!("sub-{}", self.fresh_id());
        let mut frame = Frame::new("SUBSCRIBE").with("id", &id).with("destination", destination);
        for (name, value) in headers {
            frame = frame.with(name, value);
        }
        self.request(frame).await?;
        Ok(id)
    }

    /// Sends a text to a conversation and waits until it is committed.
    pub async fn say(&mut self, conversation: i64, text: &str) -> Result<Receipt> {
        self.send_message(conversation, &serde_json::json!({ "body": text })).await
    }

    /// Sends a message with this body and waits until it is committed.
    pub async fn send_message(&mut self, conversation: i64, body: &serde_json::Value) -> Result<Receipt> {
        let frame = Frame::new("SEND")
            .with("destination", format_args!("/app/conversations/{conversation}/messages"))
            .with("content-type", "application/json")
            .with_body(body.to_string());
        Receipt::of(&self.request(frame).await?)
    }

    /// The next MESSAGE that is no refusal, in the order of arrival.
    pub async fn message(&mut self) -> Result<Frame> {
        self.message_where("a MESSAGE", |_| true).await
    }

    /// The next MESSAGE with that `event-type`.
    pub async fn event(&mut self, event_type: &str) -> Result<Frame> {
        self.message_where(event_type, |frame| frame.header("event-type") == Some(event_type)).await
    }

    /// The next MESSAGE that fits, in the order of arrival; others stay for later.
    pub async fn message_where(&mut self, what: &str, fits: impl Fn(&Frame) -> bool) -> Result<Frame> {
        self.wait(what, |frame| frame.command == "MESSAGE" && Refusal::of(frame).is_none() && fits(frame)).await
    }

    /// The next refusal or ERROR.
    pub async fn refusal(&mut self) -> Result<Refusal> {
        let frame = self.wait("a refusal", |frame| Refusal::of(frame).is_some()).await?;
        Ok(Refusal::of(&frame).expect("that was waited for"))
    }

    /// Every MESSAGE that has come so far, seen through by a round trip: nothing that the gateway wrote before this
    /// call is left out.
    pub async fn messages_so_far(&mut self) -> Result<Vec<Frame>> {
        let destination = "/user/queue/errors";
        let frame = Frame::new("SUBSCRIBE").with("id", "round-trip").with("destination", destination);
        self.request(frame).await?;
        self.request(Frame::new("UNSUBSCRIBE").with("id", "round-trip")).await?;
        Ok(self.inbox.drain(..).filter(|frame| frame.command == "MESSAGE").collect())
    }

    /// Leaves in order: DISCONNECT, its RECEIPT, then the server's close.
    pub async fn disconnect(mut self) -> Result<()> {
        self.request(Frame::new("DISCONNECT")).await?;
        self.closed().await?;
        Ok(())
    }

    /// Waits until the server closes.
    pub async fn closed(&mut self) -> Result<Closed> {
        let until = tokio::time::Instant::now() + DEADLINE;
        loop {
            match timeout_at(until, self.reader.next()).await.context("the gateway did not close in time")?? {
                Incoming::Closed(closed) => return Ok(closed),
                Incoming::Frame { frame, .. } => self.inbox.push_back(frame),
            }
        }
    }

    async fn wait(&mut self, what: &str, fits: impl Fn(&Frame) -> bool) -> Result<Frame> {
        if let Some(at) = self.inbox.iter().position(&fits) {
            return Ok(self.inbox.remove(at).expect("the position was just found"));
        }
        let started = Instant::now();
        let until = tokio::time::Instant::now() + DEADLINE;
        loop {
            let incoming = timeout_at(until, self.reader.next())
                .await
                .with_context(|| format!("{what} did not come within {:?}", started.elapsed()))??;
            match incoming {
                Incoming::Frame { frame, .. } if fits(&frame) => return Ok(frame),
                Incoming::Frame { frame, .. } if frame.command == "ERROR" => {
                    let refusal = Refusal::of(&frame).expect("an ERROR is one");
                    return Err(anyhow!(refusal).context(format!("an ERROR came instead of {what}")));
                }
                Incoming::Frame { frame, .. } => self.inbox.push_back(frame),
                Incoming::Closed(closed) => {
                    bail!("the gateway closed ({:?} {}) instead of {what}", closed.code, closed.reason)
                }
            }
        }
    }
}

impl From<Connected> for Client {
    fn from(session: Connected) -> Self {
        let Connected { writer, reader, frame } = session;
        Self { writer, reader, connected: frame, inbox: VecDeque::new(), next_id: 0 }
    }
}

/// Whether the frame is the answer, good or bad, to the frame with that `receipt`.
fn answers(frame: &Frame, receipt: &str) -> bool {
    let is_answer = frame.command == "RECEIPT" || Refusal::of(frame).is_some();
    is_answer && frame.header("receipt-id") == Some(receipt)
}

impl Receipt {
    /// Reads the RECEIPT of a SEND to a conversation.
    pub fn of(frame: &Frame) -> Result<Self> {
        let number = |name| frame.number(name).with_context(|| format!("no {name} in {frame:?}"));
        Ok(Self {
            conversation_id: number("conversation-id")?,
            seq: number("seq")?,
            epoch: number("epoch")?,
            message: number("message")?,
            message_id: frame.header("message-id").context("no message-id")?.to_owned(),
        })
    }
}

impl Refusal {
    /// The refusal that the frame carries, if it is one.
    pub fn of(frame: &Frame) -> Option<Self> {
        let header = |name| frame.header(name).unwrap_or_default().to_owned();
        match frame.command.as_str() {
            "ERROR" => Some(Self { code: header("code"), message: header("message"), fatal: true }),
            "MESSAGE" if frame.header("code").is_some() => {
                let message = frame.json()["message"].as_str().unwrap_or_default().to_owned();
                Some(Self { code: header("code"), message, fatal: false })
            }
            _ => None,
        }
    }
}
