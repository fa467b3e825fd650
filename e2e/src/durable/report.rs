//! What a run has shown, as text.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Instant};

use anyhow::Result;
use sqlx::{Connection as _, MySqlConnection, Row as _};

use super::{Plan, tally::Tally};
use crate::{
    endpoints::Endpoints,
    metrics::Metrics,
    percentiles::Percentiles,
    processes::{self, Usage},
    table,
};

/// Counters of MySQL that are told per message.
const STATUS: &[&str] = &[
    "Com_commit",
    "Com_select",
    "Com_insert",
    "Com_update",
    "Com_stmt_prepare",
    "Com_stmt_execute",
    "Questions",
    "Bytes_received",
    "Bytes_sent",
    "Innodb_os_log_fsyncs",
    "Innodb_data_fsyncs",
    "Innodb_os_log_written",
    "Innodb_rows_read",
    "Innodb_row_lock_waits",
];

/// Everything that is compared before and after.
pub struct Reading {
    at: Instant,
    processes: Vec<Usage>,
    own: Option<Usage>,
    created: usize,
    status: BTreeMap<String, f64>,
    /// Sum and count of core's histograms of batches and commits.
    batches: [f64; 4],
}

impl Reading {
    pub async fn take(endpoints: &Endpoints, tally: &Tally) -> Result<Self> {
        let created = tally.created.load(Ordering::Relaxed);
        let processes = processes::read(&endpoints.processes);
        let at = Instant::now();
        let mut mysql = MySqlConnection::connect(&endpoints.mysql).await?;
        let rows = sqlx::query("SHOW GLOBAL STATUS").fetch_all(&mut mysql).await?;
        let status = rows.iter().filter_map(|row| {
            let (name, value): (String, String) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
            Some((name, value.parse().ok()?))
        });
        let status = status.collect();
        mysql.close().await?;
        let mut batches = [0.0; 4];
        for admin in endpoints.core_admin()? {
            let Ok(metrics) = Metrics::of(&admin).await else { continue };
            let names = [
                "core_batch_messages_sum",
                "core_batch_messages_count",
                "core_commit_seconds_sum",
                "core_commit_seconds_count",
            ];
            for (sum, name) in batches.iter_mut().zip(names) {
                *sum += metrics.get(name).unwrap_or_default();
            }
        }
        Ok(Self { at, processes, own: processes::own("(this generator)"), created, status, batches })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counters are far below 2^52")]
pub fn print(plan: &Plan, tally: &Tally, before: &Reading, after: &Reading) {
    let created = (after.created - before.created).max(1);
    let took = after.at.duration_since(before.at).as_secs_f64();
    let refused = tally.refused.load(Ordering::Relaxed);
    println!("\n{created} messages in {took:.1} s: {:.0}/s, {refused} refused", created as f64 / took);
    if let Some(complaint) = tally.complaint.get() {
        println!("  first refusal: {complaint}");
    }
    let [messages, batches, seconds, commits] = std::array::from_fn(|at| after.batches[at] - before.batches[at]);
    println!(
        "  {:.1} messages a commit, {:.2} ms a commit, {:.0} commits/s",
        messages / batches.max(1.0),
        1000.0 * seconds / commits.max(1.0),
        commits / took
    );
    let mut answers = tally.take_answers();
    let mut deliveries = tally.take_deliveries();
    let row = |name: &str, times: Percentiles| {
        let ms = |time: f64| format!("{time:.1}");
        vec![name.to_owned(), ms(times.p50), ms(times.p90), ms(times.p99), ms(times.max), times.count.to_string()]
    };
    let mut rows = vec![row("due -> answer", Percentiles::of(&mut answers))];
    if plan.subscribe {
        rows.push(row("due -> MESSAGE", Percentiles::of(&mut deliveries)));
    }
    print!("\n{}", table::render(&["latency, ms", "p50", "p90", "p99", "max", "samples"], &rows));

    let mut total = 0.0;
    let mut rows = Vec::new();
    for (used, was) in after.processes.iter().zip(&before.processes) {
        let us = (used.cpu_ms - was.cpu_ms) as f64 * 1000.0 / created as f64;
        total += us;
        rows.push(process(used, was, us, took));
    }
    rows.push(vec!["all of these".to_owned(), format!("{total:.0}"), String::new(), String::new()]);
    if let (Some(used), Some(was)) = (&after.own, &before.own) {
        let us = (used.cpu_ms - was.cpu_ms) as f64 * 1000.0 / created as f64;
        rows.push(process(used, was, us, took));
    }
    print!("\n{}", table::render(&["process", "CPU us/message", "CPU %", "RSS MiB"], &rows));

    print!("\n  MySQL, per message:");
    for name in STATUS {
        let delta = after.status.get(*name).copied().unwrap_or_default()
            - before.status.get(*name).copied().unwrap_or_default();
        print!(" {name} {:.3}", delta / created as f64);
    }
    println!();
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are far below 2^52")]
fn process(used: &Usage, was: &Usage, us: f64, took: f64) -> Vec<String> {
    let percent = (used.cpu_ms - was.cpu_ms) as f64 / 10.0 / took;
    vec![used.name.clone(), format!("{us:.0}"), format!("{percent:.0}"), (used.rss_kib / 1024).to_string()]
}
