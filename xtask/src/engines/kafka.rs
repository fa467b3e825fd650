//! Kafka: one KRaft node, broker and controller in one process.

use super::{engine, java, set_up, write_properties};
use crate::overrides;
use crate::stack::{CommandLine, Stack};
use anyhow::{Context as _, Result};
use std::fs;

/// Any 16 bytes as unpadded base64: one node has nobody to confuse it with.
const CLUSTER_ID: &str = "c3dpdGNoYm9hcmQtb25lMQ";

pub fn prepare(stack: &Stack) -> Result<CommandLine> {
    let layout = &stack.layout;
    let log = layout.log("kafka");
    let data = layout.data().join("kafka");
    let (broker, controller) = (stack.ports.kafka(), stack.ports.kafka_controller());
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("PLAINTEXT://127.0.0.1:{broker}");
    let mut added = vec![
        // Named here and not in the data, so that the stack may move to other ports with its data.
        ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
        ("log.dirs", data.display().to_string()),
    ];
    let mut protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned();
    for (name, index, port) in overrides::links_of_kafka(&stack.settings.overrides) {
        listeners += &format!(",{name}://127.0.0.1:{}", stack.ports.kafka_link(index));
        advertised += &format!(",{name}://127.0.0.1:{port}");
        protocols += &format!(",{name}:PLAINTEXT");
    }
    added.push(("listener.security.protocol.map", protocols));
    added.extend([("listeners", listeners), ("advertised.listeners", advertised)]);
    let properties = write_properties(layout, "deploy/kafka/server.properties", "kafka.properties", &added)?;
    let properties = properties.to_string_lossy().into_owned();
    // The last file that formatting writes.
    if !data.join("meta.properties").exists() {
        fs::create_dir_all(&data).with_context(|| format!("making {}", data.display()))?;
        let mut format = java(layout, "kafka.tools.StorageTool");
        format.extend(
            ["format", "--ignore-formatted", "--cluster-id", CLUSTER_ID, "--config", &properties].map(str::to_owned),
        );
        set_up(&format, &log)?;
    }
    let mut argv = engine(layout, "kafka", "kafka.Kafka");
    argv.push(properties);
    Ok(CommandLine { argv, env: Vec::new() })
}
