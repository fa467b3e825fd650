//! Kafka Connect, one distributed worker with the Debezium plugin.

use super::{engine, write_properties};
use crate::secrets::Secret;
use crate::stack::{CommandLine, Stack};
use crate::{jars, overrides};
use anyhow::Result;

pub fn prepare(stack: &Stack) -> Result<CommandLine> {
    let layout = &stack.layout;
    let overrides = &stack.settings.overrides;
    let [own_kafka, own_database] = [stack.ports.kafka(), stack.ports.mysql()].map(|port| port.to_string());
    let brokers = overrides::port(overrides, &overrides::KAFKA_OF_CONNECT).unwrap_or(&own_kafka);
    let brokers = format!("127.0.0.1:{brokers}");
    let database_port = overrides::port(overrides, &overrides::DATABASE_OF_CONNECT).unwrap_or(&own_database);
    let port = stack.ports.connect();
    let properties = write_properties(
        layout,
        "connect/worker.properties",
        "connect.properties",
        &[
            ("bootstrap.servers", brokers.clone()),
            ("listeners", format!("http://127.0.0.1:{port}")),
            ("rest.advertised.host.name", "127.0.0.1".to_owned()),
            ("rest.advertised.port", port.to_string()),
            ("plugin.path", jars::plugins(layout).display().to_string()),
        ],
    )?;
    let mut argv = engine(layout, "connect", "org.apache.kafka.connect.cli.ConnectDistributed");
    argv.push(properties.to_string_lossy().into_owned());
    // What connect/switchboard-outbox.json refers to as ${env:…}.
    let env = [
        ("OUTBOX_DATABASE_HOST", "127.0.0.1".to_owned()),
        ("OUTBOX_DATABASE_PORT", database_port.to_owned()),
        ("OUTBOX_DATABASE_PASSWORD", Secret::MysqlDebezium.get(layout)?),
        ("OUTBOX_KAFKA_BROKERS", brokers),
    ];
    Ok(CommandLine { argv, env: env.map(|(key, value)| (key.to_owned(), value)).into() })
}
