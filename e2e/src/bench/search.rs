//! The highest rate that is held: doubled until one is not, then halved in between.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    engine::{Engine, Sender, Window},
    say,
};

/// How long each rate is tried.
const STEP: Duration = Duration::from_secs(3);
/// The search ends when held and not held are this near.
const NEAR: f64 = 1.05;
/// How long the backlog of a rate that was not held may take to go.
const DRAIN: Duration = Duration::from_secs(8);

/// The best window that was held. Searches from `start` upwards, for `limit` at most.
pub fn highest(engine: &mut Engine, sender: &mut Sender, start: f64, limit: Duration) -> Result<Option<Window>> {
    let end = Instant::now() + limit;
    let (mut held, mut failed, mut rate) = (None, None, start);
    let mut best = None;
    while Instant::now() + STEP < end {
        let window = match engine.window(sender, rate, STEP, STEP, &|_| {}) {
            Ok(window) => window,
            // Too much for the way there: a stream that was cut, say.
            Err(error) if best.is_some() => {
                say(&format!("{rate:8.0} msg/s: {error:#}; the search ends here"));
                break;
            }
            Err(error) => return Err(error),
        };
        let is_held = window.held();
        say(&format!(
            "{rate:8.0} msg/s: {:9.0} deliveries/s, p99 {:6.1} ms, {}",
            window.deliveries_per_s,
            window.p99_ms,
            if is_held { "held" } else { "not held" }
        ));
        if is_held {
            held = Some(rate);
            best = Some(window);
        } else {
            failed = Some(rate);
        }
        rate = match (held, failed) {
            (Some(held), None) => held * 2.0,
            (None, Some(failed)) => failed / 2.0,
            (Some(held), Some(failed)) if failed / held > NEAR => (held * failed).sqrt(),
            _ => break,
        };
        if rate < 0.5 || engine.clients.ready() == 0 {
            break;
        }
        engine.drain(sender, DRAIN, |_| false)?;
    }
    Ok(best)
}
