//! Which partitions there should be: pure.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

use crate::config;

/// Takes what is above every bound; stays empty as long as partitions are made in time.
pub const CATCH_ALL: &str = "p_max";

/// A partition, and the time that its rows are before; the catch-all has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    pub before: Option<DateTime<Utc>>,
}

impl Partition {
    fn before(bound: DateTime<Utc>) -> Self {
        Self { name: bound.format("before_%Y%m%d_%H%M%S").to_string(), before: Some(bound) }
    }

    /// From its description in `information_schema`, as whoever made it wrote it: `'2026-01-02 00:00:00'` or
    /// `'2026-01-02'`, or `MAXVALUE`.
    pub fn parse(name: String, description: &str) -> Option<Self> {
        if description == "MAXVALUE" {
            return Some(Self { name, before: None });
        }
        let text = description.trim_matches('\'');
        let date = || Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(NaiveTime::MIN));
        let bound = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok().or_else(date)?;
        Some(Self { name, before: Some(bound.and_utc()) })
    }

    /// `PARTITION x VALUES LESS THAN ('…')`.
    pub fn definition(&self) -> String {
        match self.before {
            Some(bound) => {
                format!("PARTITION {} VALUES LESS THAN ('{}')", self.name, bound.format("%Y-%m-%d %H:%M:%S"))
            }
            None => format!("PARTITION {} VALUES LESS THAN (MAXVALUE)", self.name),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be split off the catch-all, in order.
    pub make: Vec<Partition>,
    /// All of whose rows are older than the retention window.
    pub drop: Vec<Partition>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.make.is_empty() && self.drop.is_empty()
    }
}

/// Bounds are multiples of the width since 1970, so all cores mean the same ones.
pub fn plan(existing: &[Partition], now: DateTime<Utc>, config: &config::Partitions) -> Plan {
    let width = seconds(config.width);
    let next = |time: i64| (time.div_euclid(width) + 1) * width;
    let highest = existing.iter().filter_map(|partition| partition.before).max().map_or(0, |bound| bound.timestamp());
    // After a pause of days the rows of those days share one partition.
    let first = next(now.timestamp()).max(next(highest));
    let room = config.max.saturating_sub(existing.len());
    let make = (0..)
        .map(|step| first + step * width)
        .take_while(|bound| *bound <= now.timestamp() + seconds(config.ahead) + width)
        .take(room)
        .filter_map(|bound| DateTime::from_timestamp(bound, 0))
        .map(Partition::before)
        .collect();
    let oldest = now - config.retention;
    let drop = existing.iter().filter(|partition| partition.before.is_some_and(|bound| bound <= oldest)).cloned();
    Plan { make, drop: drop.collect() }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> config::Partitions {
        const DAY: Duration = Duration::from_secs(86_400);
        config::Partitions {
            interval: Duration::from_secs(600),
            width: DAY,
            ahead: 2 * DAY,
            retention: 7 * DAY,
            max: 50,
            lock_timeout: Duration::from_secs(1),
            consumer_groups: vec!["fanout".to_owned()],
            guard_timeout: Duration::from_secs(30),
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn catch_all() -> Partition {
        Partition { name: CATCH_ALL.to_owned(), before: None }
    }

    fn names(partitions: &[Partition]) -> Vec<&str> {
        partitions.iter().map(|partition| partition.name.as_str()).collect()
    }

    #[test]
    fn a_new_table_gets_a_partition_for_now_and_those_ahead() {
        let plan = plan(&[catch_all()], at("2026-03-01T12:00:00Z"), &config());
        let expected = ["before_20260302_000000", "before_20260303_000000", "before_20260304_000000"];
        assert_eq!((names(&plan.make), plan.drop), (expected.to_vec(), vec![]));
        assert_eq!(
            plan.make[0].definition(),
            "PARTITION before_20260302_000000 VALUES LESS THAN ('2026-03-02 00:00:00')"
        );
    }

    #[test]
    fn the_next_day_one_more_is_made_and_then_none() {
        let mut partitions = plan(&[catch_all()], at("2026-03-01T12:00:00Z"), &config()).make;
        let next = plan(&partitions, at("2026-03-02T00:00:00Z"), &config());
        assert_eq!(names(&next.make), ["before_20260305_000000"]);
        partitions.extend(next.make);
        assert!(plan(&partitions, at("2026-03-02T23:59:59Z"), &config()).is_empty());
    }

    #[test]
    fn after_a_pause_the_days_of_it_share_one_partition() {
        let old = Partition::before(at("2026-03-02T00:00:00Z"));
        let plan = plan(&[old, catch_all()], at("2026-03-06T12:00:00Z"), &config());
        assert_eq!(plan.make[0].name, "before_20260307_000000");
    }

    #[test]
    fn only_what_is_older_than_the_window_to_its_last_row_is_dropped() {
        let partitions: Vec<_> =
            (1..=9).map(|day| Partition::before(at(&format!("2026-03-0{day}T00:00:00Z")))).collect();
        let drop = |now: &str| names(&plan(&partitions, at(now), &config()).drop).len();
        assert_eq!(
            (drop("2026-03-07T23:59:59Z"), drop("2026-03-08T00:00:00Z"), drop("2026-03-10T12:00:00Z")),
            (0, 1, 3)
        );
    }

    #[test]
    fn there_are_never_more_than_the_limit() {
        let config = config::Partitions { max: 3, ..config() };
        assert_eq!(plan(&[catch_all()], at("2026-03-01T12:00:00Z"), &config).make.len(), 2);
        let full = vec![catch_all(); 4];
        assert!(plan(&full, at("2026-03-01T12:00:00Z"), &config).make.is_empty());
    }

    #[test]
    fn descriptions_of_the_server_are_read() {
        let parsed = Partition::parse("a".to_owned(), "'2026-03-02 00:00:00.000000'").unwrap();
        assert_eq!(parsed.before, Some(at("2026-03-02T00:00:00Z")));
        assert_eq!(Partition::parse("a".to_owned(), "'2026-03-02 00:00:00'").unwrap().before, parsed.before);
        assert_eq!(Partition::parse("a".to_owned(), "'2026-03-02'").unwrap().before, parsed.before);
        assert_eq!(Partition::parse("b".to_owned(), "MAXVALUE").unwrap().before, None);
        assert_eq!(Partition::parse("c".to_owned(), "12"), None);
    }
}
