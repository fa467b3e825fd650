//! Kafka Connect, one distributed worker with the Debezium plugin.

use super::{engine, write_properties};
use crate::secrets::Secret;
use crate::stack::{CommandLine, Stack};
use crate::{jars, overrides};
use anyhow::Result;

pub fn prepare(stack: &Stack) -> Result<CommandLine> {
    let layout = &stack.layout;
    let brokers = format!("127.0.0.1:{}", stack.ports.kafka());
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
    let own_port = stack.ports.mysql().to_string();
    let database_port = overrides::database_port_of_connect(&stack.settings.overrides).unwrap_or(&own_port);
    // What connect/switchboard-outbox.json refers to as ${env:…}.
    let env = [
        ("OUTBOX_DATABASE_HOST", "127.0.0.1".to_owned()),
        ("OUTBOX_DATABASE_PORT", database_port.to_owned()),
        ("OUTBOX_DATABASE_PASSWORD", Secret::MysqlDebezium.get(layout)?),
        ("OUTBOX_KAFKA_BROKERS", brokers),
    ];
    Ok(CommandLine { argv, env: env.map(|(key, value)| (key.to_owned(), value)).into() })
}
