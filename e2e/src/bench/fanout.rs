//! One channel with many subscribers.

use std::{ops::Range, time::Duration};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    CONCURRENTLY, SET_UP, direct,
    engine::{Engine, Scene, Sender, Window},
    head,
    options::Fanout,
    report::{self, Head},
    say, search, set_the_scene,
};
use crate::endpoints::Endpoints;

/// Messages a second of one publisher: under the shipped limit of a session.
const PER_PUBLISHER: f64 = 150.0;
const MOST_PUBLISHERS: usize = 40;
/// Sent before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// What is under way at the end may take so long.
const DRAIN: Duration = Duration::from_secs(3);

/// Who has not read may take so long to read what is left.
const LEFT_OVER: Duration = Duration::from_secs(10);

/// What the scenario has shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub subscribers: usize,
    pub gateways: usize,
    pub direct: bool,
    /// The median window of each rate, by CPU of the gateways.
    pub fixed: Vec<Window>,
    /// The same with subscribers that read nothing: how many, and what became of them.
    pub stalled: Option<Stalled>,
    /// The best window of a search.
    pub saturated: Option<Window>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Stalled {
    pub clients: usize,
    /// Of the others.
    pub fixed: Vec<Window>,
    /// How many the gateway has closed, and its words.
    pub closed: u64,
    pub said: String,
}

pub async fn run(endpoints: &Endpoints, options: Fanout) -> Result<()> {
    let publishers = publishers_of(&options)?.len();
    ensure!(options.stalled < options.subscribers, "--stalled must be under --subscribers");
    ensure!(!options.direct || options.common.centrifugo.is_none(), "--direct is for the stack's own gateways");
    let scene = set_the_scene(endpoints, (1, options.subscribers), publishers, &options.common).await?;
    if options.direct {
        direct::prepare(endpoints, scene.rooms[0]).await?;
    }
    let mut head = head(endpoints, "fanout", &scene);
    head.note(match options.direct {
        true => "fed straight into the gateways' Redis streams".to_owned(),
        false => format!("{publishers} publishers that do not subscribe"),
    });
    let position = match options.direct {
        true => direct::position(endpoints, scene.rooms[0]).await?,
        false => (0, 0),
    };
    let (json, redis) = (options.common.json.clone(), endpoints.redis.clone());
    let figures = tokio::task::spawn_blocking(move || measure(&options, scene, &redis, position)).await??;
    print(&head, &figures);
    head.append(json.as_deref(), &figures)
}

fn measure(options: &Fanout, scene: Scene, redis: &str, position: (i64, i64)) -> Result<Figures> {
    let (subscribers, gateways, conversation) = (scene.subscribers(), scene.gateways.len(), scene.rooms[0]);
    let publishers = publishers_of(options)?;
    let mut engine = Engine::new(scene)?;
    say(&format!("connecting {} clients", publishers.end));
    engine.connect(publishers.end, CONCURRENTLY, SET_UP, say)?;
    let mut sender = if options.direct {
        Sender::Direct(super::engine::Direct::new(redis, conversation, 1, position)?)
    } else {
        Sender::Publishers { first: publishers.start, count: publishers.len() }
    };
    engine.window(&mut sender, options.rate[0], WARM_UP, DRAIN, &|_| {})?;
    let mut figures =
        Figures { subscribers, gateways, direct: options.direct, fixed: Vec::new(), stalled: None, saturated: None };
    if options.saturate {
        let best = search::highest(&mut engine, &mut sender, options.rate[0], options.limit)?;
        ensure!(best.is_some(), "no rate was held. {}", engine.clients.complaints());
        figures.saturated = best;
        return Ok(figures);
    }
    figures.fixed = at_each_rate(&mut engine, &mut sender, options)?;
    if options.stalled > 0 {
        figures.stalled = Some(stall(&mut engine, &mut sender, options)?);
    }
    Ok(figures)
}

/// The median window of each rate, by CPU of the gateways.
fn at_each_rate(engine: &mut Engine, sender: &mut Sender, options: &Fanout) -> Result<Vec<Window>> {
    let mut medians = Vec::new();
    for rate in &options.rate {
        let mut windows = Vec::new();
        for number in 1..=options.windows {
            say(&format!("{rate} messages a second, {number} of {}", options.windows));
            windows.push(engine.window(sender, *rate, options.time, DRAIN, &say)?);
        }
        windows.sort_by(|a, b| a.server_us().total_cmp(&b.server_us()));
        medians.push(windows.swap_remove(windows.len() / 2));
    }
    Ok(medians)
}

/// Measures again while some do not read; then those read what is left, up to what the gateway said last.
fn stall(engine: &mut Engine, sender: &mut Sender, options: &Fanout) -> Result<Stalled> {
    say(&format!("{} subscribers stop reading", options.stalled));
    engine.clients.stall(options.stalled)?;
    let closed = engine.clients.counts.closed;
    let fixed = at_each_rate(engine, sender, options)?;
    engine.clients.go_on()?;
    let all = closed + options.stalled as u64;
    engine.until(LEFT_OVER, |clients| clients.counts.closed >= all)?;
    let closed = engine.clients.counts.closed - closed;
    Ok(Stalled { clients: options.stalled, fixed, closed, said: engine.clients.complaints() })
}

/// The numbers of the clients that only publish. Each is a member too, with a second connection.
fn publishers_of(options: &Fanout) -> Result<Range<usize>> {
    let members = options.subscribers;
    let most = options.rate.iter().copied().fold(0.0, f64::max);
    let count = match (options.direct, options.saturate) {
        (true, _) => 0,
        (false, true) => MOST_PUBLISHERS.min(members),
        (false, false) => (most / PER_PUBLISHER).ceil().max(1.0) as usize,
    };
    ensure!(
        count <= members.min(MOST_PUBLISHERS),
        "{most} messages a second need {count} publishers, and there are {}: use --direct",
        members.min(MOST_PUBLISHERS)
    );
    Ok(members..members + count)
}

fn print(head: &Head, figures: &Figures) {
    print!("{head}");
    println!("{} subscribers of one channel on {} gateways\n", figures.subscribers, figures.gateways);
    if let Some(best) = &figures.saturated {
        println!("  the highest rate that was held (p99 <= 500 ms, >= 99 % delivered, nobody closed):\n");
        report::print_windows(std::slice::from_ref(best));
        report::print_processes(best);
    }
    if let Some(last) = figures.fixed.last() {
        report::print_windows(&figures.fixed);
        report::print_processes(last);
    }
    if let Some(stalled) = &figures.stalled {
        println!("  while {} of them read nothing:\n", stalled.clients);
        report::print_windows(&stalled.fixed);
        println!("  of those the gateway closed {}: {}\n", stalled.closed, stalled.said);
    }
}
