//! A row inserted by hand into the outbox is seen in Kafka: change capture streams.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use anyhow::{Context as _, Result};
use proto::topics::{CANARY_EVENTS, aggregate, header};
use rdkafka::message::OwnedMessage;
use sqlx::{Connection as _, MySqlConnection};
use tokio::time::{Instant, interval, timeout_at};

use crate::{
    endpoints::Endpoints,
    kafka::{self, Start, Topic},
};

/// How often to look whether the topic is there; the first canary makes it.
const TOPIC_POLL: Duration = Duration::from_millis(250);

/// A row is inserted this often until one has arrived. A connector that starts for the first time streams what is
/// committed behind the position that it takes after it says RUNNING: one row could be before that.
const ROW_EVERY: Duration = Duration::from_secs(1);

pub async fn run(endpoints: &Endpoints, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    // Opened before the insert, so that the record can't be missed.
    let reader = Topic::open(&endpoints.kafka, CANARY_EVENTS, Start::End).await.ok();
    let rows: Mutex<HashMap<String, Instant>> = Mutex::default();
    let arrived = async {
        let reader = match reader {
            Some(reader) => reader,
            None => timeout_at(deadline, open_when_there(&endpoints.kafka))
                .await
                .with_context(|| format!("no record within {limit:?}: the topic {CANARY_EVENTS} was not made"))?,
        };
        let inserted_at = |record: &OwnedMessage| {
            rows.lock().expect("nobody panics with it").get(&kafka::header(record, header::ID)?).copied()
        };
        let record = reader
            .find(deadline, |record| inserted_at(record).is_some())
            .await
            .with_context(|| format!("no outbox row reached {CANARY_EVENTS} within {limit:?}"))?;
        Ok::<_, anyhow::Error>(inserted_at(&record).map(|at| at.elapsed()).unwrap_or_default())
    };
    let elapsed = tokio::select! {
        arrived = arrived => arrived?,
        failed = insert_rows(&endpoints.mysql, deadline, &rows) => return Err(failed),
    };
    println!("an outbox row inserted by hand reached Kafka in {:.1} ms", elapsed.as_secs_f64() * 1000.0);
    Ok(())
}

/// Inserts rows until that fails.
async fn insert_rows(mysql: &str, deadline: Instant, rows: &Mutex<HashMap<String, Instant>>) -> anyhow::Error {
    let mut ticks = interval(ROW_EVERY);
    loop {
        ticks.tick().await;
        let id = uuid::Uuid::now_v7().to_string();
        rows.lock().expect("nobody panics with it").insert(id.clone(), Instant::now());
        match timeout_at(deadline, insert(mysql, &id)).await.context("MySQL did not answer in time") {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => return error,
        }
    }
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
