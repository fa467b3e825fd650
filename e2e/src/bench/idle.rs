//! Connections that do nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{
    CONCURRENTLY, SET_UP,
    engine::{Engine, ProcessUse, Scene, is_server, quantile_ms, used},
    head,
    options::Idle,
    report::Head,
    say, set_the_scene,
};
use crate::{endpoints::Endpoints, processes::Usage, table};

/// Of each room: ten, as the peers are measured.
const MEMBERS: usize = 10;
/// Between the last set-up and the watching.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
struct Figures {
    connections: usize,
    gateways: usize,
    heart_beat_s: Option<f64>,
    connects_per_s: f64,
    retries: u64,
    setup_p50_ms: f64,
    setup_p99_ms: f64,
    gateway_us_per_connect: f64,
    /// What each process used while all connected.
    connecting: Vec<ProcessUse>,
    rss_before_kib: u64,
    rss_after_kib: u64,
    rss_kib_per_connection: f64,
    watched_s: f64,
    gateway_cores_idle: f64,
    idle: Vec<ProcessUse>,
    still_open: usize,
}

pub async fn run(endpoints: &Endpoints, options: Idle) -> Result<()> {
    let rooms = options.connections / MEMBERS;
    ensure!(rooms * MEMBERS == options.connections, "--connections must be a multiple of {MEMBERS}");
    let mut scene = set_the_scene(endpoints, (rooms, MEMBERS), 0, &options.common).await?;
    scene.heart_beat = options.heart_beat;
    let mut head = head(endpoints, "idle", &scene);
    head.note(format!("{MEMBERS} to a room, each connected, authenticated and subscribed"));
    head.note("memory per connection is told from a gateway that was just started: restart it before".to_owned());
    let json = options.common.json.clone();
    let figures = tokio::task::spawn_blocking(move || measure(&options, scene)).await??;
    print(&head, &figures);
    head.append(json.as_deref(), &figures)
}

fn measure(options: &Idle, scene: Scene) -> Result<Figures> {
    let (connections, gateways) = (scene.subscribers(), scene.gateways.len());
    let mut engine = Engine::new(scene)?;
    say(&format!("connecting {connections} clients"));
    let connected = engine.connect(connections, CONCURRENTLY, SET_UP, say)?;
    say(&format!("watching them for {}", humantime::format_duration(options.time)));
    engine.idle(SETTLE)?;
    let from = engine.clients.usage();
    engine.idle(options.time)?;
    let to = engine.clients.usage();

    let connecting = used(&connected.before, &connected.after);
    let idle = used(&from, &to);
    let gateway_us = |used: &[ProcessUse]| -> f64 {
        used.iter().filter(|used| is_server(&used.name)).map(|used| used.cpu_ms as f64 * 1000.0).sum()
    };
    let (rss_before_kib, rss_after_kib) = (gateway_rss(&connected.before), gateway_rss(&to));
    let (count, watched_s) = (connections as f64, options.time.as_secs_f64());
    Ok(Figures {
        connections,
        gateways,
        heart_beat_s: options.heart_beat.map(|interval| interval.as_secs_f64()),
        connects_per_s: count / connected.took.as_secs_f64(),
        retries: connected.retries,
        setup_p50_ms: quantile_ms(&connected.latency, 0.5),
        setup_p99_ms: quantile_ms(&connected.latency, 0.99),
        gateway_us_per_connect: gateway_us(&connecting) / count,
        connecting,
        rss_before_kib,
        rss_after_kib,
        rss_kib_per_connection: (rss_after_kib as f64 - rss_before_kib as f64) / count,
        watched_s,
        gateway_cores_idle: gateway_us(&idle) / 1e6 / watched_s,
        idle,
        still_open: engine.clients.ready(),
    })
}

fn gateway_rss(usage: &[Usage]) -> u64 {
    usage.iter().filter(|one| is_server(&one.name)).map(|one| one.rss_kib).sum()
}

fn print(head: &Head, figures: &Figures) {
    print!("{head}");
    let beats = figures.heart_beat_s.map_or_else(|| "none".to_owned(), |s| format!("every {s} s in both directions"));
    println!("{} connections on {} gateways, heart-beats: {beats}\n", figures.connections, figures.gateways);
    println!(
        "  memory     {:.2} KiB a connection: the gateways' resident memory went from {} to {} MiB",
        figures.rss_kib_per_connection,
        figures.rss_before_kib / 1024,
        figures.rss_after_kib / 1024
    );
    println!(
        "  connect    {:.0} us of gateway CPU each; {:.0} a second, {CONCURRENTLY} at once; set-up p50 {:.1} ms, p99 {:.1} ms; {} retries",
        figures.gateway_us_per_connect,
        figures.connects_per_s,
        figures.setup_p50_ms,
        figures.setup_p99_ms,
        figures.retries
    );
    println!(
        "  idle       {:.3} cores of gateway CPU over {:.0} s; {} still open\n",
        figures.gateway_cores_idle, figures.watched_s, figures.still_open
    );
    let rows: Vec<Vec<String>> = figures
        .connecting
        .iter()
        .zip(&figures.idle)
        .map(|(connecting, idle)| {
            vec![
                idle.name.clone(),
                format!("{:.0}", connecting.cpu_ms as f64 * 1000.0 / figures.connections as f64),
                format!("{:.2}", idle.cpu_ms as f64 / 10.0 / figures.watched_s),
                (idle.rss_kib / 1024).to_string(),
            ]
        })
        .collect();
    println!("{}", table::render(&["process", "CPU us/connect", "idle CPU %", "RSS MiB"], &rows));
}
