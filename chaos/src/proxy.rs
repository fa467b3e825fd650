//! One link of the stack as a TCP proxy on loopback, which can be told to misbehave.
//!
//! Each connection is a task that copies bytes both ways and looks at the link's [`Mode`] before every piece. Nothing
//! is ever reordered or invented: a connection that has lost bytes is reset when the link is whole again, as a peer
//! that came back would do. Dropping a [`Link`] closes its listener and all its connections.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// One read of a connection, in bytes.
const PIECE: usize = 16 * 1024;

/// What a link does with the bytes of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Open connections are reset, and new ones at once.
    Cut,
    /// Each piece waits so long, in each direction.
    Delay(Duration),
    /// Connections stay, and bytes of these directions vanish.
    HalfOpen(Lost),
    /// So many bytes at a time, and a pause.
    Drip(usize, Duration),
}

/// Which bytes of a half-open connection vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Requests,
    Answers,
    Both,
}

/// What the link's faults have done to it since it was made.
#[derive(Debug, Default)]
pub struct Harm {
    /// Connections that were reset, or refused.
    cut: AtomicU64,
    /// Bytes that came late, in pieces, or not at all.
    bytes: AtomicU64,
}

/// A reading of [`Harm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub cut: u64,
    pub bytes: u64,
}

impl Done {
    /// What came on top of an earlier reading.
    pub fn since(self, before: Self) -> Self {
        Self { cut: self.cut - before.cut, bytes: self.bytes - before.bytes }
    }
}

#[derive(Debug)]
pub struct Link {
    port: u16,
    mode: watch::Sender<Mode>,
    harm: Arc<Harm>,
    _accepting: JoinSet<()>,
}

impl Link {
    /// Listens on a port that the system chooses, and connects each connection on to `upstream`.
    pub async fn open(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("opening a link")?;
        let port = listener.local_addr()?.port();
        let (mode, watched) = watch::channel(Mode::Pass);
        let harm = Arc::<Harm>::default();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, upstream, watched, Arc::clone(&harm)));
        Ok(Self { port, mode, harm, _accepting: accepting })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub fn done(&self) -> Done {
        Done { cut: self.harm.cut.load(Relaxed), bytes: self.harm.bytes.load(Relaxed) }
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, mode: watch::Receiver<Mode>, harm: Arc<Harm>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of descriptors, or the client was faster: the next one may go well.
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(connection(client, upstream, mode.clone(), Arc::clone(&harm)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut client: TcpStream, upstream: SocketAddr, mut mode: watch::Receiver<Mode>, harm: Arc<Harm>) {
    if *mode.borrow_and_update() == Mode::Cut {
        harm.cut.fetch_add(1, Relaxed);
        return reset(&client);
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else { return reset(&client) };
    // Pieces go on as they come; the proxy adds no waiting of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let lost = AtomicU64::new(0);
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    let context = Context { harm: &harm, lost: &lost };
    let requests = copy(client_reads, server_writes, mode.clone(), Lost::Requests, context);
    let answers = copy(server_reads, client_writes, mode.clone(), Lost::Answers, context);
    tokio::select! {
        biased;
        () = until_it_must_end(mode, &lost) => {
            harm.cut.fetch_add(1, Relaxed);
        }
        // An orderly end of one direction leaves the other one open. A reset of one is the end of both: whoever waits
        // for an answer must hear of it.
        ended = async { tokio::try_join!(requests, answers) } => if ended.is_ok() {
            return;
        },
    }
    reset(&client);
    reset(&server);
}

/// Dropping it now sends a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The link was cut, or is whole again after bytes of this connection vanished.
async fn until_it_must_end(mut mode: watch::Receiver<Mode>, lost: &AtomicU64) {
    loop {
        let now = *mode.borrow_and_update();
        if now == Mode::Cut || (lost.load(Relaxed) > 0 && !matches!(now, Mode::HalfOpen(_))) {
            return;
        }
        if mode.changed().await.is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy)]
struct Context<'a> {
    harm: &'a Harm,
    /// Bytes of this connection that vanished.
    lost: &'a AtomicU64,
}

/// One direction, to its end.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mode: watch::Receiver<Mode>,
    direction: Lost,
    context: Context<'_>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let read = from.read(&mut buffer).await;
        let now = *mode.borrow_and_update();
        let vanishes = matches!(now, Mode::HalfOpen(lost) if lost == direction || lost == Lost::Both);
        // Where bytes vanish, so does a reset.
        let count = if vanishes { read.unwrap_or(0) } else { read? };
        if vanishes {
            // An end counts as well: the other side does not hear of it.
            context.lost.fetch_add(count.max(1) as u64, Relaxed);
            context.harm.bytes.fetch_add(count as u64, Relaxed);
            if count == 0 {
                std::future::pending::<()>().await;
            }
            continue;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        let piece = &buffer[..count];
        match now {
            Mode::Delay(time) => {
                context.harm.bytes.fetch_add(count as u64, Relaxed);
                wait(time, &mut mode).await;
                to.write_all(piece).await?;
            }
            Mode::Drip(size, pause) => {
                context.harm.bytes.fetch_add(count as u64, Relaxed);
                for drop in piece.chunks(size.max(1)) {
                    to.write_all(drop).await?;
                    if *mode.borrow() == now {
                        wait(pause, &mut mode).await;
                    }
                }
            }
            Mode::Pass | Mode::Cut | Mode::HalfOpen(_) => to.write_all(piece).await?,
        }
    }
}

/// Not longer than the fault.
async fn wait(time: Duration, mode: &mut watch::Receiver<Mode>) {
    tokio::select! {
        () = sleep(time) => {}
        _ = mode.changed() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const SOON: Duration = Duration::from_secs(5);

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    tokio::io::copy(&mut reads, &mut writes).await
                });
            }
        });
        address
    }

    async fn open() -> (Link, TcpStream) {
        let link = Link::open(echo().await).await.unwrap();
        let stream = connect(&link).await;
        (link, stream)
    }

    async fn connect(link: &Link) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).await.unwrap()
    }

    /// What comes back, at most as much as was sent.
    async fn exchange(stream: &mut TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        timeout(SOON, stream.read_exact(&mut answer)).await.map_err(io::Error::other)??;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn a_whole_link_passes_bytes_and_counts_no_harm() {
        let (link, mut stream) = open().await;
        assert_eq!(exchange(&mut stream, "hello").await.unwrap(), "hello");
        assert_eq!(link.done(), Done::default());
    }

    #[tokio::test]
    async fn a_cut_link_resets_what_is_open_and_what_is_new_until_it_is_healed() {
        let (link, mut stream) = open().await;
        exchange(&mut stream, "hello").await.unwrap();
        link.set(Mode::Cut);
        let end = timeout(SOON, stream.read(&mut [0; 8])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut refused = connect(&link).await;
        assert!(timeout(SOON, refused.read(&mut [0; 8])).await.unwrap().is_err());
        assert_eq!(link.done().cut, 2);
        link.set(Mode::Pass);
        assert_eq!(exchange(&mut connect(&link).await, "again").await.unwrap(), "again");
    }

    #[tokio::test]
    async fn a_server_that_resets_is_seen_by_a_client_that_waits_for_its_answer() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let link = Link::open(listener.local_addr().unwrap()).await.unwrap();
        let mut client = connect(&link).await;
        client.write_all(b"a question").await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.readable().await.unwrap();
        reset(&server);
        drop(server);
        let end = timeout(SOON, client.read(&mut [0; 8])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_delayed_link_is_late_but_loses_nothing() {
        let (link, mut stream) = open().await;
        link.set(Mode::Delay(Duration::from_millis(60)));
        let began = Instant::now();
        assert_eq!(exchange(&mut stream, "late").await.unwrap(), "late");
        assert!(began.elapsed() >= Duration::from_millis(120), "once each way");
        assert_eq!(link.done(), Done { cut: 0, bytes: 8 });
    }

    #[tokio::test]
    async fn a_half_open_connection_is_silent_and_is_reset_when_the_link_is_whole_again() {
        let (link, mut stream) = open().await;
        exchange(&mut stream, "hello").await.unwrap();
        link.set(Mode::HalfOpen(Lost::Answers));
        stream.write_all(b"lost").await.unwrap();
        let mut answer = [0; 8];
        assert!(timeout(Duration::from_millis(200), stream.read(&mut answer)).await.is_err(), "nothing comes");
        link.set(Mode::Pass);
        let end = timeout(SOON, stream.read(&mut answer)).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(link.done(), Done { cut: 1, bytes: 4 });
    }

    #[tokio::test]
    async fn a_half_open_link_leaves_a_connection_alone_that_lost_nothing() {
        let (link, mut stream) = open().await;
        exchange(&mut stream, "hello").await.unwrap();
        link.set(Mode::HalfOpen(Lost::Both));
        link.set(Mode::Pass);
        assert_eq!(exchange(&mut stream, "still").await.unwrap(), "still");
    }

    #[tokio::test]
    async fn a_dripping_link_passes_everything_in_the_end() {
        let (link, mut stream) = open().await;
        link.set(Mode::Drip(1, Duration::from_millis(5)));
        let text = "0123456789";
        assert_eq!(exchange(&mut stream, text).await.unwrap(), text);
        assert_eq!(link.done().bytes, 20);
    }
}
