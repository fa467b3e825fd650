//! Writing and reading the files of a run.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Serialize, de::DeserializeOwned};

use super::{At, ClientRecord, RunRecord};

/// The run's own history.
pub fn run_file(folder: &Path) -> PathBuf {
    folder.join("run.ndjson")
}

/// Where the clients' histories are.
pub fn clients_folder(folder: &Path) -> PathBuf {
    folder.join("clients")
}

/// The one clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// The run starts now.
    #[expect(clippy::new_without_default, reason = "it starts a clock, which nobody should do by the way")]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// µs since the run's start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).expect("a run lasts less than 500,000 years")
    }
}

/// Appends records to one file. Buffered: what was written is only certain to be there after [`finish`](Self::finish).
#[derive(Debug)]
pub struct Writer<R> {
    clock: Clock,
    path: PathBuf,
    out: BufWriter<File>,
    records: PhantomData<R>,
}

impl Writer<RunRecord> {
    /// Makes the run's file, and its folder where it is missing.
    ///
    /// # Errors
    /// The file is there already (a run never writes over another), or can't be made.
    pub fn run(folder: &Path, clock: Clock) -> Result<Self> {
        Self::create(run_file(folder), clock)
    }
}

impl Writer<ClientRecord> {
    /// Makes the file of the client `name`, and writes who it is.
    ///
    /// # Errors
    /// As for the run's. The name is not fit for a file.
    pub fn client(folder: &Path, clock: Clock, name: &str, user: i64) -> Result<Self> {
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ensure!(
            !name.is_empty() && name.chars().all(fit),
            "a client's name has letters, digits, - and _; not {name:?}"
        );
        let mut writer = Self::create(clients_folder(folder).join(format!("{name}.ndjson")), clock)?;
        writer.record(&ClientRecord::Client { name: name.to_owned(), user })?;
        Ok(writer)
    }
}

impl<R: Serialize> Writer<R> {
    /// Makes a file of such records anywhere.
    ///
    /// # Errors
    /// As for the run's.
    pub fn create(path: PathBuf, clock: Clock) -> Result<Self> {
        let folder = path.parent().context("a history needs a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let file = File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { clock, path, out: BufWriter::new(file), records: PhantomData })
    }

    /// Writes the record with the time of now.
    pub fn record(&mut self, record: &R) -> Result<()> {
        self.record_at(self.clock.now(), record)
    }

    /// Writes the record with a time that was taken before.
    pub fn record_at(&mut self, at: u64, record: &R) -> Result<()> {
        let failed = || format!("writing {}", self.path.display());
        serde_json::to_writer(&mut self.out, &At { at, record }).with_context(failed)?;
        self.out.write_all(b"\n").with_context(failed)
    }

    /// Everything is with the operating system when this returns.
    pub fn finish(mut self) -> Result<()> {
        self.out.flush().with_context(|| format!("writing {}", self.path.display()))
    }
}

/// Reads a file of records.
///
/// # Errors
/// It can't be read, or a line is not such a record; the error names file and line.
pub fn read<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let mut records = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        let record = serde_json::from_str(&line)
            .with_context(|| format!("{}, line {}: expected a record", path.display(), index + 1))?;
        records.push(record);
    }
    Ok(records)
}

/// What one client wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    pub name: String,
    pub user: i64,
    /// Without the first record.
    pub records: Vec<At<ClientRecord>>,
}

/// What a run wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histories {
    pub run: Vec<At<RunRecord>>,
    /// By name.
    pub clients: Vec<History>,
}

impl Histories {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// A file is missing or has something else in it; the error names it.
    pub fn read(folder: &Path) -> Result<Self> {
        let run: Vec<At<RunRecord>> = read(&run_file(folder))?;
        let first = run.first().map(|first| &first.record);
        let file = run_file(folder);
        ensure!(matches!(first, Some(RunRecord::Run { .. })), "{} does not begin with `run`", file.display());
        let folder = clients_folder(folder);
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            files.push(entry.with_context(|| format!("reading {}", folder.display()))?.path());
        }
        files.sort();
        let clients = files.iter().map(|file| client(file)).collect::<Result<_>>()?;
        Ok(Self { run, clients })
    }
}

fn client(file: &Path) -> Result<History> {
    let mut records: Vec<At<ClientRecord>> = read(file)?;
    let first = (!records.is_empty()).then(|| records.remove(0).record);
    match first {
        Some(ClientRecord::Client { name, user }) => Ok(History { name, user, records }),
        _ => anyhow::bail!("{} does not begin with `client`", file.display()),
    }
}
