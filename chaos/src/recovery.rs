//! How long it takes until delivery is normal again: each process is killed again and again under load, on a stack of
//! its own with the settings as shipped. What counts as normal, and from when time is counted, is in [`options`], which
//! is what `--help` says.
//!
//! The clients ([`client`]) are tasks of this process, as is the schedule by which they send ([`crowd`]). What was sent
//! and what came is in one [`ledger`], from which every figure is taken ([`mod@measure`]). Beside the figures it is a check:
//! every client looks at every `seq`, and at the end everything that was sent must be with everybody.

mod client;
mod crowd;
mod ledger;
mod measure;
mod options;
mod report;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::endpoints::{Endpoints, websocket};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};

pub use self::options::RecoveryOptions;
use self::{
    client::Shared,
    crowd::{Crowd, Failed, LOOK, Room, Schedule},
    ledger::Ledger,
    measure::{Bench, Stopped},
    options::Kind,
    report::{Clients, Figures, Row},
};
use crate::{faults, history::Clock, run::told_to_stop, stack::Stack};

/// Connections at the same time, where nothing is broken.
const CONCURRENTLY: usize = 64;
/// For all clients to be subscribed, where nothing is broken.
const SEATED: Duration = Duration::from_secs(300);
/// What is watched before anything is broken.
const UNDISTURBED: Duration = Duration::from_secs(10);
/// At the end, for everything to arrive.
const SETTLE: Duration = Duration::from_secs(60);
/// Members of the rooms of the gateway that is killed with all its clients, and how often it is.
const CROWDED: usize = 10;
const CROWDED_KILLS: u32 = 3;
/// Its copy. From 1.
const CROWDED_GATEWAY: usize = 1;
/// Says that Redis is the one from before.
const MARK: &str = "recovery:before-the-kill";

/// Brings the stack up, measures, and takes it down. Says whether nothing was lost or doubled, and all became normal.
pub async fn run(options: &RecoveryOptions) -> Result<bool> {
    ensure!(options.clients.is_multiple_of(CROWDED), "--clients must be a multiple of {CROWDED}");
    let stack =
        Stack::new(options.xtask.clone(), options.folder.clone(), options.copies(), options.ports(), options.release);
    stack.down().await?;
    let outcome = async {
        stack.up(&options.settings).await?;
        let figures = measure(options, &stack).await?;
        let head = report::head(&stack.endpoints()?, options);
        print!("{head}{}", report::text(&figures, options));
        head.append(options.json.as_deref(), &figures)?;
        Ok(figures.all_is_well())
    };
    let outcome = tokio::select! {
        outcome = outcome => outcome,
        told = told_to_stop() => told.and_then(|()| Err(anyhow::anyhow!("interrupted"))),
    };
    let down = stack.down().await;
    let outcome = outcome?;
    down?;
    Ok(outcome)
}

async fn measure(options: &RecoveryOptions, stack: &Stack) -> Result<Figures> {
    let endpoints = stack.endpoints()?;
    let ledger = Arc::new(Ledger::new(Clock::new()));
    let gateways = endpoints.gateways.iter().map(|url| websocket(url)).collect();
    let shared = Arc::new(Shared { gateways, ledger: Arc::clone(&ledger), calmly: Semaphore::new(CONCURRENTLY) });
    let (failed, mut failures) = mpsc::channel(1);
    // A supervisor's part: a task of the connector that has failed is started again.
    let mut watchdog = JoinSet::new();
    watchdog.spawn(faults::watch_connector(endpoints.connect.clone()));
    let stage = Stage { options, stack, endpoints, ledger, shared, failed };
    tokio::select! {
        figures = stage.measure() => figures,
        Some(failure) = failures.recv() => Err(failure),
    }
}

struct Stage<'a> {
    options: &'a RecoveryOptions,
    stack: &'a Stack,
    endpoints: Endpoints,
    ledger: Arc<Ledger>,
    shared: Arc<Shared>,
    failed: Failed,
}

impl Stage<'_> {
    fn say(&self, text: &str) {
        eprintln!("{:>6.1} s {text}", self.ledger.now() as f64 / 1e6);
    }

    fn bench(&self) -> Bench<'_> {
        Bench { stack: self.stack, ledger: &self.ledger, rule: self.options.rule() }
    }

    fn schedule(&self, rooms: Vec<Room>) -> Schedule {
        Schedule::start(rooms, self.options.rate, &self.ledger, &self.failed)
    }

    async fn measure(&self) -> Result<Figures> {
        let (options, ledger) = (self.options, &self.ledger);
        let mut figures = Figures::default();
        let shape = (usize::from(options.rooms), usize::from(options.members));
        let everybody = Crowd::start(&self.endpoints, shape, None, &self.shared, &self.failed).await?;
        everybody.seated(ledger, None, SEATED).await?;
        self.say(&format!("{} clients are subscribed", everybody.seats.len()));
        let schedule = self.schedule(everybody.rooms.clone());
        figures.undisturbed = self.bench().undisturbed(UNDISTURBED).await?;
        if options.kills > 0 {
            for kind in &options.processes {
                figures.rows.push(self.kill_often(*kind).await?);
            }
        }
        if !options.stop.is_zero() {
            figures.debezium = Some(self.stop_debezium().await?.into());
        }
        drop(schedule);
        // Kept until everything has settled.
        let mut crowd = None;
        if options.clients > 0 {
            let shape = (options.clients / CROWDED, CROWDED);
            let home = Some(CROWDED_GATEWAY - 1);
            let crowd = crowd.insert(Crowd::start(&self.endpoints, shape, home, &self.shared, &self.failed).await?);
            // A message that is sent before a client's first subscription does not come to it.
            crowd.seated(ledger, home, SEATED).await?;
            self.say(&format!("{} more clients are subscribed, all at one gateway", crowd.seats.len()));
            let _schedule = self.schedule(everybody.rooms.iter().chain(&crowd.rooms).cloned().collect());
            figures.clients = self.kill_crowded(crowd).await?;
        }
        self.settle(&mut figures).await;
        Ok(figures)
    }

    async fn kill_often(&self, kind: Kind) -> Result<Row> {
        let mut row = Row::new(kind);
        for turn in 0..self.options.kills {
            let name = kind.process(self.stack.copies, turn);
            if kind == Kind::Redis {
                self.mark_redis().await?;
            }
            let kill = self.bench().kill(&name, Some).await.with_context(|| format!("killing {name}"))?;
            let mut text =
                format!("{name} killed, {} of {}: {}", turn + 1, self.options.kills, report::told(kind, &kill));
            if kind == Kind::Redis {
                ensure!(!self.redis_is_marked().await?, "Redis came back with what it had: it has to come back empty");
                text += ", came back empty";
            }
            self.say(&(text + &self.oddities().await?));
            row.add(&kill);
        }
        Ok(row)
    }

    async fn stop_debezium(&self) -> Result<Stopped> {
        self.say(&format!("stopping the Connect worker for {:?}", self.options.stop));
        let stopped = self.bench().stop_debezium(self.options.stop).await?;
        let all = stopped.all.as_secs_f64();
        self.say(&format!(
            "{} messages had waited, all there after {all:.1} s{}",
            stopped.backlog,
            self.oddities().await?
        ));
        Ok(stopped)
    }

    /// What has to be known of the last while: refusals that passed, and processes that had ended by themselves, which
    /// are started again.
    async fn oddities(&self) -> Result<String> {
        let mut text = String::new();
        for (code, count) in self.ledger.take_put_off() {
            text += &format!("; {code} {count} times");
        }
        for name in self.stack.revive().await? {
            text += &format!("; {name} HAD ENDED BY ITSELF and was started again");
        }
        Ok(text)
    }

    /// Kills a gateway with all its clients, who go back there each time.
    async fn kill_crowded(&self, crowd: &Crowd) -> Result<Vec<Clients>> {
        let (home, name) = (CROWDED_GATEWAY - 1, format!("{}-{CROWDED_GATEWAY}", Kind::SocketGateway));
        let mut all = Vec::new();
        for turn in 1..=CROWDED_KILLS {
            if turn > 1 {
                crowd.go_home();
            }
            crowd.seated(&self.ledger, Some(home), SEATED).await?;
            let victims: Vec<usize> = (self.ledger.seats().iter().enumerate())
                .filter(|(_, seat)| seat.gateway == Some(home))
                .map(|(number, _)| number)
                .collect();
            // What connecting has held up is not to be blamed on the kill.
            self.bench().undisturbed(UNDISTURBED).await?;
            let back = |killed: u64| {
                let seats = self.ledger.seats();
                let seats = victims.iter().map(|number| seats[*number]);
                seats
                    .map(|seat| (seat.gateway.is_some() && seat.since > killed).then_some(seat.since))
                    .try_fold(killed, |last, since| Some(last.max(since?)))
            };
            let killed_before = self.ledger.now();
            let kill = self.bench().kill(&name, back).await?;
            let seats = self.ledger.seats();
            let since: Vec<u64> =
                victims.iter().map(|number| seats[*number].since.saturating_sub(killed_before)).collect();
            let clients = Clients::new(&since, &kill);
            self.say(&format!(
                "{name} killed with {}, {turn} of {CROWDED_KILLS}: {clients}{}",
                since.len(),
                self.oddities().await?
            ));
            all.push(clients);
        }
        Ok(all)
    }

    /// Nobody sends any more: what has not come within a limit is lost.
    async fn settle(&self, figures: &mut Figures) {
        self.say("nobody sends any more");
        let began = Instant::now();
        while self.ledger.first_open() < self.ledger.len() && began.elapsed() < SETTLE {
            sleep(LOOK).await;
        }
        self.ledger.close();
        figures.totals = self.ledger.totals();
        (figures.faults, figures.complaints) = self.ledger.faults();
    }

    async fn redis(&self) -> Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.endpoints.redis.as_str()).context("the address of Redis")?;
        client.get_multiplexed_async_connection().await.context("connecting to Redis")
    }

    async fn mark_redis(&self) -> Result<()> {
        Ok(redis::cmd("SET").arg(MARK).arg(1).query_async(&mut self.redis().await?).await?)
    }

    async fn redis_is_marked(&self) -> Result<bool> {
        Ok(redis::cmd("EXISTS").arg(MARK).query_async(&mut self.redis().await?).await?)
    }
}
