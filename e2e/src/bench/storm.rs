//! All clients lose their connections at once, and all come back at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{
    CONCURRENTLY, SET_UP,
    engine::{Engine, ProcessUse, Scene, is_server, quantile_ms, used},
    head,
    options::Storm,
    report::Head,
    say, set_the_scene,
};
use crate::{endpoints::Endpoints, table};

/// Between the first set-up and the storm.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the messages may take.
const MESSAGES: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
struct Figures {
    clients: usize,
    members: usize,
    gateways: usize,
    /// From the drop until the last client's SUBSCRIBE was confirmed.
    subscribed_s: f64,
    /// From the drop until the last client got a message.
    got_message_s: f64,
    setup_p50_ms: f64,
    setup_p99_ms: f64,
    retries: u64,
    gateway_us_per_reconnect: f64,
    reconnecting: Vec<ProcessUse>,
}

pub async fn run(endpoints: &Endpoints, options: Storm) -> Result<()> {
    let rooms = options.clients / options.members;
    ensure!(rooms * options.members == options.clients, "--clients must be a multiple of --members");
    let scene = set_the_scene(endpoints, (rooms, options.members), 0, &options.common).await?;
    let mut head = head(endpoints, "storm", &scene);
    head.note("once all are subscribed, one member of each room sends".to_owned());
    let json = options.common.json.clone();
    let figures = tokio::task::spawn_blocking(move || measure(&options, scene)).await??;
    print(&head, &figures);
    head.append(json.as_deref(), &figures)
}

fn measure(options: &Storm, scene: Scene) -> Result<Figures> {
    let (clients, rooms, gateways) = (scene.subscribers(), scene.rooms.len(), scene.gateways.len());
    let mut engine = Engine::new(scene)?;
    say(&format!("connecting {clients} clients"));
    engine.connect(clients, CONCURRENTLY, SET_UP, say)?;
    engine.idle(SETTLE)?;

    say("dropping all of them");
    let dropped = Instant::now();
    engine.clients.drop_all();
    let back = engine.connect(clients, clients, SET_UP, say)?;
    let subscribed = dropped.elapsed();
    engine.clients.forget_messages();
    engine.clients.window_from = engine.clients.now();
    for room in 0..rooms {
        let stamp = engine.clients.now();
        engine.clients.send(room * options.members, room, stamp);
    }
    let all_got = engine.until(MESSAGES, |all| all.got() == clients)?;
    let got_message = dropped.elapsed();
    ensure!(
        all_got,
        "{} of {clients} clients got a message within {MESSAGES:?}. {}",
        engine.clients.got(),
        engine.clients.complaints()
    );
    let reconnecting = used(&back.before, &back.after);
    let gateway = reconnecting.iter().filter(|used| is_server(&used.name));
    let gateway_us: f64 = gateway.map(|used| used.cpu_ms as f64 * 1000.0).sum();
    Ok(Figures {
        clients,
        members: options.members,
        gateways,
        subscribed_s: subscribed.as_secs_f64(),
        got_message_s: got_message.as_secs_f64(),
        setup_p50_ms: quantile_ms(&back.latency, 0.5),
        setup_p99_ms: quantile_ms(&back.latency, 0.99),
        retries: back.retries,
        gateway_us_per_reconnect: gateway_us / clients as f64,
        reconnecting,
    })
}

fn print(head: &Head, figures: &Figures) {
    print!("{head}");
    let Figures { clients, members, gateways, .. } = figures;
    println!("{clients} clients, {members} to a room, on {gateways} gateways\n");
    println!("  all subscribed again   {:.2} s after the drop", figures.subscribed_s);
    println!("  all got a message      {:.2} s after the drop", figures.got_message_s);
    println!(
        "  set-up                 p50 {:.0} ms, p99 {:.0} ms; {} retries",
        figures.setup_p50_ms, figures.setup_p99_ms, figures.retries
    );
    println!("  gateway CPU            {:.0} us a reconnect\n", figures.gateway_us_per_reconnect);
    let rows: Vec<Vec<String>> = figures
        .reconnecting
        .iter()
        .map(|used| {
            let us = used.cpu_ms as f64 * 1000.0 / *clients as f64;
            vec![used.name.clone(), format!("{us:.0}"), (used.rss_kib / 1024).to_string()]
        })
        .collect();
    println!("{}", table::render(&["process", "CPU us/reconnect", "RSS MiB"], &rows));
}
