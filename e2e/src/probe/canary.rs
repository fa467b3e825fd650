//! A row inserted by hand into the outbox is seen in Kafka: change capture streams.

use std::time::Duration;

use anyhow::{Context as _, Result};
use proto::topics::{CANARY_EVENTS, aggregate, header};
use sqlx::{Connection as _, MySqlConnection};
use tokio::time::{Instant, interval, timeout_at};

use crate::{
    endpoints::Endpoints,
    kafka::{self, Start, Topic},
};

/// How often to look whether the topic is there; the first canary makes it.
const TOPIC_POLL: Duration = Duration::from_millis(250);

pub async fn run(endpoints: &Endpoints, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    // Opened before the insert, so that the record can't be missed.
    let reader = Topic::open(&endpoints.kafka, CANARY_EVENTS, Start::End).await.ok();
    let id = uuid::Uuid::now_v7().to_string();
    timeout_at(deadline, insert(&endpoints.mysql, &id)).await.context("MySQL did not answer in time")??;
    let inserted = Instant::now();
    let reader = match reader {
        Some(reader) => reader,
        None => timeout_at(deadline, open_when_there(&endpoints.kafka))
            .await
            .with_context(|| format!("no record within {limit:?}: the topic {CANARY_EVENTS} was not made"))?,
    };
    reader
        .find(deadline, |record| kafka::header(record, header::ID).as_ref() == Some(&id))
        .await
        .with_context(|| format!("the outbox row {id} did not reach {CANARY_EVENTS} within {limit:?}"))?;
    println!("an outbox row inserted by hand reached Kafka in {:.1} ms", inserted.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}

async fn insert(url: &str, id: &str) -> Result<()> {
    let mut connection = MySqlConnection::connect(url).await.context("connecting to MySQL")?;
    sqlx::query(
        "INSERT INTO message_producer_outbox (id, aggregatetype, aggregateid, type, payload, epoch, created_at) \
         VALUES (?, ?, '1', 'CANARY', '{}', 1, UTC_TIMESTAMP(6))",
    )
    .bind(id)
    .bind(aggregate::CANARY)
    .execute(&mut connection)
    .await
    .context("inserting the row")?;
    connection.close().await?;
    Ok(())
}

async fn open_when_there(brokers: &str) -> Topic {
    let mut ticks = interval(TOPIC_POLL);
    loop {
        ticks.tick().await;
        if let Ok(reader) = Topic::open(brokers, CANARY_EVENTS, Start::Beginning).await {
            return reader;
        }
    }
}
