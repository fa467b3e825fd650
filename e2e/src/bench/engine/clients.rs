//! All connections of a generator, and what they do with what they read.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;
use hdrhistogram::Histogram;
use mio::{Interest, Registry, Token, event::Event, net::TcpStream};
use socket2::{Domain, Socket, Type};

use super::{
    Scene,
    counts::{Counts, histogram, record},
    dialect::{Outgoing, Said},
};
use crate::{
    bench::wire::{self, Stamps},
    processes::{self, Usage},
};

/// What is read at once, for all connections.
const BUFFER: usize = 256 * 1024;
/// A set-up that failed is tried again after this.
const RETRY: Duration = Duration::from_millis(50);
/// Where clients of a gateway on loopback come from, and how many from each address.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub const PER_ADDRESS: usize = 1000;
/// What a connect() that does not wait answers (Linux).
const EINPROGRESS: i32 = 115;
/// Receive buffer of a client that does not read, bytes: the kernel does not grow it any more. With less than a few
/// segments of loopback, what is left would come in drops when it reads again.
const STALLED_BUFFER: usize = 128 * 1024;
/// Complaints that are kept.
const COMPLAINTS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not there yet, or not any more.
    Away,
    Connecting,
    Upgrading,
    Greeting,
    Subscribing,
    Ready,
}

/// One connection.
struct Client {
    state: State,
    stream: Option<TcpStream>,
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
    /// What the socket did not take yet.
    out: Vec<u8>,
    began: u64,
    /// Whether a message of the current count came.
    got: bool,
    /// It does not read.
    stalled: bool,
}

/// Begins to connect. Of a gateway on loopback the clients come from several addresses, as strangers would: it has a
/// limit for each, and each has a limit of ports.
fn connect(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() && address.ip().is_loopback() {
        let from = Ipv4Addr::from(u32::from(FIRST_ADDRESS) + (number / PER_ADDRESS) as u32);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock && error.raw_os_error() != Some(EINPROGRESS) => {
            return Err(error);
        }
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// See the module.
pub struct Clients {
    pub scene: Scene,
    pub counts: Counts,
    /// Latencies of messages that were stamped since `window_from`, microseconds.
    pub latency: Histogram<u64>,
    /// From the stamp of a SEND to its RECEIPT.
    pub receipts: Histogram<u64>,
    /// From connect() to the end of the set-up.
    pub setup: Histogram<u64>,
    pub window_from: u64,
    clients: Vec<Client>,
    registry: Registry,
    buffer: Vec<u8>,
    stamps: Stamps,
    zero: Instant,
    /// Who waits to connect, and when a failed one may again.
    waiting: VecDeque<usize>,
    failed: VecDeque<(u64, usize)>,
    opening: usize,
    concurrently: usize,
    ready: usize,
    got: usize,
    beats: u64,
    beats_from: u64,
    mask: u32,
    complaints: Vec<String>,
}

impl Clients {
    pub fn new(scene: Scene, registry: Registry) -> Self {
        Self {
            scene,
            counts: Counts::default(),
            latency: histogram(),
            receipts: histogram(),
            setup: histogram(),
            window_from: 0,
            clients: Vec::new(),
            registry,
            buffer: vec![0; BUFFER],
            stamps: Stamps::new(),
            zero: Instant::now(),
            waiting: VecDeque::new(),
            failed: VecDeque::new(),
            opening: 0,
            concurrently: 0,
            ready: 0,
            got: 0,
            beats: 0,
            beats_from: 0,
            mask: 0x9e37_79b9,
            complaints: Vec::new(),
        }
    }

    /// Nanoseconds of the generator's clock.
    pub fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Clients whose set-up is done.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// Clients that got a message since [`Self::forget_messages`].
    pub fn got(&self) -> usize {
        self.got
    }

    pub fn forget_messages(&mut self) {
        self.got = 0;
        self.clients.iter_mut().for_each(|client| client.got = false);
    }

    /// What went wrong, in the gateways' words.
    pub fn complaints(&self) -> String {
        if self.complaints.is_empty() { "nobody said why".to_owned() } else { self.complaints.join("; ") }
    }

    /// What all processes have used so far, this one last.
    pub fn usage(&self) -> Vec<Usage> {
        let mut usage = processes::read(&self.scene.processes);
        usage.extend(processes::own(processes::GENERATOR));
        usage
    }

    /// Lets `0..count` connect.
    pub fn open(&mut self, count: usize, concurrently: usize) {
        self.concurrently = concurrently;
        self.clients.resize_with(count.max(self.clients.len()), || Client {
            state: State::Away,
            stream: None,
            partial: Vec::new(),
            out: Vec::new(),
            began: 0,
            got: false,
            stalled: false,
        });
        self.waiting = (0..count).filter(|number| self.clients[*number].state == State::Away).collect();
        self.failed.clear();
        self.beats_from = self.now();
        self.beats = 0;
    }

    /// Closes all connections at once.
    pub fn drop_all(&mut self) {
        for client in &mut self.clients {
            client.stream = None;
            client.state = State::Away;
            client.partial = Vec::new();
            client.out = Vec::new();
        }
        self.ready = 0;
        self.opening = 0;
    }

    /// From now on the first `count` clients read nothing, with a receive buffer that stays small.
    pub fn stall(&mut self, count: usize) -> Result<()> {
        for client in &mut self.clients[..count] {
            let Some(stream) = &mut client.stream else { continue };
            self.registry.deregister(stream)?;
            socket2::SockRef::from(&*stream).set_recv_buffer_size(STALLED_BUFFER)?;
            client.stalled = true;
        }
        Ok(())
    }

    /// Those who have stalled read again.
    pub fn go_on(&mut self) -> Result<()> {
        for (number, client) in self.clients.iter_mut().enumerate().filter(|(_, client)| client.stalled) {
            client.stalled = false;
            let Some(stream) = &mut client.stream else { continue };
            self.registry.register(stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        }
        Ok(())
    }

    /// Subscribers of a room that read.
    pub fn readers(&self) -> usize {
        self.scene.members - self.clients.iter().filter(|client| client.stalled).count()
    }

    /// Starts set-ups, as many as may be under way.
    pub fn begin_more(&mut self) -> Result<()> {
        let now = self.now();
        while let Some((_, number)) = self.failed.front().filter(|(due, _)| *due <= now).copied() {
            self.failed.pop_front();
            self.waiting.push_back(number);
        }
        while self.opening < self.concurrently
            && let Some(number) = self.waiting.pop_front()
        {
            let address = self.scene.gateways[number % self.scene.gateways.len()];
            let mut stream = connect(address, number)?;
            self.registry.register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            let began = self.now();
            let client = &mut self.clients[number];
            (client.stream, client.state, client.began) = (Some(stream), State::Connecting, began);
            self.opening += 1;
        }
        Ok(())
    }

    /// Sends the heart-beats that are due: one of each client an interval, spread over it.
    pub fn beat(&mut self) {
        let Some(interval) = self.scene.heart_beat.filter(|_| self.ready > 0) else { return };
        let count = self.clients.len() as u64;
        let due = (self.now() - self.beats_from) as u128 * u128::from(count) / interval.as_nanos().max(1);
        while u128::from(self.beats) < due {
            let number = usize::try_from(self.beats % count).unwrap_or(0);
            self.beats += 1;
            if self.clients[number].state == State::Ready {
                self.write(number, |out| out.push(b'\n'));
            }
        }
    }

    /// Sends a stamped message.
    pub fn send(&mut self, number: usize, room: usize, stamp: u64) {
        self.counts.sent += 1;
        let Scene { dialect, size, receipts, .. } = self.scene;
        let id = (number, self.counts.sent);
        let message = Outgoing { room: self.scene.rooms[room], stamp, size, receipt: receipts, id };
        self.write(number, |out| dialect.put_message(out, &message));
    }

    /// What `epoll` said of one connection.
    pub fn handle(&mut self, event: &Event) {
        let Token(number) = event.token();
        // Of a connection that was dropped meanwhile, or the feed's.
        if self.clients.get(number).is_none_or(|client| client.stream.is_none()) {
            return;
        }
        if event.is_writable() {
            if self.clients[number].state == State::Connecting && !self.connected(number) {
                return;
            }
            self.flush(number);
        }
        if event.is_readable() || event.is_error() {
            self.read(number, event.is_read_closed() || event.is_error());
        }
    }

    /// The TCP connection is there: asks for the upgrade. `false`: it is not.
    fn connected(&mut self, number: usize) -> bool {
        let dialect = self.scene.dialect;
        let client = &mut self.clients[number];
        let Some(stream) = &client.stream else { return false };
        if let Ok(Some(error)) | Err(error) = stream.take_error() {
            self.ended(number, &error.to_string());
            return false;
        }
        let Ok(peer) = stream.peer_addr() else { return false };
        let _ = stream.set_nodelay(true);
        client.state = State::Upgrading;
        wire::put_upgrade(&mut client.out, &peer.to_string(), dialect.path(), dialect.subprotocol());
        true
    }

    /// Reads what is there. A read that does not fill the buffer has taken all (epoll(7)).
    fn read(&mut self, number: usize, to_the_end: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(stream) = &mut self.clients[number].stream {
            match stream.read(&mut buffer) {
                Ok(0) => {
                    self.ended(number, "the gateway closed the connection");
                    break;
                }
                Ok(read) => {
                    self.counts.reads += 1;
                    self.counts.bytes += read as u64;
                    self.take(number, &buffer[..read]);
                    if read < buffer.len() && !to_the_end {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended(number, &error.to_string());
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Handles all whole frames, together with what was left of the last read, and keeps the rest.
    fn take(&mut self, number: usize, read: &[u8]) {
        let now = self.now();
        let mut kept = std::mem::take(&mut self.clients[number].partial);
        let bytes = if kept.is_empty() {
            read
        } else {
            kept.extend_from_slice(read);
            &kept
        };
        let mut at = 0;
        if self.clients[number].state == State::Upgrading {
            match wire::upgraded(bytes) {
                Ok(Some(end)) => {
                    at = end;
                    self.greet(number);
                }
                Ok(None) => {
                    self.clients[number].partial = bytes.to_vec();
                    return;
                }
                Err(error) => return self.ended(number, &error.to_string()),
            }
        }
        while let Some(frame) = wire::frame(&bytes[at..]) {
            at += frame.len;
            if frame.is_fragment {
                return self.ended(number, "a fragmented message: this generator reads whole ones only");
            }
            match frame.opcode {
                wire::TEXT | wire::BINARY => self.understand(number, frame.payload, now),
                wire::PING => self.control(number, wire::PONG, frame.payload),
                wire::CLOSE => {
                    let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default());
                    let code = frame.payload.get(..2).map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
                    return self.ended(number, &format!("closed with {code} {reason}"));
                }
                _ => {}
            }
            if self.clients[number].stream.is_none() {
                return;
            }
        }
        if at < bytes.len() {
            self.clients[number].partial = bytes[at..].to_vec();
        }
    }

    /// The frames of one WebSocket message.
    fn understand(&mut self, number: usize, mut bytes: &[u8], now: u64) {
        let dialect = self.scene.dialect;
        while let Some(frame) = dialect.next(&mut bytes) {
            match dialect.understand(frame) {
                Said::Message => self.message(number, frame, now),
                Said::Receipt => self.receipt(number, frame, now),
                Said::Connected => self.greeted(number, now),
                Said::Ping => self.write(number, |out| out.extend_from_slice(frame)),
                Said::Refused => {
                    self.counts.errors += 1;
                    self.complain(number, &String::from_utf8_lossy(&frame[..frame.len().min(300)]));
                }
            }
        }
    }

    fn message(&mut self, number: usize, frame: &[u8], now: u64) {
        // RESUMED and the like bear none.
        let Some(stamp) = self.stamps.read(frame) else { return };
        self.counts.delivered += 1;
        if stamp < self.window_from || stamp > now {
            self.counts.stale += 1;
            return;
        }
        record(&mut self.latency, now - stamp);
        let client = &mut self.clients[number];
        if !client.got {
            client.got = true;
            self.got += 1;
        }
    }

    fn receipt(&mut self, number: usize, frame: &[u8], now: u64) {
        if self.clients[number].state == State::Subscribing {
            return self.set_up(number, now);
        }
        self.counts.acknowledged += 1;
        let stamp = wire::header(frame, "receipt-id").and_then(|id| str::from_utf8(id).ok()?.parse::<u64>().ok());
        if let Some(stamp) = stamp.filter(|stamp| (self.window_from..=now).contains(stamp)) {
            record(&mut self.receipts, now - stamp);
        }
    }

    /// CONNECT.
    fn greet(&mut self, number: usize) {
        self.clients[number].state = State::Greeting;
        let publishers_from = self.scene.subscribers();
        let user = number.checked_sub(publishers_from).unwrap_or(number);
        let token = std::mem::take(&mut self.scene.tokens[user]);
        let beat = self.scene.heart_beat.map_or(0, |interval| interval.as_millis());
        let dialect = self.scene.dialect;
        self.write(number, |out| dialect.put_connect(out, &token, beat));
        self.scene.tokens[user] = token;
    }

    /// SUBSCRIBE, of those who do.
    fn greeted(&mut self, number: usize, now: u64) {
        if number >= self.scene.subscribers() {
            return self.set_up(number, now);
        }
        self.clients[number].state = State::Subscribing;
        let (dialect, room) = (self.scene.dialect, self.scene.rooms[number / self.scene.members]);
        self.write(number, |out| dialect.put_subscribe(out, room));
    }

    fn set_up(&mut self, number: usize, now: u64) {
        let client = &mut self.clients[number];
        client.state = State::Ready;
        self.opening -= 1;
        self.ready += 1;
        record(&mut self.setup, now - client.began);
    }

    /// The connection is over; one that was not set up is tried again.
    fn ended(&mut self, number: usize, why: &str) {
        self.complain(number, why);
        let again = self.now() + RETRY.as_nanos() as u64;
        let client = &mut self.clients[number];
        let was = std::mem::replace(&mut client.state, State::Away);
        client.stream = None;
        client.partial = Vec::new();
        client.out = Vec::new();
        match was {
            State::Away => {}
            State::Ready => {
                self.ready -= 1;
                self.counts.closed += 1;
            }
            _ => {
                self.opening -= 1;
                self.counts.retries += 1;
                self.failed.push_back((again, number));
            }
        }
    }

    fn complain(&mut self, number: usize, why: &str) {
        if self.complaints.len() < COMPLAINTS {
            self.complaints.push(format!("client {number}: {why}"));
        }
    }

    fn control(&mut self, number: usize, opcode: u8, payload: &[u8]) {
        let mask = self.next_mask();
        wire::put(&mut self.clients[number].out, opcode, mask, |out| out.extend_from_slice(payload));
        self.flush(number);
    }

    /// Writes one text frame.
    fn write(&mut self, number: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        let mask = self.next_mask();
        wire::put(&mut self.clients[number].out, wire::TEXT, mask, fill);
        self.flush(number);
    }

    /// Writes what the socket takes; the rest waits until it is writable.
    fn flush(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(stream) = &mut client.stream else { return client.out.clear() };
        while !client.out.is_empty() {
            match stream.write(&client.out) {
                Ok(written) => drop(client.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.ended(number, &error.to_string()),
            }
        }
        // Thousands of these lie idle.
        client.out = Vec::new();
    }

    /// xorshift: keys differ from frame to frame, which is all that a server may rely on.
    fn next_mask(&mut self) -> u32 {
        self.mask ^= self.mask << 13;
        self.mask ^= self.mask >> 17;
        self.mask ^= self.mask << 5;
        self.mask
    }
}
