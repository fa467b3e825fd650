//! Drawings of what `--json` has collected: does the cost grow in proportion?

mod svg;

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use self::svg::{Chart, Series};
use super::{engine::Window, fanout::Figures, options::Plot};

/// A line of the file that is of the scenario drawn here; others have other fields.
#[derive(Debug, Deserialize)]
struct Line {
    head: Head,
    figures: Figures,
}

#[derive(Debug, Deserialize)]
struct Head {
    scenario: String,
    /// Empty: another server's figures.
    build: String,
    machine: super::machine::Machine,
}

/// What one window says about one chart.
struct Point {
    series: String,
    x: f64,
    y: f64,
}

/// Draws every chart for which there are figures at two places at least.
pub fn run(options: &Plot) -> Result<()> {
    let text = fs::read_to_string(&options.file).with_context(|| format!("reading {}", options.file.display()))?;
    let lines: Vec<Line> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Line| line.head.scenario == "fanout" && !line.head.build.is_empty())
        .collect();
    ensure!(!lines.is_empty(), "{} has no line of the scenario fanout", options.file.display());
    fs::create_dir_all(&options.out).with_context(|| format!("making {}", options.out.display()))?;
    let machine = &lines[0].head.machine;
    let under = format!(
        "{}, {} cores, everything on it; CPU time of the processes, not elapsed time",
        machine.cpu, machine.cores
    );
    let way = |figures: &Figures| if figures.direct { "stream fed directly" } else { "whole pipeline" };

    let by_subscribers = points(&lines, |figures, window| {
        (figures.gateways == 1).then(|| Point {
            series: format!("{:.0} messages/s, {}", window.rate, way(figures)),
            x: figures.subscribers as f64,
            y: window.server_us() / window.delivered.max(1) as f64,
        })
    });
    let by_gateways = points(&lines, |figures, window| {
        Some(Point {
            series: format!("{} subscribers, {:.0} messages/s, {}", figures.subscribers, window.rate, way(figures)),
            x: figures.gateways as f64,
            y: window.server_us() / window.delivered.max(1) as f64,
        })
    });
    let workers = points(&lines, |figures, window| {
        (!figures.direct).then(|| Point {
            series: format!("{} subscribers, {:.0} messages/s", figures.subscribers, window.rate),
            x: figures.gateways as f64,
            y: window.cpu_us("fanout-worker") / window.sent.max(1) as f64,
        })
    });
    let charts = [
        (
            "gateway-by-subscribers",
            "Gateway CPU per delivery, by subscribers of one channel",
            "subscribers (logarithmic)",
            true,
            by_subscribers,
        ),
        (
            "gateway-by-gateways",
            "CPU per delivery of all gateways together, by gateways",
            "gateways that the subscribers are spread over",
            false,
            by_gateways,
        ),
        (
            "worker-by-gateways",
            "Worker CPU per message, by gateways it goes to",
            "gateways that the subscribers are spread over",
            false,
            workers,
        ),
    ];
    for (name, title, x_axis, logarithmic, series) in charts {
        let y_axis = if name.starts_with("worker") { "CPU µs per message" } else { "CPU µs per delivery" };
        let chart = Chart { title, x_axis, y_axis, logarithmic, series, under: &under };
        if chart.series.is_empty() {
            println!("{name}: no figures at two places");
            continue;
        }
        let file = options.out.join(format!("{name}.svg"));
        fs::write(&file, chart.draw()).with_context(|| format!("writing {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// Series of medians; those with one point say nothing of growth.
fn points(lines: &[Line], point: impl Fn(&Figures, &Window) -> Option<Point>) -> Vec<Series> {
    let mut all: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for figures in lines.iter().map(|line| &line.figures) {
        for Point { series, x, y } in figures.fixed.iter().filter_map(|window| point(figures, window)) {
            all.entry(series).or_default().push((x, y));
        }
    }
    let series = all.into_iter().map(|(name, points)| Series { name, points: medians(points) });
    series.filter(|series| series.points.len() > 1).collect()
}

/// One point for each x.
fn medians(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    points.chunk_by(|a, b| a.0 == b.0).map(|same| same[same.len() / 2]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_figures_at_one_place_the_median_counts() {
        let points = vec![(5.0, 1.0), (1.0, 9.0), (1.0, 2.0), (1.0, 3.0)];
        assert_eq!(medians(points), [(1.0, 3.0), (5.0, 1.0)]);
    }
}
