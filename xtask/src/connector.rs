//! The outbox connector: registered from `connect/switchboard-outbox.json`, and its state as Connect tells it.
//! RUNNING says that nothing failed, not that records flow: that is what the canary of `up` shows.

use crate::command;
use crate::interrupt::{Interrupt, POLL};
use crate::readiness::http_client;
use crate::report::Report;
use crate::stack::Stack;
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

pub const NAME: &str = "switchboard-outbox";

const STEP: &str = "connector";
/// From registration until the connector and its task run.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A failed task is restarted this often before the start counts as failed; Connect never does it by itself.
const RESTARTS: u32 = 3;

/// `GET /connectors/<name>/status`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    connector: State,
    tasks: Vec<Task>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    id: u32,
    #[serde(flatten)]
    state: State,
}

impl Status {
    pub fn is_running(&self) -> bool {
        !self.tasks.is_empty() && self.states().all(|state| state.state == "RUNNING")
    }

    fn failure(&self) -> Option<&State> {
        self.states().find(|state| state.state == "FAILED")
    }

    fn states(&self) -> impl Iterator<Item = &State> {
        std::iter::once(&self.connector).chain(self.tasks.iter().map(|task| &task.state))
    }
}

/// `connector RUNNING, task 0 FAILED (…)`
impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "connector {}", self.connector)?;
        if self.tasks.is_empty() {
            f.write_str(", no task yet")?;
        }
        self.tasks.iter().try_for_each(|task| write!(f, ", task {} {}", task.id, task.state))
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.state)?;
        match self.trace.as_deref().and_then(|trace| trace.lines().next()) {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// Registers the connector if its configuration is new, restarts what failed, and waits until it runs.
///
/// # Errors
/// Connect refuses the configuration, or the connector does not run in time. The cause is often only in Connect's
/// log, so its end is part of the error.
pub fn ensure(stack: &Stack, report: &Report, interrupt: &Interrupt) -> Result<()> {
    let log = stack.layout.log("connect");
    let end_of_log = || format!("The end of {}:\n{}", log.display(), command::tail(&log, 0));
    let file = stack.layout.root().join("connect").join(format!("{NAME}.json"));
    let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut wanted: Value = serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?;
    wanted["name"] = NAME.into();

    let began = Instant::now();
    let (mut registered, mut restarts) = (false, 0);
    loop {
        interrupt.check()?;
        if !registered {
            registered = register(stack, &wanted, report).map_err(|error| error.context(end_of_log()))?;
        }
        let status = if registered { status(stack)? } else { None };
        match &status {
            Some(status) if status.is_running() => {
                report.line(STEP, status);
                return Ok(());
            }
            Some(status) if matches!(&*status.connector.state, "STOPPED" | "PAUSED") => {
                report.line(STEP, format_args!("resuming: {status}"));
                resume(stack)?;
            }
            Some(status) if status.failure().is_some() => {
                if restarts == RESTARTS {
                    bail!("{NAME} fails: {status}. {}", end_of_log());
                }
                restarts += 1;
                report.line(STEP, format_args!("restarting: {status}"));
                restart_failed(stack)?;
            }
            _ => {}
        }
        if began.elapsed() > START_LIMIT {
            let state = status.map_or_else(|| "not registered".to_owned(), |status| status.to_string());
            bail!("{NAME} does not run after {} s: {state}. {}", START_LIMIT.as_secs(), end_of_log());
        }
        std::thread::sleep(POLL * 4);
    }
}

/// Stops connector and task, and waits until they have: only a stopped one forgets its position.
pub fn stop(stack: &Stack, interrupt: &Interrupt) -> Result<()> {
    change(http_client().put(url(stack, "/stop")).send_empty(), "stopping the connector")?;
    let began = Instant::now();
    loop {
        interrupt.check()?;
        match status(stack)? {
            Some(status) if status.connector.state == "STOPPED" && status.tasks.is_empty() => return Ok(()),
            status if began.elapsed() > START_LIMIT => {
                let state = status.map_or_else(|| "not registered".to_owned(), |status| status.to_string());
                bail!("{NAME} does not stop after {} s: {state}", START_LIMIT.as_secs());
            }
            _ => std::thread::sleep(POLL),
        }
    }
}

/// A stopped connector begins at the binlog's end of then, when it is resumed.
pub fn forget_position(stack: &Stack) -> Result<()> {
    change(http_client().delete(url(stack, "/offsets")).call(), "forgetting the connector's position")
}

fn resume(stack: &Stack) -> Result<()> {
    change(http_client().put(url(stack, "/resume")).send_empty(), "resuming the connector")
}

fn change(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>, what: &'static str) -> Result<()> {
    let mut answer = answer.context(what)?;
    ensure!(answer.status().is_success(), "{what}: {} {}", answer.status(), answer.body_mut().read_to_string()?);
    Ok(())
}

/// `None` when Connect doesn't know the connector.
pub fn status(stack: &Stack) -> Result<Option<Status>> {
    let mut response = http_client().get(url(stack, "/status")).call().context("asking Connect")?;
    match response.status().as_u16() {
        200 => {
            let body = response.body_mut().read_to_string()?;
            serde_json::from_str(&body).map(Some).with_context(|| format!("Connect answered {body}"))
        }
        // 409: the workers are just being assigned.
        404 | 409 => Ok(None),
        status => bail!("Connect answered {status} to a question for the connector's status"),
    }
}

/// `false` when Connect can't take it yet.
fn register(stack: &Stack, wanted: &Value, report: &Report) -> Result<bool> {
    let client = http_client();
    let mut current = client.get(url(stack, "/config")).call().context("asking Connect")?;
    if current.status() == 200 {
        let current: Value = serde_json::from_str(&current.body_mut().read_to_string()?)?;
        if current == *wanted {
            return Ok(true);
        }
    }
    report.line(STEP, format_args!("registering {NAME}"));
    // Connect validates first, which opens a connection to MySQL.
    let mut response = client
        .put(url(stack, "/config"))
        .config()
        .timeout_global(Some(START_LIMIT))
        .build()
        .header("content-type", "application/json")
        .send(&serde_json::to_vec(wanted)?)
        .context("registering the connector")?;
    match response.status().as_u16() {
        200 | 201 => Ok(true),
        409 => Ok(false),
        status => bail!("Connect refused {NAME} with {status}: {}", response.body_mut().read_to_string()?),
    }
}

fn restart_failed(stack: &Stack) -> Result<()> {
    let url = url(stack, "/restart?includeTasks=true&onlyFailed=true");
    http_client().post(url).send_empty().context("restarting the connector")?;
    Ok(())
}

fn url(stack: &Stack, path: &str) -> String {
    format!("http://127.0.0.1:{}/connectors/{NAME}{path}", stack.ports.connect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Status {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_connector_without_a_running_task_does_not_run() {
        let text = r#"{"name":"x","connector":{"state":"RUNNING","worker_id":"w"},"tasks":[],"type":"source"}"#;
        assert!(!status(text).is_running());
    }

    #[test]
    fn a_failed_task_shows_the_first_line_of_its_trace() {
        let text = r#"{"connector":{"state":"RUNNING"},"tasks":[{"id":0,"state":"FAILED","trace":"Oh\n at x"}]}"#;
        assert_eq!(status(text).to_string(), "connector RUNNING, task 0 FAILED (Oh)");
        assert!(status(text).failure().is_some());
    }
}
