//! The terminal client: type a line, see everyone's lines.
//!
//! One session at a time, at one gateway; when it ends, the next gateway is tried and delivery resumes behind the
//! last event that was shown. A typed line is held until its RECEIPT came and is sent again, with the same client
//! message id, after a reconnect: it appears once.

mod conversation;
mod screen;

use std::{collections::VecDeque, io::IsTerminal as _, time::Duration};

use anyhow::{Result, anyhow, bail};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines, Stdin},
    time::{interval, sleep, timeout},
};

use self::screen::Screen;
use super::ChatOptions;
use crate::{
    demo,
    endpoints::{Endpoints, websocket},
    rest::{Rest, Session},
    stomp::{Client, Closed, Frame, Incoming, Options, Reader, Receipt, Refusal, Writer},
};

/// Heart-beats that are asked for and sent, in milliseconds.
const HEART_BEAT_MS: u32 = 10_000;
/// A gateway that is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(25);
/// Between attempts to reconnect.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines typed and not acknowledged; input waits behind so many.
const MAX_UNACKNOWLEDGED: usize = 100;
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(5);

struct Chat {
    rest: Rest,
    session: Session,
    conversation: i64,
    screen: Screen,
    input: Lines<BufReader<Stdin>>,
    /// Ctrl-D was typed, or the pipe ended.
    input_ended: bool,
    /// Where a new subscription resumes: the last seq that was shown, and its epoch where it is known.
    position: Option<(i64, Option<i64>)>,
    /// Sent, oldest first, without a RECEIPT so far: client message id and text.
    unacknowledged: VecDeque<(String, String)>,
    /// The highest seq that was acknowledged to this client: the end waits until it was shown.
    acknowledged: i64,
}

/// Why one session is over.
enum End {
    /// All is sent and shown, the input is over.
    Done,
    Lost(String),
}

/// Runs until the input ends.
pub async fn run(endpoints: &Endpoints, options: &ChatOptions) -> Result<()> {
    let gateways = &endpoints.gateways;
    if options.gateway == 0 || options.gateway > gateways.len() {
        bail!("--gateway {}: this stack has gateways 1 to {}", options.gateway, gateways.len());
    }
    let rest = Rest::new(&endpoints.core);
    let session = demo::session(&rest, &options.name).await?;
    let conversation = conversation::enter(endpoints, &rest, &session, options.conversation.as_deref()).await?;
    let mut chat = Chat {
        screen: Screen::new(rest.clone(), session.token.clone()),
        rest,
        session,
        conversation,
        input: BufReader::new(tokio::io::stdin()).lines(),
        input_ended: false,
        position: None,
        unacknowledged: VecDeque::new(),
        acknowledged: 0,
    };
    chat.show_history().await?;
    let mut attempt = options.gateway - 1;
    loop {
        let gateway = &gateways[attempt % gateways.len()];
        let lost = match chat.connect(gateway).await {
            Ok(client) => match chat.talk(client).await? {
                End::Done => return Ok(()),
                End::Lost(reason) => reason,
            },
            Err(error) => {
                // The token may have ended; a login gives a new one.
                if let Ok(session) = demo::session(&chat.rest, &chat.session.username).await {
                    chat.session = session;
                }
                format!("{error:#}")
            }
        };
        chat.screen.notice(&format!("{lost}; trying the next gateway"));
        sleep(PAUSE).await;
        attempt += 1;
    }
}

impl Chat {
    async fn show_history(&mut self) -> Result<()> {
        let latest = conversation::latest(&self.rest, &self.session.token, self.conversation).await?;
        self.position = latest.last().map(|line| (line.seq, None));
        for line in latest {
            self.screen.message(line.sender, &line.at, &line.text).await;
        }
        Ok(())
    }

    async fn connect(&mut self, gateway: &str) -> Result<Client> {
        let options = Options { heart_beat: (HEART_BEAT_MS, HEART_BEAT_MS), ..Options::new(&self.session.token) };
        let mut client = Client::connect_with(&websocket(gateway), &options).await?;
        client.subscribe("/user/queue/errors").await?;
        let mut resume = Vec::new();
        if let Some((seq, epoch)) = self.position {
            resume.push(("after-seq", seq.to_string()));
            resume.extend(epoch.map(|epoch| ("after-epoch", epoch.to_string())));
        }
        client.subscribe_with(&format!("/topic/conversations/{}", self.conversation), &resume).await?;
        self.screen.notice(&format!("connected to {gateway} as {}", self.session.username));
        Ok(client)
    }

    async fn talk(&mut self, client: Client) -> Result<End> {
        let (mut writer, mut reader, early) = client.split();
        for frame in early {
            self.take(&frame).await?;
        }
        for (id, text) in &self.unacknowledged {
            if let Err(error) = writer.send(&send_frame(self.conversation, id, text)).await {
                return Ok(End::Lost(format!("{error:#}")));
            }
        }
        let mut beats = interval(Duration::from_millis(u64::from(HEART_BEAT_MS)));
        loop {
            if self.input_ended && self.unacknowledged.is_empty() && self.shown() >= self.acknowledged {
                leave(&mut writer, &mut reader).await;
                return Ok(End::Done);
            }
            let may_type = !self.input_ended && self.unacknowledged.len() < MAX_UNACKNOWLEDGED;
            let written = tokio::select! {
                incoming = reader.next() => match incoming? {
                    Incoming::Frame { frame, .. } => {
                        self.take(&frame).await?;
                        Ok(())
                    }
                    Incoming::Closed(Closed { code, reason }) => {
                        let code = code.map_or_else(String::new, |code| format!(" ({code})"));
                        return Ok(End::Lost(format!("the gateway closed{code} {reason}").trim_end().to_owned()));
                    }
                },
                line = self.input.next_line(), if may_type => self.typed(line?, &mut writer).await,
                _ = beats.tick() => match reader.last_read().elapsed() > SILENCE {
                    true => Err(anyhow!("the gateway is silent")),
                    false => writer.beat().await,
                },
            };
            if let Err(error) = written {
                return Ok(End::Lost(format!("{error:#}")));
            }
        }
    }

    fn shown(&self) -> i64 {
        self.position.map_or(0, |(seq, _)| seq)
    }

    async fn typed(&mut self, line: Option<String>, writer: &mut Writer) -> Result<()> {
        let Some(text) = line else {
            self.input_ended = true;
            return Ok(());
        };
        self.screen.typed(std::io::stdin().is_terminal());
        if text.trim().is_empty() {
            return Ok(());
        }
        let id = uuid::Uuid::now_v7().to_string();
        let frame = send_frame(self.conversation, &id, &text);
        self.unacknowledged.push_back((id, text));
        writer.send(&frame).await
    }

    async fn take(&mut self, frame: &Frame) -> Result<()> {
        if let Some(refusal) = Refusal::of(frame) {
            let refused = frame.header("receipt-id").unwrap_or_default();
            // What a later attempt may change is sent again with the next session.
            if refusal.code != "unavailable" {
                self.unacknowledged.retain(|(id, _)| id != refused);
            }
            self.screen.notice(&format!("refused: {refusal}"));
            if refusal.code == "subscription_ended" {
                bail!("this conversation is over for {}", self.session.username);
            }
            return Ok(());
        }
        match frame.command.as_str() {
            "RECEIPT" => {
                let id = frame.header("receipt-id").unwrap_or_default();
                self.unacknowledged.retain(|(held, _)| held != id);
                if let Ok(receipt) = Receipt::of(frame) {
                    self.acknowledged = self.acknowledged.max(receipt.seq);
                }
            }
            "MESSAGE" => self.event(frame).await,
            _ => {}
        }
        Ok(())
    }

    async fn event(&mut self, frame: &Frame) {
        let event = frame.json();
        let data = &event["data"];
        let user = |field: &str| data[field].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
        match frame.header("event-type").unwrap_or_default() {
            "MESSAGE" => {
                let sender = event["actor_id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
                let at = event["at"].as_str().unwrap_or_default();
                self.screen.message(sender, at, data["body"].as_str().unwrap_or_default()).await;
            }
            "USER_JOINED" => self.screen.membership(user("user_id"), "joined").await,
            "USER_LEFT" => self.screen.membership(user("user_id"), "left").await,
            "RESUMED" => {
                if data["recovered"] == false {
                    self.screen.notice("some lines may be missing here");
                }
                if let Some(after) = data["after_seq"].as_i64() {
                    self.position = Some((after, data["epoch"].as_i64()));
                }
                if data["ended"] == true {
                    self.screen.notice("you are no longer in this conversation");
                }
            }
            _ => {}
        }
        if let Some(seq) = frame.number("seq") {
            self.position = Some((seq, frame.number("epoch")));
        }
    }
}

/// The receipt's id is the client message id: one name for one line.
fn send_frame(conversation: i64, id: &str, text: &str) -> Frame {
    Frame::new("SEND")
        .with("destination", format_args!("/app/conversations/{conversation}/messages"))
        .with("content-type", "application/json")
        .with("receipt", id)
        .with_body(json!({ "body": text, "client_message_id": id }).to_string())
}

/// DISCONNECT and its RECEIPT; who does not get it in time goes without.
async fn leave(writer: &mut Writer, reader: &mut Reader) {
    let farewell = async {
        writer.send(&Frame::new("DISCONNECT").with("receipt", "bye")).await?;
        while let Incoming::Frame { frame, .. } = reader.next().await? {
            if frame.header("receipt-id") == Some("bye") {
                break;
            }
        }
        anyhow::Ok(())
    };
    // Everything is acknowledged by now: nothing depends on this.
    let _ = timeout(FAREWELL, farewell).await;
}
