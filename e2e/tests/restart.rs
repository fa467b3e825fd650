//! Processes that are told to go: by a signal, by two, and one after the other under load.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    endpoints::Endpoints,
    history::History,
    stomp::{Client, Frame, Incoming, Refusal},
    testing::{
        DEADLINE, Person, Stack, eventually,
        processes::{Log, alone, has_ended, restart, signal},
    },
};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

/// What was told to go at once must be gone by then: far below what a drain takes.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Before a client that could not connect tries the next gateway.
const RECONNECT_AFTER: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_second_signal_ends_each_service_at_once() -> Result<()> {
    alone(two_signals()).await
}

async fn two_signals() -> Result<()> {
    let stack = Stack::get()?;
    // Both have something that keeps them from ending by themselves: clients that are told to go over a window, and a
    // request whose body does not come.
    let alice = stack.person("alice").await?;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(stack.connect(&alice, 2).await?);
    }
    let core = stack.endpoints.core[0].trim_start_matches("http://").to_owned();
    let mut request = TcpStream::connect(&core).await?;
    request
        .write_all(
            b"POST /auth/login HTTP/1.1\r\nhost: core\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        )
        .await?;
    for (name, second) in [("socket-gateway-3", "TERM"), ("core-services-1", "INT"), ("fanout-worker-1", "INT")] {
        let log = Log::of(name)?;
        let process = signal(name, "TERM").await?;
        if name != "fanout-worker-1" {
            eventually(format!("{name} drains"), || async { Ok(log.text()?.contains("draining").then_some(())) })
                .await?;
            ensure!(!has_ended(process.pid), "{name} has nothing to drain");
        }
        let told = Instant::now();
        signal(name, second).await.context("the second signal")?;
        eventually(format!("{name} ends"), || async { Ok(has_ended(process.pid).then_some(())) }).await?;
        ensure!(told.elapsed() < AT_ONCE, "{name} took {:?}", told.elapsed());
        let said = log.text()?;
        ensure!(said.contains("a second signal: stopping now"), "{name} says:\n{said}");
    }
    Ok(())
}

/// What all clients of a run have seen.
#[derive(Default)]
struct Seen {
    history: History,
    /// When a text was sent first.
    sent: HashMap<String, Instant>,
    /// The longest time from there to a client.
    slowest: Duration,
    /// Close codes, by how many connections had them.
    closed: HashMap<Option<u16>, usize>,
}

struct Run {
    stack: Stack,
    seen: Mutex<Seen>,
    /// Nothing more is sent.
    enough: CancellationToken,
    /// Nothing more is read.
    stop: CancellationToken,
}

impl Run {
    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Follows all conversations of a person, from one gateway to the next, as a client does.
async fn follow(run: Arc<Run>, person: Person, number: usize) -> Result<()> {
    let mut position: HashMap<String, (i64, i64)> = HashMap::new();
    let mut user_seq = 0;
    for gateway in number.. {
        if run.stop.is_cancelled() {
            return Ok(());
        }
        let Ok(mut client) = Client::connect(&run.stack.gateway(gateway), &person.token).await else {
            sleep(RECONNECT_AFTER).await;
            continue;
        };
        let conversations: HashMap<_, _> =
            position.iter().map(|(id, (seq, epoch))| (id, json!({ "seq": seq, "epoch": epoch }))).collect();
        let resume = json!({ "conversations": conversations, "user_seq": user_seq }).to_string();
        let resume = Frame::new("SEND").with("destination", "/app/resume").with_body(resume);
        let subscribe = Frame::new("SUBSCRIBE").with("id", "q").with("destination", "/user/queue/events");
        let first = position.is_empty();
        if (!first && client.write(&resume).await.is_err()) || client.write(&subscribe).await.is_err() {
            continue;
        }
        let (_writer, mut reader, _) = client.split();
        loop {
            let incoming = tokio::select! {
                () = run.stop.cancelled() => return Ok(()),
                incoming = reader.next() => incoming?,
            };
            let frame = match incoming {
                Incoming::Frame { frame, .. } => frame,
                Incoming::Closed(closed) => {
                    run.seen(|seen| *seen.closed.entry(closed.code).or_default() += 1);
                    break;
                }
            };
            if let Some(refusal) = Refusal::of(&frame) {
                bail!("{}: {refusal}", person.username);
            }
            let body = frame.json();
            let (conversation, epoch) = (frame.number("conversation-id"), frame.number("epoch"));
            let (Some(conversation), Some(epoch)) = (conversation, epoch) else { continue };
            let after = body["data"]["after_seq"].as_i64();
            run.seen(|seen| match (frame.number("seq"), after) {
                (Some(seq), _) => {
                    let text = body["data"]["body"].as_str();
                    seen.history.received(&person.username, conversation, seq, text);
                    let sent = text.and_then(|text| seen.sent.get(text));
                    seen.slowest = sent.map_or(seen.slowest, |sent| seen.slowest.max(sent.elapsed()));
                }
                (None, Some(after)) => seen.history.opened(&person.username, conversation, after),
                (None, None) => {}
            });
            let told = frame.number("user-seq").or(body["data"]["user_seq"].as_i64()).unwrap_or(0);
            user_seq = user_seq.max(told);
            if let Some(seq) = frame.number("seq").or(after) {
                position.insert(conversation.to_string(), (seq, epoch));
            }
        }
    }
    Ok(())
}

/// Sends until it is told to stop; what was not acknowledged is sent again under the same name.
async fn talk(run: Arc<Run>, person: Person, conversation: i64, number: usize) -> Result<()> {
    let mut gateway = number;
    let mut client: Option<Client> = None;
    let mut pace = interval(Duration::from_millis(100));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for message in 0.. {
        pace.tick().await;
        if run.enough.is_cancelled() {
            return Ok(());
        }
        let text = format!("{conversation} {message}");
        let body = json!({ "body": text, "client_message_id": text });
        run.seen(|seen| seen.sent.insert(text.clone(), Instant::now()));
        let begun = Instant::now();
        loop {
            ensure!(begun.elapsed() < DEADLINE, "nobody takes {text:?}");
            if client.is_none() {
                client = run.stack.connect(&person, gateway).await.ok();
            }
            let sent = match &mut client {
                Some(client) => client.send_message(conversation, &body).await,
                None => Err(anyhow::anyhow!("not connected")),
            };
            match sent {
                Ok(receipt) => {
                    run.seen(|seen| seen.history.acknowledged(conversation, receipt.seq, &text));
                    break;
                }
                Err(error) => match error.downcast_ref::<Refusal>() {
                    Some(refusal) if refusal.code != "unavailable" => bail!("{text:?}: {refusal}"),
                    _ => {
                        client = None;
                        gateway += 1;
                        sleep(RECONNECT_AFTER).await;
                    }
                },
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_services_under_load_loses_nothing_and_delays_nothing_for_long() -> Result<()> {
    alone(rolling_restart()).await
}

async fn rolling_restart() -> Result<()> {
    const ROOMS: usize = 4;
    const MEMBERS: usize = 4;
    /// Of the slowest message, restarts of everything on a small machine included.
    const LATE: Duration = Duration::from_secs(15);
    let run = Arc::new(Run {
        stack: Stack::get()?,
        seen: Mutex::default(),
        enough: CancellationToken::new(),
        stop: CancellationToken::new(),
    });
    let mut tasks = JoinSet::new();
    for room in 0..ROOMS {
        let members = run.stack.people::<MEMBERS>(["alice", "bob", "carol", "dave"]).await?;
        let conversation = run.stack.channel(&members.iter().collect::<Vec<_>>()).await?;
        tasks.spawn(talk(Arc::clone(&run), members[0].clone(), conversation, room));
        for (number, member) in members.into_iter().enumerate() {
            tasks.spawn(follow(Arc::clone(&run), member, room + number));
        }
    }
    let all = ROOMS * MEMBERS;
    eventually("everybody gets messages", || async {
        Ok((run.seen(|seen| seen.history.verdict().deliveries) > 3 * all).then_some(()))
    })
    .await?;

    let stopped = Endpoints::load(None)?.processes;
    let services = ["socket-gateway-", "core-services-", "fanout-worker-"];
    let stopped = stopped.iter().filter(|process| services.iter().any(|kind| process.name.starts_with(kind)));
    for process in stopped {
        let log = Log::of(&process.name)?;
        let before = run.seen(|seen| seen.closed.get(&Some(1001)).copied().unwrap_or(0));
        restart(&process.name).await?;
        let said = log.text()?;
        ensure!(said.contains("draining") && said.contains(" stopped\n"), "{} says:\n{said}", process.name);
        ensure!(!said.contains("stopped with an error"), "{} says:\n{said}", process.name);
        let (closed, slowest) =
            run.seen(|seen| (seen.closed.get(&Some(1001)).copied().unwrap_or(0) - before, seen.slowest));
        println!("{}: {closed} clients told to go; the slowest message so far took {slowest:?}", process.name);
        if let Some(ended) = tasks.try_join_next() {
            ended??;
            bail!("a client has ended");
        }
    }

    run.enough.cancel();
    for _ in 0..ROOMS {
        // Who follows goes on.
        tasks.join_next().await.context("nobody sends")???;
    }
    eventually("all is delivered", || async { Ok((run.seen(|seen| seen.history.outstanding()) == 0).then_some(())) })
        .await?;
    run.stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    run.seen(|seen| {
        let verdict = seen.history.verdict();
        println!("{verdict}; closed: {:?}; the slowest took {:?}", seen.closed, seen.slowest);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!(seen.closed.keys().collect::<Vec<_>>(), [&Some(1001)], "nobody is cut off");
        assert!(seen.slowest < LATE, "{:?}", seen.slowest);
    });
    Ok(())
}
