//! `fanout-worker dead-letters list|replay`, for an operator.
//!
//! A replay puts a record of a user, or an ephemeral one, back into the topic that it came from, as it was: key,
//! headers, value. Sequenced events need none: gateways fill the gap from the event log. What this very worker could
//! not route again stays where it is. Each replay is noted in the dead-letter topic, beside its letter, so a second
//! run passes over it; one that was killed between record and note sends the record twice, which harms nobody: both
//! kinds say what holds now.

use std::{
    collections::HashMap,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result, bail, ensure};
use chassis::Process;
use chrono::Utc;
use rdkafka::{
    error::KafkaError,
    message::{Header, Message as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::json;

use super::{
    letter::{self, Entry, Letter, NOTE, Outlook, Position, Replay},
    producer,
    topic::Topic,
};
use crate::{config::Config, kafka_log::KafkaLog};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print them: where each stood, its cause, its key and size, and what a replay would do
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Put records of users and ephemeral records back into their topics; needless for sequenced events
    Replay {
        #[command(flatten)]
        which: Which,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Also those that were replayed before
        #[arg(long)]
        again: bool,
    },
}

/// Which dead letters, and how they are printed. Positions are those in the source topic.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Only what came from this topic, e.g. chat.user.events
    #[arg(long)]
    topic: Option<String>,
    /// Only what stood in this partition of it
    #[arg(long, requires = "topic")]
    partition: Option<i32>,
    /// Only what stood at this offset of it
    #[arg(long, requires = "partition")]
    offset: Option<i64>,
    /// Only what has this cause, e.g. too_large
    #[arg(long)]
    reason: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Which {
    fn takes(&self, letter: &Letter) -> bool {
        self.topic.as_ref().is_none_or(|topic| *topic == letter.source.topic)
            && self.partition.is_none_or(|partition| partition == letter.source.partition)
            && self.offset.is_none_or(|offset| offset == letter.source.offset)
            && self.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
    }
}

/// What became of a letter, or would.
#[derive(Debug)]
enum Outcome {
    Deliverable,
    Replayed(Position),
    ReplayedBefore(Replay),
    NoOp(String),
    Poison(String),
}

impl Outcome {
    fn of(letter: &Letter, again: bool) -> Self {
        match (&letter.outlook, &letter.replay) {
            (Outlook::NoOp(why), _) => Outcome::NoOp(why.clone()),
            (_, Some(replay)) if !again => Outcome::ReplayedBefore(replay.clone()),
            (Outlook::Poison(why), _) => Outcome::Poison(why.clone()),
            (Outlook::Deliverable, _) => Outcome::Deliverable,
        }
    }

    /// A word for programs, and the rest for people.
    fn words(&self) -> (&'static str, String) {
        match self {
            Outcome::Deliverable => ("deliverable", "a replay delivers it".to_owned()),
            Outcome::Replayed(to) => ("replayed", format!("it stands at {to} now")),
            Outcome::ReplayedBefore(replay) => ("replayed_before", format!("to {} at {}", replay.to, replay.at)),
            Outcome::NoOp(why) => ("no_op", why.clone()),
            Outcome::Poison(why) => ("poison", format!("it would be a dead letter again: {why}")),
        }
    }
}

/// Runs a command to its end.
pub async fn run(command: Command, config: Config, process: Process) -> Result<()> {
    let (which, dry_run, again) = match command {
        Command::List { which } => (which, true, false),
        Command::Replay { which, dry_run, again } => (which, dry_run, again),
    };
    if let Some(topic) = &which.topic {
        let sources = config.kafka.topics.sources().map(|(source, _)| source);
        ensure!(sources.contains(&topic.as_str()), "--topic {topic}: expected one of {}", sources.join(", "));
    }
    let topic = Topic::open(&config.kafka).await?;
    let (letters, foreign) = read(&topic, &config).await?;
    let chosen: Vec<Letter> = letters.into_iter().filter(|letter| which.takes(letter)).collect();
    ensure!(which.offset.is_none() || !chosen.is_empty(), "no dead letter stood there");

    let producer = if dry_run { None } else { Some(producer(&config.kafka).context("the Kafka producer")?) };
    let draining = process.lifecycle.draining();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for letter in &chosen {
        if draining.is_cancelled() {
            bail!("interrupted; what was replayed is noted, run it again for the rest");
        }
        let mut outcome = Outcome::of(letter, again);
        if let (Outcome::Deliverable, Some(producer)) = (&outcome, &producer) {
            let replayed = replay(&topic, producer, &config, letter).await;
            outcome = Outcome::Replayed(replayed.with_context(|| format!("replaying {}", letter.source))?);
        }
        *counts.entry(outcome.words().0).or_default() += 1;
        print(letter, &outcome, which.json).context("standard output")?;
    }
    let mut counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    counts.sort_unstable();
    eprintln!(
        "{} dead letters: {}",
        chosen.len(),
        if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
    );
    if foreign > 0 {
        eprintln!("{foreign} records of {} are no dead letters and were left out", config.kafka.topics.dead_letters);
    }
    Ok(())
}

/// All letters by their time, each with its latest replay, and how many records are none.
async fn read(topic: &Topic, config: &Config) -> Result<(Vec<Letter>, usize)> {
    let judging = config.clone();
    let entries = topic.read_all(move |record| (record.partition(), letter::read(record, &judging))).await?;
    let (mut letters, mut notes, mut foreign) = (Vec::new(), HashMap::new(), 0);
    for (partition, entry) in entries {
        match entry {
            Entry::Letter(letter) => letters.push(*letter),
            Entry::Note { offset, replay } => {
                notes.insert((partition, offset), replay);
            }
            Entry::Foreign => foreign += 1,
        }
    }
    for letter in &mut letters {
        letter.replay = notes.remove(&(letter.partition, letter.offset));
    }
    letters.sort_by(|a, b| (&a.at, &a.source).cmp(&(&b.at, &b.source)));
    Ok((letters, foreign))
}

/// Back into its topic, then the note; where it stands now.
async fn replay(
    topic: &Topic,
    producer: &FutureProducer<KafkaLog>,
    config: &Config,
    letter: &Letter,
) -> Result<Position> {
    let timeout = config.kafka.dead_letter_timeout;
    let stored = topic.fetch(letter.partition, letter.offset).await?;
    let headers = stored.headers().and_then(letter::original_headers).context("its headers can't be read")?;
    let mut record = FutureRecord::<[u8], [u8]>::to(&letter.source.topic).headers(headers);
    record.key = stored.key();
    record.payload = stored.payload();
    let refused = |(error, _): (KafkaError, _)| error;
    let delivery = producer.send(record, timeout).await.map_err(refused).context("producing the record")?;
    let (partition, offset) = delivery;
    let to = Position { topic: letter.source.topic.clone(), partition, offset };

    let values = [letter.offset.to_string(), to.to_string(), proto::event::format_time(Utc::now())];
    let headers = NOTE
        .iter()
        .zip(&values)
        .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value.as_str()) }));
    let mut note = FutureRecord::<[u8], [u8]>::to(&config.kafka.topics.dead_letters).headers(headers);
    note = note.partition(letter.partition);
    note.key = stored.key();
    let noted = producer.send(note, timeout).await.map_err(refused);
    noted.with_context(|| format!("it was replayed to {to}, but the note of that could not be written"))?;
    Ok(to)
}

fn print(letter: &Letter, outcome: &Outcome, as_json: bool) -> io::Result<()> {
    let Letter { source, reason, error, at, size, omitted, .. } = letter;
    let key = letter.key.as_ref().map(|key| key.escape_ascii().to_string());
    let (word, detail) = outcome.words();
    let mut out = io::stdout().lock();
    if as_json {
        let line = json!({
            "partition": letter.partition, "offset": letter.offset,
            "source": { "topic": source.topic, "partition": source.partition, "offset": source.offset },
            "reason": reason, "error": error, "at": at, "key": key, "size": size,
            "omitted": omitted, "outcome": word, "detail": detail,
        });
        return writeln!(out, "{line}");
    }
    let key = key.map_or_else(|| "no key".to_owned(), |key| format!("key \"{key}\""));
    let omitted = omitted.as_ref().map(|parts| format!(" ({parts} left out)")).unwrap_or_default();
    writeln!(out, "{source}  {reason}  {key}  {size} bytes{omitted}  {at}\n    cause: {error}\n    {word}: {detail}")
}
