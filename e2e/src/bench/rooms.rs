//! Many small rooms whose members talk: the whole pipeline at work.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    CONCURRENTLY, SET_UP,
    engine::{Engine, Scene, Sender, Window},
    head,
    options::Rooms,
    report::{self, Head},
    say, search, set_the_scene,
};
use crate::{endpoints::Endpoints, kafka};

/// The fanout workers' consumer group.
const GROUP: &str = "fanout";
const WARM_UP: Duration = Duration::from_secs(2);
/// What is under way at the end may take so long.
const DRAIN: Duration = Duration::from_secs(15);
/// When the lag is read first.
const EARLY: Duration = Duration::from_secs(10);

/// How long reading it may take behind the end.
const LAG_DEADLINE: Duration = Duration::from_secs(10);

/// Records that the workers have not stored yet.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Lag {
    at_10_s: Option<i64>,
    at_end: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Figures {
    rooms: usize,
    members: usize,
    gateways: usize,
    saturated: bool,
    window: Window,
    lag: Lag,
}

pub async fn run(endpoints: &Endpoints, options: Rooms) -> Result<()> {
    let scene = set_the_scene(endpoints, (options.rooms, options.members), 0, &options.common).await?;
    let head = head(endpoints, "rooms", &scene);
    let (json, kafka, runtime) = (options.common.json.clone(), endpoints.kafka.clone(), Handle::current());
    let measuring = tokio::task::spawn_blocking(move || measure(&options, scene, &kafka, &runtime));
    let figures = measuring.await??;
    print(&head, &figures);
    head.append(json.as_deref(), &figures)
}

fn measure(options: &Rooms, scene: Scene, kafka: &str, runtime: &Handle) -> Result<Figures> {
    let (clients, gateways) = (scene.subscribers(), scene.gateways.len());
    let mut engine = Engine::new(scene)?;
    say(&format!("connecting {clients} clients"));
    engine.connect(clients, CONCURRENTLY, SET_UP, say)?;
    let mut sender = Sender::Members;
    engine.window(&mut sender, options.rate, WARM_UP, DRAIN, &|_| {})?;
    let (window, lag) = if options.saturate {
        let best = search::highest(&mut engine, &mut sender, options.rate, options.limit)?;
        (best.with_context(|| format!("no rate was held. {}", engine.clients.complaints()))?, Lag::default())
    } else {
        let lag = Arc::new(Mutex::new(Lag::default()));
        let reading = read_lag(runtime, kafka, options.time, &lag);
        let window = engine.window(&mut sender, options.rate, options.time, DRAIN, &say)?;
        // It began at the end of the sending, and asks Kafka for each partition.
        let _ = runtime.block_on(tokio::time::timeout(LAG_DEADLINE, reading));
        let lag = *lag.lock().expect("no thread panics with it");
        (window, lag)
    };
    let (rooms, members) = (options.rooms, options.members);
    Ok(Figures { rooms, members, gateways, saturated: options.saturate, window, lag })
}

/// Reads the lag at second 10 and at the end of the sending, beside it.
fn read_lag(runtime: &Handle, kafka: &str, time: Duration, lag: &Arc<Mutex<Lag>>) -> JoinHandle<()> {
    let (kafka, lag) = (kafka.to_owned(), Arc::clone(lag));
    let read = async move |kafka: &str| kafka::lag(kafka, GROUP, proto::topics::MESSAGE_EVENTS).await.ok();
    runtime.spawn(async move {
        if time > EARLY {
            tokio::time::sleep(EARLY).await;
            let found = read(&kafka).await;
            lag.lock().expect("no thread panics with it").at_10_s = found;
        }
        tokio::time::sleep(time.saturating_sub(EARLY)).await;
        let found = read(&kafka).await;
        lag.lock().expect("no thread panics with it").at_end = found;
    })
}

fn print(head: &Head, figures: &Figures) {
    print!("{head}");
    let Figures { rooms, members, gateways, window, lag, .. } = figures;
    println!("{rooms} rooms of {members} on {gateways} gateways; who sends gets the message too\n");
    if figures.saturated {
        println!("  the highest rate that was held (p99 <= 500 ms, >= 99 % delivered, nobody closed):\n");
    }
    report::print_windows(std::slice::from_ref(window));
    report::print_processes(window);
    let known = |lag: Option<i64>| lag.map_or_else(|| "not read".to_owned(), |lag| lag.to_string());
    println!("  workers' lag, records: {} at 10 s, {} at the end", known(lag.at_10_s), known(lag.at_end));
    let early = window.outstanding_at_10_s.map_or_else(|| "not read".to_owned(), |count| count.to_string());
    println!("  deliveries outstanding: {early} at 10 s, {} at the end of the sending", window.outstanding_at_end);
}
