//! What the integration tests share: the running stack, people of their own, and waiting for facts.
//!
//! All tests use one stack at the same time, so each makes its own people and conversations.

pub mod processes;

use std::{fmt, future::Future, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use sqlx::{Connection as _, MySqlConnection};
use tokio::{
    process::Command,
    time::{Instant, interval},
};

use crate::{
    endpoints::{Endpoints, websocket},
    people::PASSWORD,
    rest::{Rest, Session},
    stomp::Client,
};

/// How long a fact may take to come true, on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How often to look.
const POLL: Duration = Duration::from_millis(50);

/// The stack under test.
#[derive(Debug)]
pub struct Stack {
    pub endpoints: Endpoints,
    pub rest: Rest,
}

/// Somebody of one test.
pub type Person = Session;

impl Stack {
    /// The stack that `cargo xtask test` has started.
    pub fn get() -> Result<Self> {
        let endpoints = Endpoints::load(None)?;
        let rest = Rest::new(&endpoints.core);
        Ok(Self { endpoints, rest })
    }

    /// A new account; `name` helps to read logs.
    pub async fn person(&self, name: &str) -> Result<Person> {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        // The end of a UUIDv7 is random, its start is the time.
        self.rest.register(&format!("{name}-{}", &unique[20..]), PASSWORD).await
    }

    /// As many new accounts as there are names.
    pub async fn people<const N: usize>(&self, names: [&str; N]) -> Result<[Person; N]> {
        let people = futures_util::future::try_join_all(names.map(|name| self.person(name))).await?;
        Ok(people.try_into().expect("one person for each name"))
    }

    /// A channel of these people; the first one owns it.
    pub async fn channel(&self, people: &[&Person]) -> Result<i64> {
        let members: Vec<i64> = people[1..].iter().map(|person| person.user_id).collect();
        self.rest.create_conversation(&people[0].token, "channel", "test", &members).await
    }

    /// The WebSocket address of a gateway, by number from 0; they repeat where the stack has fewer.
    pub fn gateway(&self, number: usize) -> String {
        websocket(&self.endpoints.gateways[number % self.endpoints.gateways.len()])
    }

    /// A command of the program that runs as that process, with the process's configuration: what an operator calls.
    pub fn program(&self, process: &str) -> Result<Command> {
        let pid = self.endpoints.process(process)?.pid;
        let program =
            std::fs::read_link(format!("/proc/{pid}/exe")).with_context(|| format!("the program of {process}"))?;
        // Built again since the process was started.
        let program = program.to_string_lossy();
        let mut command = Command::new(program.trim_end_matches(" (deleted)"));
        command.arg("--config").arg(self.endpoints.folder.join("run").join(format!("{process}.yaml")));
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// A session of that person at that gateway, subscribed to its refusals.
    pub async fn connect(&self, person: &Person, gateway: usize) -> Result<Client> {
        let mut client = Client::connect(&self.gateway(gateway), &person.token).await?;
        client.subscribe("/user/queue/errors").await?;
        Ok(client)
    }

    /// The seq up to which this person's clients have acknowledged, as core has stored it.
    pub async fn delivered(&self, person: &Person, conversation: i64) -> Result<Option<i64>> {
        let mut mysql = MySqlConnection::connect(&self.endpoints.mysql).await?;
        let query = "SELECT delivered_seq FROM message_acks WHERE user_id = ? AND conversation_id = ?";
        Ok(sqlx::query_scalar(query).bind(person.user_id).bind(conversation).fetch_optional(&mut mysql).await?)
    }

    /// Waits until that is `seq`.
    pub async fn delivered_becomes(&self, person: &Person, conversation: i64, seq: i64) -> Result<()> {
        eventually(format!("{seq} is the delivered position"), async || {
            Ok((self.delivered(person, conversation).await? == Some(seq)).then_some(()))
        })
        .await
    }
}

/// Asks again and again until `ask` gives something.
///
/// # Errors
/// Nothing came within [`DEADLINE`], or `ask` failed.
pub async fn eventually<T, F>(what: impl fmt::Display, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + DEADLINE;
    let mut polls = interval(POLL);
    loop {
        polls.tick().await;
        if let Some(found) = ask().await.with_context(|| format!("waiting for: {what}"))? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {DEADLINE:?}");
        }
    }
}
