//! A WebSocket client that can do wrong.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::gateway::DEADLINE;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
/// RSV1: the message is compressed.
pub const COMPRESSED: u8 = 0x40;

/// What a server's frame holds, and its first byte.
pub type Frame = (u8, Vec<u8>);

pub struct Client {
    stream: TcpStream,
    /// The head of the answer to the handshake.
    pub head: String,
}

/// A client's frame.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    out
}

impl Client {
    /// Asks for a WebSocket; `headers` are whole lines. Whatever the answer is.
    pub async fn ask(address: SocketAddr, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(DEADLINE, stream.read_u8()).await.expect("no answer in time").unwrap());
        }
        Self { stream, head: String::from_utf8(head).unwrap().to_ascii_lowercase() }
    }

    /// One that was let in.
    pub async fn connect(address: SocketAddr) -> Self {
        let client = Self::ask(address, "").await;
        assert!(client.head.starts_with("http/1.1 101 "), "{}", client.head);
        client
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub async fn next(&mut self) -> Option<Frame> {
        timeout(DEADLINE, self.read()).await.expect("nothing in time")
    }

    async fn read(&mut self) -> Option<Frame> {
        let first = self.stream.read_u8().await.ok()?;
        let len = match self.stream.read_u8().await.ok()? {
            126 => usize::from(self.stream.read_u16().await.ok()?),
            127 => usize::try_from(self.stream.read_u64().await.ok()?).unwrap(),
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((first, payload))
    }

    /// The next frame is a STOMP ERROR; its text.
    pub async fn error(&mut self) -> String {
        let (first, payload) = self.next().await.expect("a frame");
        let text = String::from_utf8(payload).unwrap();
        assert!(first == TEXT && text.starts_with("ERROR\n"), "{first:#x} {text}");
        text
    }

    /// The next frame is a close frame; its code. Answers it, and sees the server hang up.
    pub async fn closed(&mut self) -> u16 {
        let (first, payload) = self.next().await.expect("a frame");
        assert_eq!(first, CLOSE, "{payload:?}");
        self.send(&frame(CLOSE, &payload[..2])).await;
        assert_eq!(self.next().await, None, "nothing comes behind a close frame");
        u16::from_be_bytes([payload[0], payload[1]])
    }
}
