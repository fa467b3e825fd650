//! Who uses the stack during a run, and what they do.
//!
//! Some hundreds of people are in channels, groups and direct messages ([`people`]), with one client each ([`client`]),
//! some with two. Clients send at a rate, disconnect, come back to another gateway and resume; some people join and leave
//! ([`membership`]). Everything is drawn from the run's seed; what the stack makes of it is not.

mod client;
mod lanes;
mod membership;
mod people;
mod session;
mod view;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::history::Clock;

pub use client::{Style, topic_name};
pub(crate) use lanes::Lanes;
pub use membership::Mover;
pub use people::{Conversation, People, Person, gather};
pub use view::{MINE, View};

/// One in so many people has two clients.
const WITH_TWO: usize = 5;
/// Changes of memberships that wait for a client which is not connected.
const COMMANDS: usize = 256;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub clients: usize,
    /// Messages a second, over all clients.
    pub rate: f64,
    /// How long a session lasts on average.
    pub session: Duration,
    /// Changes of memberships a second.
    pub changes: f64,
}

/// What the clients are told to do; in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connect, subscribe and stay.
    Arrive,
    /// Send, disconnect, come back.
    Use,
    /// Send nothing new and stay, but get an answer for everything that was sent.
    Quiet,
    /// Reconnect once more and resume everything.
    Again,
    /// Leave.
    Close,
}

/// What a client is told of its user's memberships: the answers of requests that others made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Joined(i64),
    Left(i64),
}

/// What all clients share.
#[derive(Debug)]
pub struct Setting {
    /// WebSocket addresses.
    pub gateways: Vec<String>,
    pub load: Load,
    pub clock: Clock,
    /// The run's.
    pub folder: PathBuf,
    pub seed: u64,
    pub refusals: Refusals,
}

/// What clients were refused, in words, and how often: for people who look for a cause.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<String, u64>>);

impl Refusals {
    pub fn count(&self, what: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All clients, from outside.
#[derive(Debug)]
pub struct Crowd {
    pub members: Vec<Member>,
    phase: watch::Sender<Phase>,
}

/// All clients, each a task.
#[derive(Debug)]
pub struct Clients(JoinSet<Result<()>>);

/// A client as seen from outside; two may be of the same person.
#[derive(Clone, Debug)]
pub struct Member {
    pub person: Person,
    pub style: Style,
    pub view: Arc<View>,
    pub tell: mpsc::Sender<Told>,
}

/// A client to be started.
#[derive(Debug)]
struct Wanted<'p> {
    name: String,
    person: &'p Person,
    style: Style,
}

/// How many of so many people have two clients.
pub fn with_two(people: usize) -> usize {
    people.div_ceil(WITH_TWO)
}

/// One for each person, then the second ones.
fn wanted(everybody: &[Person]) -> Vec<Wanted<'_>> {
    let first = everybody.iter().enumerate();
    let first = first.map(|(number, person)| Wanted { name: person.name.clone(), person, style: Style::of(number) });
    let second = everybody.iter().step_by(WITH_TWO).enumerate().map(|(number, person)| Wanted {
        name: format!("{}-too", person.name),
        person,
        style: Style::of_a_second(number),
    });
    first.chain(second).collect()
}

impl Crowd {
    /// Starts everybody's clients.
    pub fn start(people: &People, setting: &Arc<Setting>) -> Result<(Self, Clients)> {
        let (phase, watched) = watch::channel(Phase::Arrive);
        let mut crowd = Self { members: Vec::new(), phase };
        let mut clients = Clients(JoinSet::new());
        for (number, Wanted { name, person, style }) in wanted(&people.everybody).into_iter().enumerate() {
            let (tell, told) = mpsc::channel(COMMANDS);
            let view = Arc::<View>::default();
            let mine = people.conversations.iter().filter(|one| one.members.contains(&person.user));
            let mine = mine.map(|conversation| conversation.id).collect();
            let setting = Arc::clone(setting);
            let client = client::Client::new(number, name, person.clone(), style, mine, setting, Arc::clone(&view))?;
            clients.0.spawn(client.run(told, watched.clone()));
            crowd.members.push(Member { person: person.clone(), style, view, tell });
        }
        Ok((crowd, clients))
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

impl Clients {
    /// A client that can't go on (a full disk, a frame that is none) ends the run.
    ///
    /// # Errors
    /// Why it can't.
    pub async fn failed(&mut self) -> Result<()> {
        match self.0.join_next().await {
            Some(ended) => ended.context("a client panicked")?.context("a client failed"),
            None => std::future::pending().await,
        }
    }

    /// Waits until all have left.
    pub async fn gone(mut self) -> Result<()> {
        while let Some(ended) = self.0.join_next().await {
            ended.context("a client panicked")?.context("a client failed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fifth_has_two_clients_with_names_of_their_own_and_often_both_follow_everything() {
        let person = |number: i64| Person { name: format!("p-{number}"), user: number, token: String::new() };
        let everybody: Vec<Person> = (0..31).map(person).collect();
        let clients = wanted(&everybody);
        let names: std::collections::BTreeSet<&str> = clients.iter().map(|client| client.name.as_str()).collect();
        assert_eq!((clients.len(), names.len(), with_two(31)), (38, 38, 7));
        let second = &clients[31..];
        assert!(second.iter().all(|client| client.person.user % 5 == 0 && client.style.mine));
        let both = second.iter().filter(|client| clients[client.person.user as usize].style.mine).count();
        assert!(both >= 4, "{both}");
    }
}
