//! The WebSocket below, and the two halves of a connected session.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use http::HeaderValue;
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
};

use super::frame::{Decoder, Frame};

/// The subprotocol of the version that [`connect`] speaks.
const SUBPROTOCOL: &str = "v12.stomp";
/// Memory of the read buffer of one connection, in bytes; the library's own default is 32 times that.
const READ_BUFFER: usize = 4096;
/// From the TCP connection to CONNECTED.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `Authorization` header's token; none sends no such header.
    pub token: Option<String>,
    /// The `heart-beat` header, in milliseconds; `0,0` asks for none.
    pub heart_beat: (u32, u32),
    /// More headers of CONNECT.
    pub headers: Vec<(String, String)>,
    /// The address to come from, on a machine that has several; a gateway has a limit for each.
    pub from: Option<Ipv4Addr>,
}

impl Options {
    pub fn new(token: &str) -> Self {
        Self { token: Some(token.to_owned()), heart_beat: (0, 0), headers: Vec::new(), from: None }
    }
}

/// The half that writes.
#[derive(Debug)]
pub struct Writer {
    sink: SplitSink<WebSocketStream<TcpStream>, Message>,
}

/// The half that reads.
#[derive(Debug)]
pub struct Reader {
    stream: SplitStream<WebSocketStream<TcpStream>>,
    decoder: Decoder,
    /// When the bytes of the frames still held in `decoder` were read.
    read_at: Instant,
}

/// How the connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The WebSocket close code; `None` when there was no close frame.
    pub code: Option<u16>,
    pub reason: String,
}

/// What comes from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Frame {
        frame: Frame,
        /// When its last bytes were read from the socket.
        read_at: Instant,
    },
    Closed(Closed),
}

/// A session that the server has accepted.
#[derive(Debug)]
pub struct Connected {
    pub writer: Writer,
    pub reader: Reader,
    /// The CONNECTED frame.
    pub frame: Frame,
}

/// Opens the WebSocket at `url` (`ws://…/ws`) and nothing else.
pub async fn connect_raw(url: &str) -> Result<(Writer, Reader)> {
    connect_as(url, Some(SUBPROTOCOL)).await
}

/// [`connect_raw`] with another subprotocol, or none.
pub async fn connect_as(url: &str, subprotocol: Option<&'static str>) -> Result<(Writer, Reader)> {
    open(url, subprotocol, None).await
}

async fn open(url: &str, subprotocol: Option<&'static str>, from: Option<Ipv4Addr>) -> Result<(Writer, Reader)> {
    let mut request = url.into_client_request().with_context(|| format!("{url} is no WebSocket address"))?;
    let authority = request.uri().authority().context("no host")?.to_string();
    if let Some(name) = subprotocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(name));
    }
    let tcp = dial(&authority, from).await.with_context(|| format!("connecting to {authority}"))?;
    // A chat message is far smaller than a segment and must not wait for the next one.
    tcp.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    let (socket, answer) = tokio_tungstenite::client_async_with_config(request, tcp, Some(config))
        .await
        .with_context(|| format!("the WebSocket handshake with {url}"))?;
    let chosen = answer.headers().get("Sec-WebSocket-Protocol");
    let chosen = chosen.map(HeaderValue::as_bytes);
    ensure!(chosen == subprotocol.map(str::as_bytes), "{url} chose the subprotocol {chosen:?}");
    let (sink, stream) = socket.split();
    Ok((Writer { sink }, Reader { stream, decoder: Decoder::default(), read_at: Instant::now() }))
}

async fn dial(authority: &str, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let Some(from) = from else { return TcpStream::connect(authority).await };
    let to = lookup_host(authority).await?.find(SocketAddr::is_ipv4);
    let to = to.ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no IPv4 address"))?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

/// Opens a session at the gateway's WebSocket address.
///
/// # Errors
/// The server answered ERROR (its `code` and `message` are in the text), closed, or gave no answer in time.
pub async fn connect(url: &str, options: &Options) -> Result<Connected> {
    timeout(CONNECT_DEADLINE, handshake(url, options)).await.with_context(|| format!("{url} gave no answer in time"))?
}

async fn handshake(url: &str, options: &Options) -> Result<Connected> {
    let (mut writer, mut reader) = open(url, Some(SUBPROTOCOL), options.from).await?;
    let (send, receive) = options.heart_beat;
    let mut connect = Frame::new("CONNECT").with("accept-version", "1.2").with("host", "switchboard");
    connect = connect.with("heart-beat", format_args!("{send},{receive}"));
    if let Some(token) = &options.token {
        connect = connect.with("Authorization", format_args!("Bearer {token}"));
    }
    for (name, value) in &options.headers {
        connect = connect.with(name, value);
    }
    writer.send(&connect).await?;
    match reader.next().await? {
        Incoming::Frame { frame, .. } if frame.command == "CONNECTED" => Ok(Connected { writer, reader, frame }),
        Incoming::Frame { frame, .. } => bail!(
            "{url} answered {} {}: {}",
            frame.command,
            frame.header("code").unwrap_or_default(),
            frame.header("message").unwrap_or_default()
        ),
        Incoming::Closed(closed) => bail!("{url} closed with {:?} {}", closed.code, closed.reason),
    }
}

impl Writer {
    /// Writes one frame and flushes it.
    pub async fn send(&mut self, frame: &Frame) -> Result<()> {
        let text = String::from_utf8(frame.encode()).context("a frame of this client is text")?;
        self.sink.send(Message::text(text)).await.context("writing to the gateway")
    }

    /// Writes these bytes as one text message, whatever they are.
    pub async fn send_raw(&mut self, text: &str) -> Result<()> {
        self.sink.send(Message::text(text)).await.context("writing to the gateway")
    }

    /// Writes a heart-beat.
    pub async fn beat(&mut self) -> Result<()> {
        self.send_raw("\n").await
    }

    /// Writes these bytes as one binary message.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.sink.send(Message::binary(bytes)).await.context("writing to the gateway")
    }

    /// Closes the WebSocket without DISCONNECT.
    pub async fn close(&mut self) -> Result<()> {
        self.sink.close().await.context("closing")
    }
}

impl Reader {
    /// Reads frames of STOMP 1.0, in which nothing is escaped.
    #[must_use]
    pub fn without_escapes(mut self) -> Self {
        self.decoder = Decoder::without_escapes();
        self
    }

    /// When the server was last heard, heart-beats included.
    pub fn last_read(&self) -> Instant {
        self.read_at
    }

    /// The next frame, or how the connection ended. Safe to drop half-way.
    pub async fn next(&mut self) -> Result<Incoming> {
        loop {
            if let Some(frame) = self.decoder.next_frame().context("the gateway sent what is no frame")? {
                return Ok(Incoming::Frame { frame, read_at: self.read_at });
            }
            let closed = match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    self.read_at = Instant::now();
                    self.decoder.feed(text.as_bytes());
                    continue;
                }
                Some(Ok(Message::Binary(bytes))) => {
                    self.read_at = Instant::now();
                    self.decoder.feed(&bytes);
                    continue;
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    Closed { code: Some(frame.code.into()), reason: frame.reason.to_string() }
                }
                Some(Ok(Message::Close(None))) | None | Some(Err(Error::ConnectionClosed)) => {
                    Closed { code: None, reason: String::new() }
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => Closed { code: None, reason: error.to_string() },
            };
            return Ok(Incoming::Closed(closed));
        }
    }
}
