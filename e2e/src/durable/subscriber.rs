//! Subscribers that cost little: WebSocket frames are cut by their lengths, and of a STOMP frame only its command and
//! the tag of its message are looked at. Everything else about a delivery is what the tests are for.

use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    task::JoinSet,
    time::Instant,
};

use super::{
    crowd::Crowd,
    tally::{TAG, Tally, us},
};
use crate::endpoints::Endpoints;

/// What is written to a session: by its reader to answer pings, by a sender for SENDs.
pub type Half = Arc<Mutex<OwnedWriteHalf>>;

/// Sessions that are opened at the same time.
const CONCURRENTLY: usize = 16;
/// Read at once at most, in bytes.
const READ: usize = 4 << 10;

/// Connects everybody, each room's members to different gateways, and starts their readers.
pub async fn connect_all(
    endpoints: &Endpoints,
    crowd: &Arc<Crowd>,
    tally: &Arc<Tally>,
    readers: &mut JoinSet<()>,
) -> Result<Vec<Half>> {
    let gateways = endpoints.gateways.len();
    let connected: Vec<(Session, Half)> = stream::iter(0..crowd.people.len())
        .map(|number| connect(&endpoints.gateways[number % gateways], crowd, number))
        .buffered(CONCURRENTLY)
        .try_collect()
        .await?;
    let mut halves = Vec::new();
    for (session, half) in connected {
        let tally = Arc::clone(tally);
        readers.spawn(async move { session.read_on(&tally).await });
        halves.push(half);
    }
    Ok(halves)
}

struct Session {
    reading: OwnedReadHalf,
    writing: Half,
    bytes: Vec<u8>,
}

async fn connect(url: &str, crowd: &Crowd, number: usize) -> Result<(Session, Half)> {
    let authority = url.trim_start_matches("http://");
    let socket = TcpStream::connect(authority).await.with_context(|| format!("connecting to {authority}"))?;
    socket.set_nodelay(true)?;
    let (reading, writing) = socket.into_split();
    let writing = Arc::new(Mutex::new(writing));
    let mut session = Session { reading, writing: Arc::clone(&writing), bytes: Vec::with_capacity(READ) };
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: v12.stomp\r\n\r\n"
    );
    writing.lock().await.write_all(upgrade.as_bytes()).await?;
    session.upgraded().await?;
    let person = &crowd.people[number];
    let mut bytes = Vec::new();
    put_frame(
        &mut bytes,
        &format!(
            "CONNECT\naccept-version:1.2\nhost:switchboard\nheart-beat:0,0\nAuthorization:Bearer {}\n\n\0",
            person.token
        ),
    );
    writing.lock().await.write_all(&bytes).await?;
    session.until("CONNECTED").await?;
    bytes.clear();
    let room = crowd.rooms[person.room];
    put_frame(
        &mut bytes,
        &format!("SUBSCRIBE\nid:r\ndestination:/topic/conversations/{room}\nreceipt:subscribed\n\n\0"),
    );
    writing.lock().await.write_all(&bytes).await?;
    session.until("RECEIPT").await?;
    Ok((session, writing))
}

impl Session {
    async fn upgraded(&mut self) -> Result<()> {
        loop {
            if let Some(end) = find(&self.bytes, b"\r\n\r\n") {
                ensure!(self.bytes.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&self.bytes[..end]));
                self.bytes.drain(..end + 4);
                return Ok(());
            }
            ensure!(self.reading.read_buf(&mut self.bytes).await? > 0, "closed in the handshake");
        }
    }

    /// Reads until a frame with this command; an ERROR ends it.
    async fn until(&mut self, command: &str) -> Result<()> {
        loop {
            while let Some((start, end)) = frame(&self.bytes) {
                let found = self.bytes[start..end].starts_with(command.as_bytes());
                if self.bytes[start..end].starts_with(b"ERROR") {
                    bail!("{}", String::from_utf8_lossy(&self.bytes[start..end]));
                }
                self.bytes.drain(..end);
                if found {
                    return Ok(());
                }
            }
            ensure!(self.reading.read_buf(&mut self.bytes).await? > 0, "closed before {command}");
        }
    }

    /// Counts what comes until the socket ends.
    async fn read_on(mut self, tally: &Tally) {
        let (mut tags, mut receipts) = (Vec::new(), Vec::new());
        loop {
            let mut at = 0;
            while let Some((start, end)) = frame(&self.bytes[at..]) {
                // A ping without a payload, as the gateways send them, or with one: the pong has none.
                if self.bytes[at] & 15 == 9 {
                    let _ = self.writing.lock().await.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await;
                }
                take(&self.bytes[at + start..at + end], &mut tags, &mut receipts, tally);
                at += end;
            }
            self.bytes.drain(..at);
            let now = us(Instant::now());
            for due in receipts.drain(..) {
                tally.answered(true, due, now);
            }
            if !tags.is_empty() {
                tally.arrived(&tags, now);
                tags.clear();
            }
            match self.reading.read_buf(&mut self.bytes).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// One WebSocket message may hold several STOMP frames.
fn take(message: &[u8], tags: &mut Vec<i64>, receipts: &mut Vec<i64>, tally: &Tally) {
    for frame in message.split(|byte| *byte == 0) {
        let frame = frame.trim_ascii_start();
        if frame.starts_with(b"MESSAGE") {
            static KEY: OnceLock<Vec<u8>> = OnceLock::new();
            let key = KEY.get_or_init(|| format!("\"client_message_id\":\"{TAG}").into_bytes());
            if let Some(at) = find(frame, key) {
                tags.push(number(&frame[at + key.len()..]));
            } else if find(frame, b"/user/queue/errors").is_some() {
                tally.answered(false, 0, 0);
                let _ = tally.complaint.set(String::from_utf8_lossy(frame).into_owned());
            }
        } else if frame.starts_with(b"RECEIPT") {
            const ID: &[u8] = b"receipt-id:";
            if let Some(at) = find(frame, ID) {
                receipts.push(number(&frame[at + ID.len()..]));
            }
        } else if frame.starts_with(b"ERROR") {
            tally.answered(false, 0, 0);
            let _ = tally.complaint.set(String::from_utf8_lossy(frame).into_owned());
        }
    }
}

/// The digits at the start.
fn number(text: &[u8]) -> i64 {
    text.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The payload of the first WebSocket frame, once it is whole: where it starts and ends.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, length) = match *bytes.get(1)? & 127 {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into()),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, length.into()),
    };
    (bytes.len() >= start + length).then_some((start, start + length))
}

/// Appends a masked text frame; the mask is zero, so the text stands as it is.
#[expect(clippy::cast_possible_truncation, reason = "each length is checked before it is cut")]
pub fn put_frame(out: &mut Vec<u8>, text: &str) {
    out.push(0x81);
    match text.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(text.as_bytes());
}
