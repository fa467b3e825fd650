//! A run: people use a stack that is being broken, then everything is healed, everybody comes back once more, and what
//! they saw is judged.
//!
//! The gateways' periodic comparison of heads is set to an hour: with the 10 s of its default, whatever was lost on the
//! way would be found soon, and no hole would ever show. Everything has to arrive without it, within 5 s of a fault's
//! end.

mod floors;
mod judge;
mod settle;
mod site;

pub use site::{Site, stack_of, told_to_stop, unless_told_to_stop};

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use e2e::rest::Rest;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    faults::{self, Injector, Planned},
    history::{Clock, OnPurpose, RunRecord, Writer},
    links::Links,
    options::RunOptions,
    stack::Stack,
    verdict::Verdict,
    workload::{Crowd, Mover, People, Phase, Refusals, Setting, gather},
};

/// From the end of a fault until everything must be with every client that is connected.
pub const LATE_AFTER: Duration = Duration::from_secs(5);
/// For all clients to be attached the first time.
const FIRST_ATTACH: Duration = Duration::from_secs(60);
/// Before the first fault, on top of its gap.
const WARM_UP: Duration = Duration::from_secs(2);
/// What every run's stack is set to, and why: see `docs/delivery.md`.
const SETTINGS: [&str; 4] = [
    "socket-gateway.hub.compare_interval=1h",
    // Conversations are released and announced again all the time.
    "socket-gateway.hub.linger=2s",
    // A connection that is dead on one side only is found by its silence.
    "socket-gateway.session.heart_beat_send=2s",
    "socket-gateway.session.heart_beat_receive=2s",
];

/// The run's own history, for all who write to it.
#[derive(Clone, Debug)]
pub struct RunLog(Arc<Mutex<Writer<RunRecord>>>);

impl RunLog {
    pub fn record(&self, record: &RunRecord) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).record(record)
    }

    fn finish(self) -> Result<()> {
        let writer = Arc::into_inner(self.0).context("somebody still writes to the run's history")?;
        writer.into_inner().unwrap_or_else(PoisonError::into_inner).finish()
    }
}

/// Brings the stack up, runs every seed and takes the stack down. Says whether all kept the promise.
pub async fn run(options: &RunOptions) -> Result<bool> {
    let site = Site::open(options).await?;
    let outcome = unless_told_to_stop(run_seeds(options, &site)).await;
    if options.keep {
        println!("the stack stays up until Ctrl-C");
        told_to_stop().await?;
    }
    let down = site.stack.down().await;
    let outcome = outcome?;
    down?;
    Ok(outcome)
}

async fn run_seeds(options: &RunOptions, site: &Site) -> Result<bool> {
    let mut failed = Vec::new();
    let mut whole = false;
    for seed in options.seeds() {
        // What a failed run has left behind is not to be blamed on the next one.
        if !whole {
            site.up_afresh().await?;
        }
        println!("==== seed {seed}");
        whole = run_seed(options, site, seed).await.with_context(|| format!("seed {seed}"))?.passed;
        if !whole {
            failed.push(seed);
        }
    }
    let seeds = options.seeds();
    let count = seeds.end() - seeds.start() + 1;
    match failed.as_slice() {
        [] => println!("{count} of {count} runs kept the promise"),
        failed => println!("{} of {count} runs failed: seeds {failed:?}", failed.len()),
    }
    Ok(failed.is_empty())
}

/// One run, on a stack that is up.
pub async fn run_seed(options: &RunOptions, site: &Site, seed: u64) -> Result<Verdict> {
    let started = chrono::Utc::now();
    let folder = options.out.clone().unwrap_or_else(|| options.folder.join("runs"));
    let what = options.on_purpose.as_ref().map_or_else(String::new, |(on_purpose, _)| format!("-{}", on_purpose.bug));
    let folder = folder.join(format!("{}{what}-seed-{seed}", started.format("%Y%m%d-%H%M%S")));
    let verdict = run_in(&folder, started, options, site, seed).await;
    if !verdict.as_ref().is_ok_and(|verdict| verdict.passed)
        && let Err(error) = keep_logs(&site.stack, &folder)
    {
        println!("the logs could not be kept: {error:#}");
    }
    verdict
}

/// What the processes said, beside the history: the next stack begins new logs.
fn keep_logs(stack: &Stack, folder: &Path) -> Result<()> {
    let kept = folder.join("log");
    fs::create_dir_all(&kept).with_context(|| format!("making {}", kept.display()))?;
    for log in fs::read_dir(stack.folder().join("log"))? {
        let log = log?.path();
        if let Some(name) = log.file_name() {
            fs::copy(&log, kept.join(name)).with_context(|| format!("copying {}", log.display()))?;
        }
    }
    println!("{}: what the processes said", kept.display());
    Ok(())
}

async fn run_in(
    folder: &Path,
    started: DateTime<Utc>,
    options: &RunOptions,
    site: &Site,
    seed: u64,
) -> Result<Verdict> {
    let Site { stack, links, .. } = site;
    let planned = faults::plan(seed, &options.kinds(), options.duration);
    let clock = Clock::new();
    let log = RunLog(Arc::new(Mutex::new(Writer::run(folder, clock)?)));
    log.record(&RunRecord::Run {
        seed,
        started: started.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        command: command(options, seed),
        late_after_ms: LATE_AFTER.as_millis() as u64,
        floors: floors::of(options, &planned),
    })?;
    if let Some((on_purpose, _)) = &options.on_purpose {
        log.record(&RunRecord::OnPurpose(on_purpose.clone()))?;
    }
    let endpoints = stack.endpoints()?;
    let asked = clock.now();
    let prefix = format!("c{}s{seed}", started.timestamp());
    let people = gather(&endpoints, &prefix, options.clients, seed).await?;
    for one in &people.conversations {
        let (id, kind, members) = (one.id, one.kind.to_owned(), one.members.clone());
        log.record(&RunRecord::Conversation { id, kind, members, asked })?;
    }
    let setting = Arc::new(Setting {
        gateways: links.gateways(),
        load: options.load(),
        clock,
        folder: folder.to_owned(),
        seed,
        refusals: Refusals::default(),
    });
    let (crowd, mut clients) = Crowd::start(&people, &setting)?;
    let stage = Stage { stack, links, clock, log: &log, people: &people, crowd: &crowd };
    tokio::select! {
        used = stage.use_and_break(&planned, options, seed) => used?,
        failed = clients.failed() => {
            failed?;
            anyhow::bail!("a client left before it was told to");
        }
    }
    println!("{} everybody leaves", stage.time());
    log.record(&RunRecord::Closed)?;
    crowd.enter(Phase::Close);
    clients.gone().await?;
    log.finish()?;
    for (what, count) in setting.refusals.counts() {
        println!("         refused {count} times: {what}");
    }
    judge::judge(&endpoints, folder).await
}

/// What makes the same run again.
fn command(options: &RunOptions, seed: u64) -> String {
    let RunOptions { gateways, workers, cores, clients, rate, changes, .. } = options;
    if let Some((OnPurpose { bug, left_out, .. }, _)) = &options.on_purpose {
        let without = if *left_out { " --without-bug" } else { "" };
        return format!(
            "cargo xtask chaos --bug {bug}{without} --seeds {seed}..{seed} --gateways {gateways} --workers {workers} \
             --cores {cores}"
        );
    }
    let mut kinds: Vec<String> = options.kinds().iter().map(ToString::to_string).collect();
    if kinds.len() == faults::Fault::all().len() {
        kinds = vec!["all".to_owned()];
    }
    let duration = humantime::format_duration(options.duration);
    let session = humantime::format_duration(options.session);
    format!(
        "cargo xtask chaos --seed {seed} --duration {duration} --fault {} --gateways {gateways} --workers {workers} \
         --cores {cores} --clients {clients} --rate {rate} --session {session} --changes {changes}",
        kinds.join(",")
    )
}

/// One run, from the first client to the last resume.
struct Stage<'a> {
    stack: &'a Stack,
    links: &'a Links,
    clock: Clock,
    log: &'a RunLog,
    people: &'a People,
    crowd: &'a Crowd,
}

impl Stage<'_> {
    fn time(&self) -> String {
        format!("{:>6.1} s", self.clock.now() as f64 / 1e6)
    }

    fn say(&self, text: &str) {
        println!("{} {text}", self.time());
    }

    async fn use_and_break(&self, planned: &[Planned], options: &RunOptions, seed: u64) -> Result<()> {
        let endpoints = self.stack.endpoints()?;
        self.say(&format!(
            "{} people in {} conversations",
            self.people.everybody.len(),
            self.people.conversations.len()
        ));
        let first = timeout(FIRST_ATTACH, settle::all_attached(self.crowd, &[])).await;
        first.context("not everybody was attached in time, and nothing was broken yet")?;
        self.say("everybody is attached");
        self.crowd.enter(Phase::Use);

        let mut helpers = JoinSet::new();
        let rest = Rest::new(&self.cores());
        for mover in Mover::all(self.people, self.crowd, &rest, self.log, self.clock, options.changes, seed) {
            helpers.spawn(mover.run(self.crowd.phase()));
        }
        // What a supervisor does in production: a failed task is started again.
        let mut watchdog = JoinSet::new();
        watchdog.spawn(faults::watch_connector(endpoints.connect.clone()));
        sleep(WARM_UP).await;
        let injector = Injector { stack: self.stack, links: self.links };
        let began = Instant::now();
        for (number, one) in planned.iter().enumerate() {
            sleep(one.gap).await;
            self.break_once(&injector, number, planned.len(), one).await?;
        }
        // The last fault, too, is followed by use.
        sleep(LATE_AFTER + Duration::from_secs(1)).await;
        self.say(&format!("no more faults, after {:.0} s", began.elapsed().as_secs_f64()));
        let settled = self.settle(&endpoints).await;
        while let Some(ended) = helpers.join_next().await {
            ended.context("a mover panicked")??;
        }
        // Ends with this function, however that ends.
        drop(watchdog);
        settled
    }

    async fn break_once(&self, injector: &Injector<'_>, number: usize, of: usize, one: &Planned) -> Result<()> {
        let id = u32::try_from(number)? + 1;
        let (kind, target) = (one.fault.to_string(), injector.target(one));
        let detail = format!("{:.1} s", one.length.as_secs_f64());
        self.log.record(&RunRecord::FaultBegun { id, kind: kind.clone(), target: target.clone(), detail })?;
        self.say(&format!("fault {id} of {of}: {kind} on {target}"));
        let mut effect = injector.inject(one).await.with_context(|| format!("{kind} on {target}"))?;
        for name in self.stack.revive().await? {
            effect.detail += &format!("; {name} had ended by itself and was started again");
        }
        let (took_effect, detail) = (effect.took_effect, effect.detail);
        self.say(&format!("fault {id} is over: {detail}{}", if took_effect { "" } else { " (NO EFFECT)" }));
        self.log.record(&RunRecord::FaultEnded { id, took_effect, detail })
    }

    /// Every process that serves REST, whether it runs or not.
    fn cores(&self) -> Vec<String> {
        (1..=self.stack.copies.cores).map(|copy| format!("http://{}", self.stack.ports.core(copy))).collect()
    }

    async fn settle(&self, endpoints: &e2e::endpoints::Endpoints) -> Result<()> {
        self.crowd.enter(Phase::Quiet);
        self.within("everything sent is answered", settle::all_answered(self.crowd)).await;
        self.log.record(&RunRecord::Healed)?;
        self.within("everybody has everything", settle::all_caught_up(endpoints, self.people, self.crowd)).await;
        self.within("no lag is left", settle::no_lag(endpoints)).await;
        let before: Vec<Option<u32>> = self.crowd.members.iter().map(|member| member.view.now().attached).collect();
        self.crowd.enter(Phase::Again);
        if self.within("everybody has come back", settle::all_attached(self.crowd, &before)).await {
            self.log.record(&RunRecord::Final)?;
        }
        self.within("everybody has everything again", settle::all_caught_up(endpoints, self.people, self.crowd)).await;
        // What should not come has this long to come.
        sleep(settle::STRAY).await;
        Ok(())
    }

    /// Whether it came true in time. If not, that is for the checker to say.
    async fn within(&self, what: &str, fact: impl Future<Output = ()>) -> bool {
        let began = Instant::now();
        let so = timeout(settle::LIMIT, fact).await.is_ok();
        let time = began.elapsed().as_secs_f64();
        self.say(&if so { format!("{what}, after {time:.1} s") } else { format!("NOT so after {time:.0} s: {what}") });
        so
    }
}
