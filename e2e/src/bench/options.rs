//! What can be asked of the benchmark.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// One channel with many subscribers, at fixed rates or as fast as it goes
    #[command(
        after_help = "Example: cargo xtask load fanout --subscribers 1000 --rate 10,100 --time 5s --json figures.jsonl"
    )]
    Fanout(Fanout),
    /// Many small rooms whose members talk, through the whole pipeline
    #[command(after_help = "Example: cargo xtask load rooms --rate 1000 --time 60s")]
    Rooms(Rooms),
    /// Connections that do nothing: memory, and CPU with and without heart-beats
    #[command(
        after_help = "Example: cargo xtask restart socket-gateway-1 && cargo xtask load idle --connections 10000"
    )]
    Idle(Idle),
    /// All clients lose their connections at once and come back at once
    #[command(after_help = "Example: cargo xtask load storm --clients 5000")]
    Storm(Storm),
    /// Draws what `--json` has collected, as SVG
    #[command(after_help = "Example: cargo xtask load plot figures.jsonl --out docs/plots")]
    Plot(Plot),
}

/// What all scenarios take.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Text of each message, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = bounded(24, 16 * 1024))]
    pub size: usize,
    /// How many of the stack's gateways are used; without it all
    #[arg(long, value_name = "N", value_parser = bounded(1, 9))]
    pub gateways: Option<usize>,
    /// Each SEND asks for a receipt
    #[arg(long)]
    pub receipts: bool,
    /// Loads the Centrifugo at this address instead of the stack, for comparison; its channels are `room:<number>`
    #[arg(long, value_name = "ADDRESS", requires = "secret", requires = "pid")]
    pub centrifugo: Option<SocketAddr>,
    /// Centrifugo's `token_hmac_secret_key`
    #[arg(long, value_name = "TEXT", requires = "centrifugo")]
    pub secret: Option<String>,
    /// Centrifugo's process
    #[arg(long, value_name = "PID", requires = "centrifugo")]
    pub pid: Option<u32>,
    /// Appends the figures to this file, as one line of JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct Fanout {
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = bounded(1, 18_000))]
    pub subscribers: usize,
    /// Messages a second; several are measured one after the other
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10", value_parser = rate)]
    pub rate: Vec<f64>,
    /// How long each rate is measured
    #[arg(long, default_value = "5s", value_parser = time)]
    pub time: Duration,
    /// How often each rate is measured; the median by CPU counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = bounded(1, 9))]
    pub windows: usize,
    /// Looks for the highest rate that is held, from --rate on: p99 <= 500 ms, >= 99 % delivered, nobody closed
    #[arg(long)]
    pub saturate: bool,
    /// How long the search may take
    #[arg(long, default_value = "90s", value_parser = time)]
    pub limit: Duration,
    /// After that so many subscribers read nothing more, and each rate is measured once more: the rest should not notice
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = bounded(0, 9000), conflicts_with = "saturate")]
    pub stalled: usize,
    /// Feeds the gateways' Redis streams, as the workers do, without the rest of the pipeline
    #[arg(long)]
    pub direct: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Args)]
pub struct Rooms {
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = bounded(1, 5000))]
    pub rooms: usize,
    /// Of each room; they publish, and get what they publish
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = bounded(1, 100))]
    pub members: usize,
    /// Messages a second over all rooms
    #[arg(long, value_name = "N", default_value = "100", value_parser = rate)]
    pub rate: f64,
    #[arg(long, default_value = "20s", value_parser = time)]
    pub time: Duration,
    /// Looks for the highest rate that is held, from --rate on
    #[arg(long)]
    pub saturate: bool,
    /// How long the search may take
    #[arg(long, default_value = "90s", value_parser = time)]
    pub limit: Duration,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Args)]
pub struct Idle {
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = bounded(10, 18_000))]
    pub connections: usize,
    /// Heart-beats in both directions, e.g. 10s; none without it
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub heart_beat: Option<Duration>,
    /// How long they are watched
    #[arg(long, default_value = "10s", value_parser = time)]
    pub time: Duration,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Args)]
pub struct Storm {
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = bounded(10, 9000))]
    pub clients: usize,
    /// Members of a room
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = bounded(1, 100))]
    pub members: usize,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Args)]
pub struct Plot {
    /// What `--json` has written
    pub file: PathBuf,
    /// The folder for the drawings
    #[arg(long, value_name = "FOLDER", default_value = "docs/plots")]
    pub out: PathBuf,
}

fn bounded(from: usize, to: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    move |text| match text.parse() {
        Ok(number) if (from..=to).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from {from} to {to}")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=200_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected messages a second, from 0.1 to 200000".to_owned()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if (Duration::from_secs(1)..=Duration::from_secs(900)).contains(&time) => Ok(time),
        Ok(_) => Err("expected from 1s to 15min".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
