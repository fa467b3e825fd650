//! The benchmark: what the stack costs and how fast it is, in figures. It judges nothing and never fails on a clock.
//!
//! Each scenario makes sure that its people and conversations exist ([`crowd`]), signs their tokens ([`tokens`]), lets
//! one thread be all of the clients ([`engine`]) and prints what came, with the machine and whatever was set other
//! than a fresh stack has it ([`report`]). `--json FILE` appends the same as one line, which [`plot`] draws.

pub mod crowd;
mod direct;
mod engine;
mod fanout;
mod idle;
pub mod machine;
pub mod options;
mod peer;
pub mod plot;
pub mod report;
mod rooms;
mod search;
mod storm;
pub mod tokens;
mod wire;

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

pub use self::options::Scenario;
use self::{
    crowd::Crowd,
    engine::{Dialect, Scene},
    options::Common,
    report::Head,
};
use crate::endpoints::Endpoints;

/// Descriptors that are not clients: logs, epoll, Redis, Kafka, MySQL.
const OTHER_FILES: usize = 200;
/// Set-ups under way at the same time, where nothing else is asked for.
const CONCURRENTLY: usize = 64;
/// How long all set-ups may take.
const SET_UP: Duration = Duration::from_secs(120);

/// Runs one scenario to its end and prints what it has shown.
pub async fn run(endpoints: &Endpoints, scenario: Scenario) -> Result<()> {
    match scenario {
        Scenario::Fanout(options) => fanout::run(endpoints, options).await,
        Scenario::Rooms(options) => rooms::run(endpoints, options).await,
        Scenario::Idle(options) => idle::run(endpoints, options).await,
        Scenario::Storm(options) => storm::run(endpoints, options).await,
        Scenario::Plot(options) => plot::run(&options),
    }
}

/// A line of progress, apart from the results.
fn say(line: &str) {
    eprintln!("  {line}");
}

/// Makes the people and conversations of a run, and says where everybody connects.
async fn set_the_scene(
    endpoints: &Endpoints,
    (rooms, members): (usize, usize),
    more_clients: usize,
    common: &Common,
) -> Result<Scene> {
    let clients = rooms * members + more_clients;
    let files = open_files()?;
    ensure!(
        clients + OTHER_FILES <= files,
        "{clients} connections need {} open files, and this process may have {files} (`ulimit -n`)",
        clients + OTHER_FILES
    );
    if let Some(address) = common.centrifugo {
        return peer::scene(address, (rooms, members), common);
    }
    let Crowd { users, rooms } = crowd::gather(endpoints, rooms, members, say).await?;
    let tokens = tokens::signed(endpoints, &users, say).await?;
    let gateways = endpoints.gateways.iter().take(common.gateways.unwrap_or(usize::MAX));
    Ok(Scene {
        dialect: Dialect::Stomp,
        gateways: gateways.map(|url| address(url)).collect::<Result<_>>()?,
        rooms,
        members,
        tokens,
        heart_beat: None,
        size: common.size,
        receipts: common.receipts,
        processes: endpoints.processes.clone(),
    })
}

fn address(url: &str) -> Result<SocketAddr> {
    let address = url.strip_prefix("http://").unwrap_or(url);
    address.parse().with_context(|| format!("{url}: expected http://<address>:<port>"))
}

/// How many files this process may have open now.
fn open_files() -> Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits").context("reading /proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of open files")?;
    let soft = line.split_whitespace().next().unwrap_or_default();
    Ok(soft.parse().unwrap_or(usize::MAX))
}

/// The head of a report, with the notes that are the same for all scenarios.
fn head(endpoints: &Endpoints, scenario: &'static str, scene: &Scene) -> Head {
    let mut head = Head::new(endpoints, scenario);
    if scene.dialect != Dialect::Stomp {
        head.build.clear();
        head.settings.clear();
        head.note(format!("{} at {} instead of the stack", peer::NAME, scene.gateways[0]));
        return head;
    }
    head.note(format!("tokens signed by the benchmark, good for {}", humantime::format_duration(tokens::LIFE)));
    head.note(format!("{} clients from each address", engine::PER_ADDRESS));
    if scene.gateways.len() < endpoints.gateways.len() {
        head.note(format!("{} of {} gateways used", scene.gateways.len(), endpoints.gateways.len()));
    }
    head
}
