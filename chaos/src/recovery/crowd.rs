//! The clients, their rooms, and the schedule by which they send.

use std::{ops::Range, sync::Arc, time::Duration};

use anyhow::{Context as _, Error, Result, ensure};
use e2e::{
    bench::{crowd, tokens},
    endpoints::Endpoints,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    client::{Client, Shared, State},
    ledger::{Ledger, Seat},
};

/// Messages that wait for one client while it is away.
const WORK: usize = 4096;
/// How often facts are looked at.
pub const LOOK: Duration = Duration::from_millis(20);

/// Who sends to a room: its members, in turn, by the number of a message.
pub type Room = Vec<mpsc::Sender<usize>>;

/// Where tasks tell why they can't go on.
pub type Failed = mpsc::Sender<Error>;

/// Rooms of one size and their clients, who are gone with this.
#[derive(Debug)]
pub struct Crowd {
    pub seats: Range<usize>,
    pub rooms: Vec<Room>,
    go_home: watch::Sender<u32>,
    _clients: JoinSet<()>,
}

impl Crowd {
    /// Makes people and rooms, and starts a client for each member. Where there is no `home`, they spread over all
    /// gateways.
    pub async fn start(
        endpoints: &Endpoints,
        (rooms, members): (usize, usize),
        home: Option<usize>,
        shared: &Arc<Shared>,
        failed: &Failed,
    ) -> Result<Self> {
        let people = crowd::gather(endpoints, rooms, members, |line| eprintln!("  {line}")).await?;
        let tokens = tokens::signed(endpoints, &people.users, |line| eprintln!("  {line}")).await?;
        let (go_home, told) = watch::channel(0);
        let first = shared.ledger.add_seats(tokens.len());
        let mut clients = JoinSet::new();
        let mut made: Vec<Room> = vec![Room::new(); rooms];
        for (number, token) in tokens.into_iter().enumerate() {
            let (send, work) = mpsc::channel(WORK);
            let room = number / members;
            made[room].push(send);
            let client = Client {
                shared: Arc::clone(shared),
                seat: first + number,
                token,
                conversation: people.rooms[room],
                home: home.unwrap_or(number % shared.gateways.len()),
                go_home: told.clone(),
                work,
                state: State::default(),
            };
            clients.spawn(or_tell(failed.clone(), client.run()));
        }
        Ok(Self { seats: first..first + rooms * members, rooms: made, go_home, _clients: clients })
    }

    /// Lets everybody leave for the gateway where they began.
    pub fn go_home(&self) {
        self.go_home.send_modify(|times| *times += 1);
    }

    /// Waits until all are subscribed, at that gateway if one is named.
    ///
    /// # Errors
    /// They are not within the limit.
    pub async fn seated(&self, ledger: &Ledger, at: Option<usize>, limit: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let seats = ledger.seats();
            let seated = |seat: &&Seat| match at {
                Some(gateway) => seat.gateway == Some(gateway),
                None => seat.gateway.is_some(),
            };
            let count = seats[self.seats.clone()].iter().filter(seated).count();
            if count == self.seats.len() {
                return Ok(());
            }
            ensure!(began.elapsed() < limit, "{count} of {} clients are subscribed after {limit:?}", self.seats.len());
            sleep(LOOK).await;
        }
    }
}

/// A schedule of messages; it ends with this.
#[derive(Debug)]
pub struct Schedule {
    _task: JoinSet<()>,
}

impl Schedule {
    /// `rate` messages a second into the rooms in turn.
    pub fn start(rooms: Vec<Room>, rate: f64, ledger: &Arc<Ledger>, failed: &Failed) -> Self {
        let mut task = JoinSet::new();
        task.spawn(or_tell(failed.clone(), send_on_time(rooms, rate, Arc::clone(ledger))));
        Self { _task: task }
    }
}

async fn send_on_time(rooms: Vec<Room>, rate: f64, ledger: Arc<Ledger>) -> Result<()> {
    let (began, zero) = (Instant::now(), ledger.now());
    for number in 0usize.. {
        let after = Duration::from_secs_f64(number as f64 / rate);
        sleep_until(began + after).await;
        let members = &rooms[number % rooms.len()];
        let message = ledger.add(zero + after.as_micros() as u64, members.len());
        let sender = &members[number / rooms.len() % members.len()];
        sender.try_send(message).context("too many messages wait for one client")?;
    }
    Ok(())
}

async fn or_tell(failed: Failed, task: impl Future<Output = Result<()>>) {
    if let Err(error) = task.await {
        // One is told already, if there is no room.
        let _ = failed.try_send(error);
    }
}
