//! What gateways say that they have, when nobody is connected any more.

use anyhow::{Context as _, Result};
use e2e::metrics::Metrics;

use super::{Sources, TruthRecord};

/// Each must be 0 then.
const GAUGES: [&str; 7] = [
    "gateway_connections",
    "gateway_sessions",
    "gateway_subscriptions",
    "gateway_conversations",
    "gateway_users",
    "gateway_sends_in_flight",
    "gateway_queued_bytes",
];

pub async fn read(sources: &Sources) -> Result<Vec<TruthRecord>> {
    let mut found = Vec::new();
    for gateway in &sources.gateways {
        let metrics = Metrics::of(gateway).await?;
        for gauge in GAUGES {
            let value = metrics.get(gauge).with_context(|| format!("{gateway} has no {gauge}"))?;
            if value != 0.0 {
                let what = "in a gateway without clients".to_owned();
                found.push(TruthRecord::LeftOver {
                    what,
                    key: gauge.to_owned(),
                    detail: format!("{value} at {gateway}"),
                });
            }
        }
    }
    Ok(found)
}
