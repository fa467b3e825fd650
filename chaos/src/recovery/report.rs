//! What the figures look like, for people and as JSON. Times are in seconds.

use std::{fmt, time::Duration};

use e2e::{bench::report::Head, endpoints::Endpoints, table};
use serde::Serialize;

use super::{
    RecoveryOptions,
    ledger::{Faults, Totals},
    measure::{Kill, Stopped},
    options::Kind,
};

/// What is wanted of each process, in s: the median, and the longest.
const WANTED: (f64, f64) = (2.0, 10.0);
/// … of a gateway's clients.
const CLIENTS_WANTED: f64 = 10.0;

#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// Of messages while nothing was broken, in µs.
    #[serde(serialize_with = "as_percentiles")]
    pub undisturbed: Vec<u64>,
    pub rows: Vec<Row>,
    pub debezium: Option<DebeziumFigures>,
    pub clients: Vec<Clients>,
    pub totals: Totals,
    pub faults: Faults,
    pub complaints: Vec<String>,
}

impl Figures {
    /// Nothing was lost or doubled, and everything became normal in the end.
    pub fn all_is_well(&self) -> bool {
        self.faults.are_none()
            && self.rows.iter().all(|row| row.never_normal == 0)
            && self.debezium.as_ref().is_none_or(|figures| figures.normal_s.is_some())
            && self.clients.iter().all(|one| one.caught_up_s.is_some())
    }
}

/// All kills of one kind of process.
#[derive(Debug, Serialize)]
pub struct Row {
    process: &'static str,
    #[serde(skip)]
    kind: Kind,
    counted_from: &'static str,
    /// Until delivery was normal again.
    normal_s: Vec<f64>,
    never_normal: u32,
    /// Until the new process was ready, from when it was started.
    ready_s: Vec<f64>,
    /// The longest that a message took.
    slowest_s: Vec<f64>,
}

impl Row {
    pub fn new(kind: Kind) -> Self {
        Self {
            process: kind.text(),
            kind,
            counted_from: if kind.is_engine() { "restart" } else { "kill" },
            normal_s: Vec::new(),
            never_normal: 0,
            ready_s: Vec::new(),
            slowest_s: Vec::new(),
        }
    }

    pub fn add(&mut self, kill: &Kill) {
        match normal(self.kind, kill) {
            Some(time) => self.normal_s.push(time.as_secs_f64()),
            None => self.never_normal += 1,
        }
        self.ready_s.push((kill.ready - kill.started).as_secs_f64());
        self.slowest_s.push(kill.slowest.as_secs_f64());
    }

    fn cells(&self) -> Vec<String> {
        let (p50, worst) = (median(&self.normal_s), highest(&self.normal_s));
        let held = self.never_normal == 0 && p50 <= WANTED.0 && worst <= WANTED.1;
        let mut cells = vec![self.process.to_owned(), self.slowest_s.len().to_string(), self.counted_from.to_owned()];
        let figures = [
            p50,
            worst,
            median(&self.ready_s),
            highest(&self.ready_s),
            median(&self.slowest_s),
            highest(&self.slowest_s),
        ];
        cells.extend(figures.map(|figure| format!("{figure:.2}")));
        cells.push(match self.never_normal {
            0 if held => "held".to_owned(),
            0 => "MISSED".to_owned(),
            times => format!("NEVER NORMAL {times} times"),
        });
        cells
    }
}

/// For services from the kill, for engines from when the new process was started.
fn normal(kind: Kind, kill: &Kill) -> Option<Duration> {
    let before = if kind.is_engine() { kill.started } else { Duration::ZERO };
    Some(kill.normal?.saturating_sub(before))
}

/// One kill, as a line of progress.
pub fn told(kind: Kind, kill: &Kill) -> String {
    let ready = (kill.ready - kill.started).as_secs_f64();
    let normal = match normal(kind, kill) {
        Some(time) => format!("normal after {:.2} s", time.as_secs_f64()),
        None => "NOT NORMAL AGAIN".to_owned(),
    };
    format!("{normal}, ready {ready:.2} s after its start, slowest message {:.2} s", kill.slowest.as_secs_f64())
}

/// The clients of a gateway that was killed, from the kill.
#[derive(Debug, Serialize)]
pub struct Clients {
    clients: usize,
    /// Until they were subscribed again.
    back_p50_s: f64,
    back_p99_s: f64,
    back_all_s: f64,
    /// Until that, and everything that had been sent was with everybody and delivery normal.
    caught_up_s: Option<f64>,
}

impl Clients {
    /// From when each of them was back, in µs.
    pub fn new(since: &[u64], kill: &Kill) -> Self {
        let mut since: Vec<f64> = since.iter().map(|time| *time as f64 / 1e6).collect();
        since.sort_by(f64::total_cmp);
        Self {
            clients: since.len(),
            back_p50_s: rank(&since, 0.5),
            back_p99_s: rank(&since, 0.99),
            back_all_s: rank(&since, 1.0),
            caught_up_s: kill.normal.map(|time| time.as_secs_f64()),
        }
    }
}

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { back_p50_s, back_p99_s, back_all_s, caught_up_s, .. } = self;
        write!(f, "back after {back_p50_s:.2} s (p50), {back_p99_s:.2} s (p99), {back_all_s:.2} s (all); ")?;
        match caught_up_s {
            Some(time) => write!(f, "all caught up and normal after {time:.2} s"),
            None => f.write_str("NOT NORMAL AGAIN"),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct DebeziumFigures {
    away_s: f64,
    acknowledged_per_s: f64,
    backlog: usize,
    first_s: f64,
    all_s: f64,
    normal_s: Option<f64>,
    messages_per_s: f64,
}

impl From<Stopped> for DebeziumFigures {
    fn from(stopped: Stopped) -> Self {
        Self {
            away_s: stopped.away.as_secs_f64(),
            acknowledged_per_s: stopped.acknowledged_per_s,
            backlog: stopped.backlog,
            first_s: stopped.first.as_secs_f64(),
            all_s: stopped.all.as_secs_f64(),
            normal_s: stopped.normal.map(|time| time.as_secs_f64()),
            messages_per_s: stopped.backlog as f64 / (stopped.all - stopped.first).as_secs_f64().max(0.001),
        }
    }
}

impl fmt::Display for DebeziumFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { away_s, acknowledged_per_s, backlog, first_s, all_s, normal_s, messages_per_s } = self;
        writeln!(f, "  acknowledged meanwhile   {acknowledged_per_s:.1} messages/s, for {away_s:.1} s")?;
        writeln!(f, "  waited at the restart    {backlog} messages")?;
        writeln!(f, "  the first was there      {first_s:.2} s after the restart")?;
        writeln!(
            f,
            "  all were there           {all_s:.2} s after it, {messages_per_s:.0} messages/s from the first on"
        )?;
        match normal_s {
            Some(time) => writeln!(f, "  delivery was normal      {time:.2} s after it"),
            None => writeln!(f, "  delivery was normal      NEVER"),
        }
    }
}

/// Where the figures come from.
pub fn head(endpoints: &Endpoints, options: &RecoveryOptions) -> Head {
    let mut head = Head::new(endpoints, "recovery");
    let RecoveryOptions { rate, rooms, members, gateways, workers, cores, bound, .. } = options;
    head.note(format!(
        "{rate} messages/s into {rooms} rooms of {members}; {gateways} gateways, {workers} workers, {cores} cores"
    ));
    head.note(format!("late: with a member more than {} ms after it was due", bound.as_millis()));
    head
}

/// All figures, for a terminal.
pub fn text(figures: &Figures, options: &RecoveryOptions) -> String {
    let mut text = String::new();
    let undisturbed: Vec<f64> = sorted(&figures.undisturbed.iter().map(|us| *us as f64 / 1000.0).collect::<Vec<_>>());
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| rank(&undisturbed, part));
    text += &format!(
        "Undisturbed, a message is with its last member after {p50:.0} ms (p50), {p99:.0} ms (p99), {max:.0} ms (max).\n\n"
    );
    if !figures.rows.is_empty() {
        text += "Killed and started again after 0.2 s; seconds until delivery was normal again, until the new process was\n\
                 ready (from its start), and the longest that a message took:\n\n";
        let header =
            ["process", "kills", "from", "normal p50", "worst", "ready p50", "worst", "slowest p50", "worst", "wanted"];
        text += &table::render(&header, &figures.rows.iter().map(Row::cells).collect::<Vec<_>>());
        text += &format!("\n  wanted: p50 {} s, worst {} s\n\n", WANTED.0, WANTED.1);
    }
    if let Some(debezium) = &figures.debezium {
        text += &format!("The Connect worker with Debezium stopped under load:\n\n{debezium}\n");
    }
    if !figures.clients.is_empty() {
        text += &format!(
            "A gateway killed with {} clients and more; seconds from the kill (wanted: all within {CLIENTS_WANTED} s):\n\n",
            options.clients
        );
        let rows: Vec<Vec<String>> = figures
            .clients
            .iter()
            .map(|one| {
                let Clients { clients, back_p50_s, back_p99_s, back_all_s, caught_up_s } = one;
                let caught_up = caught_up_s.map_or_else(|| "never".to_owned(), |time| format!("{time:.2}"));
                let times = [back_p50_s, back_p99_s, back_all_s].map(|time| format!("{time:.2}"));
                [vec![clients.to_string()], times.into(), vec![caught_up]].concat()
            })
            .collect();
        text += &table::render(&["clients", "back p50", "p99", "all", "caught up and normal"], &rows);
        text.push('\n');
    }
    let Totals { sent, acknowledged, expected, delivered } = figures.totals;
    let Faults { duplicates, gaps, two_seqs, not_recovered, refused, lost } = figures.faults;
    text += &format!(
        "sent {sent}, acknowledged {acknowledged}, delivered {delivered} of {expected}: {lost} lost, {duplicates} twice, \
         {gaps} gaps, {two_seqs} with two seqs, {refused} refused for good, {not_recovered} not resumed\n"
    );
    for complaint in &figures.complaints {
        text += &format!("  {complaint}\n");
    }
    text
}

fn as_percentiles<S: serde::Serializer>(us: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    let seconds = sorted(&us.iter().map(|us| *us as f64 / 1e6).collect::<Vec<_>>());
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| rank(&seconds, part));
    #[derive(Serialize)]
    struct Percentiles {
        p50_s: f64,
        p99_s: f64,
        max_s: f64,
    }
    Percentiles { p50_s: p50, p99_s: p99, max_s: max }.serialize(serializer)
}

fn sorted(times: &[f64]) -> Vec<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(times: &[f64]) -> f64 {
    rank(&sorted(times), 0.5)
}

fn highest(times: &[f64]) -> f64 {
    rank(&sorted(times), 1.0)
}

/// The nearest rank of a share of all; 0 of none.
fn rank(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(started: u64, ready: u64, normal: Option<u64>) -> Kill {
        let [started, ready] = [started, ready].map(Duration::from_millis);
        Kill { started, ready, normal: normal.map(Duration::from_millis), slowest: Duration::from_millis(700) }
    }

    #[test]
    fn the_median_of_ten_is_the_fifth_and_of_none_there_is_none() {
        let times: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!((median(&times), highest(&times), median(&[])), (5.0, 10.0, 0.0));
    }

    #[test]
    fn a_service_is_counted_from_the_kill_and_an_engine_from_its_restart() {
        let kill = kill(250, 900, Some(1250));
        assert_eq!(normal(Kind::FanoutWorker, &kill), Some(Duration::from_millis(1250)));
        assert_eq!(normal(Kind::Kafka, &kill), Some(Duration::from_millis(1000)));
    }

    #[test]
    fn a_row_says_whether_what_is_wanted_was_held() {
        let verdict = |times: &[Option<u64>]| {
            let mut row = Row::new(Kind::SocketGateway);
            times.iter().for_each(|time| row.add(&kill(200, 300, *time)));
            row.cells().pop().unwrap()
        };
        assert_eq!(verdict(&[Some(100), Some(1900), Some(9900)]), "held");
        assert_eq!(verdict(&[Some(2100), Some(2100)]), "MISSED");
        assert_eq!(verdict(&[Some(100), Some(10_100)]), "MISSED");
        assert_eq!(verdict(&[Some(100), None]), "NEVER NORMAL 1 times");
    }
}
