//! STOMP over each transport of SockJS, as the bytes are on the wire; sockjs-client itself is in `clients.rs`, what
//! SockJS says before CONNECT in the gateway's own tests.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    stomp::{Decoder, Frame},
    testing::{DEADLINE, Stack},
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// Nearly as long as a message may be, in bytes: ten of them are more than one answer takes.
const LARGE: usize = 30_000;

/// How a client of SockJS receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    WebSocket,
    Xhr,
    XhrStreaming,
    EventSource,
    HtmlFile,
    Jsonp,
}

const TRANSPORTS: [Transport; 6] = [
    Transport::WebSocket,
    Transport::Xhr,
    Transport::XhrStreaming,
    Transport::EventSource,
    Transport::HtmlFile,
    Transport::Jsonp,
];

impl Transport {
    fn request(self) -> (&'static str, &'static str) {
        match self {
            Transport::WebSocket => ("GET", "websocket"),
            Transport::Xhr => ("POST", "xhr"),
            Transport::XhrStreaming => ("POST", "xhr_streaming"),
            Transport::EventSource => ("GET", "eventsource"),
            Transport::HtmlFile => ("GET", "htmlfile?c=c"),
            Transport::Jsonp => ("GET", "jsonp?c=c"),
        }
    }

    /// The SockJS frame in a piece of an answer; none in what an answer begins with.
    fn unwrap(self, piece: &str) -> Result<Option<String>> {
        let between = |before: &str, after: &str| piece.strip_prefix(before)?.strip_suffix(after);
        Ok(match self {
            Transport::Xhr | Transport::XhrStreaming => {
                between("", "\n").filter(|frame| !frame.starts_with("hh")).map(str::to_owned)
            }
            Transport::EventSource => between("data: ", "\r\n\r\n").map(str::to_owned),
            Transport::HtmlFile => {
                between("<script>\np(", ");\n</script>\r\n").map(serde_json::from_str).transpose()?
            }
            Transport::Jsonp => between("c(", ");\r\n").map(serde_json::from_str).transpose()?,
            Transport::WebSocket => Some(piece.to_owned()),
        })
    }
}

/// What came.
#[derive(Debug)]
enum Came {
    Frame(Frame),
    Closed(u16, String),
}

enum Link {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    /// The answer that is being read.
    Http(Option<Answer>),
}

/// One session.
struct Client {
    transport: Transport,
    authority: String,
    path: String,
    link: Link,
    decoder: Decoder,
    came: VecDeque<Came>,
    asked: usize,
}

impl Client {
    async fn open(gateway: &str, transport: Transport) -> Result<Self> {
        let authority = gateway.strip_prefix("http://").context("a gateway over http")?.to_owned();
        let path = format!("/ws/000/{}", uuid::Uuid::new_v4());
        let link = match transport {
            Transport::WebSocket => {
                Link::WebSocket(Box::new(connect_async(format!("ws://{authority}{path}/websocket")).await?.0))
            }
            _ => Link::Http(None),
        };
        let mut client =
            Self { transport, authority, path, link, decoder: Decoder::default(), came: VecDeque::new(), asked: 0 };
        let frame = client.frame().await?;
        ensure!(frame == "o", "opened with {frame:?}");
        Ok(client)
    }

    async fn connect(gateway: &str, transport: Transport, token: &str) -> Result<Self> {
        let mut client = Self::open(gateway, transport).await?;
        let connect = Frame::new("CONNECT").with("accept-version", "1.2").with("host", "switchboard");
        client.send(&connect.with("Authorization", format!("Bearer {token}"))).await?;
        let connected = client.next_frame().await?;
        ensure!(connected.command == "CONNECTED", "{connected:?}");
        Ok(client)
    }

    async fn send(&mut self, frame: &Frame) -> Result<()> {
        let text = String::from_utf8(frame.encode())?;
        let body = json!([text]).to_string();
        match (&mut self.link, self.transport) {
            (Link::WebSocket(socket), _) => socket.send(Message::text(body)).await?,
            (Link::Http(_), Transport::Jsonp) => {
                let encoded: String = body.bytes().map(|byte| format!("%{byte:02X}")).collect();
                let form = "application/x-www-form-urlencoded";
                let path = format!("{}/jsonp_send", self.path);
                let answer = Answer::to(&self.authority, "POST", &path, (form, &format!("d={encoded}"))).await?;
                ensure!(answer.status == 200, "jsonp_send: {}", answer.status);
            }
            (Link::Http(_), _) => {
                let path = format!("{}/xhr_send", self.path);
                let answer = Answer::to(&self.authority, "POST", &path, ("text/plain", &body)).await?;
                ensure!(answer.status == 204, "xhr_send: {}", answer.status);
            }
        }
        Ok(())
    }

    /// The next frame of SockJS that is no heart-beat; asks again where an answer is over.
    async fn frame(&mut self) -> Result<String> {
        let (transport, authority) = (self.transport, self.authority.clone());
        let read = async {
            loop {
                let piece = match &mut self.link {
                    Link::WebSocket(socket) => match socket.next().await.context("the WebSocket ended")?? {
                        Message::Text(text) => Some(text.to_string()),
                        other => bail!("{other:?}"),
                    },
                    Link::Http(answer) => {
                        if answer.is_none() {
                            let (method, suffix) = transport.request();
                            self.asked += 1;
                            let path = format!("{}/{suffix}", self.path);
                            *answer = Some(Answer::to(&authority, method, &path, ("text/plain", "")).await?);
                        }
                        let piece = answer.as_mut().context("an answer")?.piece().await?;
                        if piece.is_none() {
                            *answer = None;
                        }
                        piece
                    }
                };
                let Some(piece) = piece else { continue };
                match transport.unwrap(&piece)? {
                    Some(frame) if frame != "h" => return Ok(frame),
                    _ => {}
                }
            }
        };
        timeout(DEADLINE, read).await.with_context(|| format!("nothing in time over {transport:?}"))?
    }

    async fn next(&mut self) -> Result<Came> {
        loop {
            if let Some(came) = self.came.pop_front() {
                return Ok(came);
            }
            let frame = self.frame().await?;
            if let Some(strings) = frame.strip_prefix('a') {
                for text in serde_json::from_str::<Vec<String>>(strings)? {
                    self.decoder.feed(text.as_bytes());
                    while let Some(frame) = self.decoder.next_frame()? {
                        self.came.push_back(Came::Frame(frame));
                    }
                }
            } else if let Some(close) = frame.strip_prefix('c') {
                let (code, reason) = serde_json::from_str(close)?;
                self.came.push_back(Came::Closed(code, reason));
            } else {
                bail!("{frame:?} is no frame of SockJS");
            }
        }
    }

    async fn next_frame(&mut self) -> Result<Frame> {
        match self.next().await? {
            Came::Frame(frame) => Ok(frame),
            closed @ Came::Closed(..) => bail!("{closed:?}"),
        }
    }

    async fn closed(&mut self) -> Result<(u16, String)> {
        match self.next().await? {
            Came::Closed(code, reason) => Ok((code, reason)),
            frame @ Came::Frame(_) => bail!("{frame:?}"),
        }
    }

    async fn subscribe(&mut self, conversation: i64) -> Result<()> {
        let subscribe = Frame::new("SUBSCRIBE").with("id", "s").with("receipt", "subscribed");
        self.send(&subscribe.with("destination", format!("/topic/conversations/{conversation}"))).await?;
        while self.next_frame().await?.command != "RECEIPT" {}
        Ok(())
    }
}

/// An answer that is read in pieces: its chunks, or all of it.
struct Answer {
    status: u16,
    /// Of the body; none: it comes in chunks.
    length: Option<usize>,
    stream: BufReader<TcpStream>,
    over: bool,
}

impl Answer {
    async fn to(authority: &str, method: &str, path: &str, (content_type, body): (&str, &str)) -> Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect(authority).await?);
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: {content_type}\r\n");
        stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).context("a status")?.parse()?;
        let mut length = None;
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            }
        }
        Ok(Self { status, length, stream, over: false })
    }

    async fn piece(&mut self) -> Result<Option<String>> {
        ensure!(self.status == 200, "{}", self.status);
        if std::mem::replace(&mut self.over, self.length.is_some()) {
            return Ok(None);
        }
        let (size, more) = match self.length {
            Some(length) => (length, 0),
            None => {
                let mut line = String::new();
                self.stream.read_line(&mut line).await?;
                (usize::from_str_radix(line.trim_end(), 16)?, 2)
            }
        };
        let mut bytes = vec![0; size + more];
        self.stream.read_exact(&mut bytes).await?;
        bytes.truncate(size);
        Ok(if size == 0 { None } else { Some(String::from_utf8(bytes)?) })
    }
}

fn say(conversation: i64, text: &str) -> Frame {
    Frame::new("SEND")
        .with("destination", format!("/app/conversations/{conversation}/messages"))
        .with("receipt", text)
        .with_body(json!({ "body": text }).to_string())
}

#[tokio::test]
async fn people_on_every_transport_talk_and_each_gets_everything_once_and_in_order() -> Result<()> {
    const EACH: usize = 20;
    let stack = Stack::get()?;
    let [nina, noah] = stack.people(["nina", "noah"]).await?;
    let conversation = stack.channel(&[&nina, &noah]).await?;
    let mut clients = Vec::new();
    for (number, transport) in TRANSPORTS.into_iter().enumerate() {
        let gateways = &stack.endpoints.gateways;
        let person = [&nina, &noah][number % 2];
        let mut client = Client::connect(&gateways[number % gateways.len()], transport, &person.token).await?;
        client.subscribe(conversation).await?;
        clients.push(client);
    }
    let talks = clients.into_iter().map(async |mut client| {
        let (mut seqs, mut receipts) = (Vec::new(), Vec::new());
        for number in 0..EACH {
            client.send(&say(conversation, &format!("{:?} {number}", client.transport))).await?;
        }
        while seqs.len() < EACH * TRANSPORTS.len() || receipts.len() < EACH {
            let frame = client.next_frame().await?;
            match frame.command.as_str() {
                "RECEIPT" => receipts.push(frame.number("seq").context("a seq")?),
                _ if frame.header("event-type") == Some("MESSAGE") => seqs.push(frame.number("seq").context("a seq")?),
                _ => {}
            }
        }
        client.send(&Frame::new("DISCONNECT").with("receipt", "bye")).await?;
        let bye = client.next_frame().await?;
        ensure!(bye.header("receipt-id") == Some("bye"), "{bye:?}");
        ensure!(client.closed().await? == (1000, String::new()));
        anyhow::Ok((client.transport, seqs, receipts))
    });
    let expected: Vec<i64> = (2..).take(EACH * TRANSPORTS.len()).collect();
    for (transport, seqs, receipts) in futures_util::future::try_join_all(talks).await? {
        assert_eq!(seqs, expected, "{transport:?}");
        assert!(receipts.is_sorted(), "{transport:?}: in the order of sending");
    }
    Ok(())
}

#[tokio::test]
async fn an_error_with_its_receipt_comes_before_the_close_on_every_transport() -> Result<()> {
    let stack = Stack::get()?;
    let [nina] = stack.people(["nina"]).await?;
    for transport in TRANSPORTS {
        for (culprit, code) in [
            (Frame::new("SEND").with("receipt", "r:1"), "protocol_error"),
            (Frame::new("SEND").with("receipt", "r:1").with("destination", "/app/nowhere"), "invalid_destination"),
        ] {
            let mut client = Client::connect(&stack.endpoints.gateways[0], transport, &nina.token).await?;
            client.send(&culprit).await?;
            let error = client.next_frame().await?;
            assert_eq!(error.command, "ERROR", "{transport:?}: {error:?}");
            assert_eq!((error.header("code"), error.header("receipt-id")), (Some(code), Some("r:1")), "{transport:?}");
            assert_eq!(client.closed().await?, (4400, code.to_owned()), "{transport:?}");
            match &mut client.link {
                Link::WebSocket(socket) => {
                    let end = timeout(DEADLINE, socket.next()).await?.context("no close frame")??;
                    assert!(matches!(&end, Message::Close(Some(frame)) if u16::from(frame.code) == 4400), "{end:?}");
                }
                // Whoever asks again is told again.
                Link::Http(_) => assert_eq!(client.closed().await?, (4400, code.to_owned()), "{transport:?}"),
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_polls_too_seldom_is_told_so_and_its_neighbour_goes_on() -> Result<()> {
    let stack = Stack::get()?;
    let [nina, noah] = stack.people(["nina", "noah"]).await?;
    let conversation = stack.channel(&[&nina, &noah]).await?;
    let mut neighbour = stack.connect(&noah, 0).await?;
    neighbour.subscribe(&format!("/topic/conversations/{conversation}")).await?;
    let mut slow = Client::connect(&stack.endpoints.gateways[0], Transport::Xhr, &nina.token).await?;
    slow.subscribe(conversation).await?;
    // More comes than one poll takes, again and again.
    let text = "x".repeat(LARGE);
    for _ in 0..20 {
        for _ in 0..10 {
            neighbour.say(conversation, &text).await?;
        }
        let frame = slow.frame().await?;
        if frame.contains("slow_consumer") {
            assert!(frame.starts_with("a[\"ERROR\\n"), "{frame}");
            assert_eq!(slow.closed().await?, (4008, "slow_consumer".to_owned()));
            return Ok(());
        }
    }
    bail!("all of it was kept for a client that does not keep up")
}
