//! A throw-away connector beside the real one: the same source, without the EventRouter.

use std::{fs, path::Path, time::Duration, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use ureq::Agent;

/// For the connector's task to start.
const START: Duration = Duration::from_secs(60);

/// Deletes the connector when it is dropped. Its topics stay until the stack's data is purged.
pub struct Raw {
    agent: Agent,
    url: String,
    prefix: String,
}

impl Raw {
    /// Creates it from `connect/switchboard-outbox.json` and waits until its task runs.
    pub fn start(connect: &str, root: &Path) -> Result<Self> {
        let prefix = format!("capture-{}", uuid::Uuid::new_v4().simple());
        let file = fs::read_to_string(root.join("connect/switchboard-outbox.json"))?;
        let ours: Map<String, Value> = serde_json::from_str(&file)?;
        let routing = ["transforms", "predicates", "topic.creation.events", "topic.creation.groups", "heartbeat"];
        let kept = ours.into_iter().filter(|(key, _)| !routing.iter().any(|prefix| key.starts_with(prefix)));
        let mut config: Map<String, Value> = kept.collect();
        let json_converter = json!("org.apache.kafka.connect.json.JsonConverter");
        let changes = [
            ("topic.prefix", json!(prefix)),
            ("database.server.id", json!("5799")),
            ("table.include.list", json!("chat.message_producer_outbox")),
            ("schema.history.internal.kafka.topic", json!(format!("{prefix}.schema-history"))),
            ("skipped.operations", json!("none")),
            ("tombstones.on.delete", json!("true")),
            ("key.converter", json_converter.clone()),
            ("value.converter", json_converter),
            ("key.converter.schemas.enable", json!("false")),
            ("value.converter.schemas.enable", json!("false")),
        ];
        config.extend(changes.map(|(key, value)| (key.to_owned(), value)));
        let config_agent = Agent::config_builder().http_status_as_error(false).build();
        let raw = Self { agent: config_agent.into(), url: format!("{connect}/connectors/{prefix}"), prefix };
        let mut answer = raw
            .agent
            .put(format!("{}/config", raw.url))
            .header("content-type", "application/json")
            .send(Value::Object(config).to_string())?;
        ensure!(answer.status().is_success(), "Connect refused it: {}", answer.body_mut().read_to_string()?);
        let deadline = Instant::now() + START;
        while raw.task_state()? != "RUNNING" {
            ensure!(Instant::now() < deadline, "the connector's task did not start within {START:?}");
        }
        Ok(raw)
    }

    /// Where its changes of the outbox are written.
    pub fn topic(&self) -> String {
        format!("{}.chat.message_producer_outbox", self.prefix)
    }

    /// Fails when its task does not run any more.
    pub fn check(&self) -> Result<()> {
        let state = self.task_state()?;
        ensure!(state == "RUNNING", "the connector's task is {state}");
        Ok(())
    }

    /// Empty while there is no task.
    fn task_state(&self) -> Result<String> {
        let status = self.agent.get(format!("{}/status", self.url)).call()?.body_mut().read_to_string()?;
        let status: Value = serde_json::from_str(&status).context("the connector's status")?;
        Ok(status["tasks"][0]["state"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = self.agent.delete(&self.url).call() {
            eprintln!("{} could not be deleted: {error}", self.url);
        }
    }
}
