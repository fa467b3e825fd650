//! The change stream behind core: pausing it, and how fast it catches up.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use tokio::time::{Instant, sleep};

use crate::{endpoints::Endpoints, kafka, rest::Rest};

const CONNECTOR: &str = "switchboard-outbox";
const GROUP: &str = "fanout";
const POLL: Duration = Duration::from_millis(200);
/// How long the connector may take to do as it was told.
const DEADLINE: Duration = Duration::from_secs(30);

/// The connector, over Connect's REST.
pub struct Connector {
    rest: Rest,
}

impl Connector {
    pub fn of(endpoints: &Endpoints) -> Self {
        Self { rest: Rest::new(std::slice::from_ref(&endpoints.connect)) }
    }

    pub async fn pause(&self) -> Result<()> {
        self.tell("pause", "PAUSED").await
    }

    pub async fn resume(&self) -> Result<()> {
        self.tell("resume", "RUNNING").await
    }

    async fn tell(&self, what: &str, state: &str) -> Result<()> {
        self.rest.call(Method::PUT, &format!("/connectors/{CONNECTOR}/{what}"), None, None).await?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.rest.call(Method::GET, &format!("/connectors/{CONNECTOR}/status"), None, None).await?;
            if status["connector"]["state"] == state && status["tasks"][0]["state"] == state {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the connector is not {state}: {status}");
            sleep(POLL).await;
        }
    }
}

/// The events that Connect has written.
pub struct Stream {
    heads: Arc<kafka::Heads>,
    brokers: String,
    /// Records before the run.
    before: i64,
}

impl Stream {
    pub async fn open(endpoints: &Endpoints) -> Result<Self> {
        let heads = Arc::new(kafka::Heads::of(&endpoints.kafka, proto::topics::MESSAGE_EVENTS)?);
        let before = heads.read().await?;
        Ok(Self { heads, brokers: endpoints.kafka.clone(), before })
    }

    /// Prints how fast `events` reach Kafka, and then the workers.
    pub async fn catch_up(&self, events: usize, limit: Duration) -> Result<()> {
        let wanted = self.before + i64::try_from(events)?;
        let (begun, from) = (Instant::now(), self.heads.read().await?);
        let mut first = None;
        let streamed = loop {
            let head = self.heads.read().await?;
            if head > from {
                first.get_or_insert_with(Instant::now);
            }
            if head >= wanted {
                break begun.elapsed();
            }
            ensure!(begun.elapsed() < limit, "{} events are not in Kafka", wanted - head);
            sleep(POLL).await;
        };
        while kafka::lag(&self.brokers, GROUP, proto::topics::MESSAGE_EVENTS).await.context("the group's lag")? > 0 {
            ensure!(begun.elapsed() < limit, "the workers lag");
            sleep(POLL).await;
        }
        let streaming = first.map_or(streamed, |first| streamed.saturating_sub(first - begun));
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 events")]
        let rate = (wanted - from) as f64 / streaming.as_secs_f64();
        println!(
            "  caught up: {} events in Kafka after {:.1} s ({rate:.0}/s once they came), routed after {:.1} s",
            wanted - from,
            streamed.as_secs_f64(),
            begun.elapsed().as_secs_f64(),
        );
        Ok(())
    }
}
