//! Captures records from the real connector as golden files, one for each event type on each topic:
//!
//! ```text
//! SWITCHBOARD_ENDPOINTS=.switchboard/dev/endpoints.json cargo run -p fanout-worker --example capture_records
//! ```
//!
//! It inserts an outbox row of every type that goes through the outbox and takes what the connector makes of it; a
//! second, throw-away connector without the EventRouter shows the raw change envelopes of an insert, an update and a
//! delete. Ids, times and bodies are fixed, so that a second run changes the router's files only where the connector
//! does. Records that core produces itself (typing, connections) are taken from their topics, if there are any.
//! The rows and the second connector are removed again. An argument names another folder than `proto/golden/records`.

mod connector;
mod record;
mod rows;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use proto::topics::{self, header};
use record::{Captured, Reader};
use serde::Deserialize;
use sqlx::MySqlPool;

/// For a record to come once its row is committed, connector and all.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Endpoints {
    mysql: String,
    kafka: String,
    connect: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::var("SWITCHBOARD_ENDPOINTS").context("SWITCHBOARD_ENDPOINTS must name an endpoints.json")?;
    let endpoints: Endpoints = serde_json::from_str(&fs::read_to_string(&path).context(path)?)?;
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = std::env::args().nth(1).map_or_else(|| root.join("proto/golden/records"), PathBuf::from);
    fs::create_dir_all(&folder)?;
    let pool = MySqlPool::connect(&endpoints.mysql).await.context("mysql")?;

    let rows = rows::all();
    let mut reader = Reader::from_the_end(&endpoints.kafka, &[topics::MESSAGE_EVENTS, topics::USER_EVENTS])?;
    for row in &rows {
        row.insert(&pool).await?;
    }
    for row in &rows {
        let captured = reader.next(PATIENCE, |record| record.header(header::ID) == Some(&row.id))?;
        captured.write(&folder, &row.event_type)?;
    }
    raw(&endpoints, &pool, &root, &folder).await?;
    rows::remove_all(&pool).await?;

    for topic in [topics::EPHEMERAL_EVENTS, topics::CONNECTION_EVENTS] {
        let found =
            Reader::from_the_start(&endpoints.kafka, &[topic]).and_then(|mut reader| reader.newest_of_each_type());
        match found {
            Ok(records) if !records.is_empty() => {
                for (event_type, record) in records {
                    record.write(&folder, &event_type)?;
                }
            }
            Ok(_) => println!("{topic}: nothing there; let core write some and run this again"),
            Err(error) => println!("{topic}: {error:#}"),
        }
    }
    Ok(())
}

/// The raw envelopes of one row's life, and the tombstone behind its delete.
async fn raw(endpoints: &Endpoints, pool: &MySqlPool, root: &std::path::Path, folder: &std::path::Path) -> Result<()> {
    let connector = connector::Raw::start(&endpoints.connect, root)?;
    let topic = connector.topic();
    let row = rows::first_message();
    // A connector says RUNNING before it reads, and starts where the binlog is then: rows until one comes through.
    let mut reader = loop {
        row.insert(pool).await?;
        if let Ok(mut reader) = Reader::from_the_start(&endpoints.kafka, &[&topic])
            && reader.next(Duration::from_millis(500), |_| true).is_ok()
        {
            break reader;
        }
        connector.check()?;
    };
    row.insert(pool).await?;
    let id = format!("\"id\":\"{}\"", row.id);
    let mut op = |name: &str, op: &str| -> Result<()> {
        let wanted = format!("\"op\":\"{op}\"");
        let captured = reader.next(PATIENCE, |record| {
            record.value.as_ref().is_some_and(|value| value.contains(&id) && value.contains(&wanted))
        })?;
        captured.under("raw.chat.message_producer_outbox").write(folder, name)
    };
    op("create", "c")?;
    rows::overwrite_payload(pool, &row.id).await?;
    op("update", "u")?;
    rows::remove_all(pool).await?;
    op("delete", "d")?;
    let tombstone = reader.next(PATIENCE, |record| record.value.is_none())?;
    tombstone.under("raw.chat.message_producer_outbox").write(folder, "tombstone")
}

/// Names the files: `<topic>.<name>.json`.
impl Captured {
    fn write(&self, folder: &std::path::Path, name: &str) -> Result<()> {
        let file = folder.join(format!("{}.{name}.json", self.topic));
        fs::write(&file, serde_json::to_string_pretty(self)? + "\n").with_context(|| file.display().to_string())?;
        println!("{}", file.display());
        Ok(())
    }
}
