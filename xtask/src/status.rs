//! `status`: each process with its port, memory and health, and the connector with its task.

use crate::connector;
use crate::layout::Layout;
use crate::stack::{ProcessName, Stack};
use crate::state::State;
use anyhow::Result;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Serialize)]
struct Status {
    running: bool,
    port_offset: Option<u16>,
    processes: Vec<Process>,
    connector: Option<Connector>,
}

#[derive(Debug, Serialize)]
struct Process {
    name: ProcessName,
    /// `running`, `ended`, or `not started`.
    state: &'static str,
    pid: Option<u32>,
    ports: Vec<u16>,
    memory_bytes: Option<u64>,
    uptime_seconds: Option<u64>,
    ready: bool,
    /// Why it is not ready.
    missing: Option<String>,
    log: PathBuf,
}

#[derive(Debug, Serialize)]
struct Connector {
    running: bool,
    status: Option<connector::Status>,
    error: Option<String>,
}

/// Exits with 1 when something that belongs to a running stack is not healthy.
pub fn run(layout: &Layout, json: bool) -> Result<ExitCode> {
    let status = read(layout)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(layout, &status);
    }
    let healthy = status.processes.iter().all(|process| process.ready)
        && status.connector.as_ref().is_none_or(|connector| connector.running);
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(layout: &Layout) -> Result<Status> {
    let Some(state) = State::load(layout)? else {
        return Ok(Status { running: false, port_offset: None, processes: Vec::new(), connector: None });
    };
    let stack = Stack::new(layout.clone(), state.settings.clone())?;
    let names = stack.processes();
    let processes = std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| process(&stack, &state, *name))).collect();
        threads.into_iter().map(|thread| thread.join().expect("reading a status does not panic")).collect()
    });
    Ok(Status {
        running: true,
        port_offset: Some(state.settings.port_offset),
        processes,
        connector: Some(connector(&stack)),
    })
}

fn process(stack: &Stack, state: &State, name: ProcessName) -> Process {
    let recorded = state.find(name);
    let alive = recorded.map(|process| &process.identity).filter(|identity| identity.is_alive());
    let health = alive.map(|_| stack.readiness_of(name).check());
    Process {
        name,
        state: match (recorded, alive) {
            (_, Some(_)) => "running",
            (Some(_), None) => "ended",
            (None, None) => "not started",
        },
        pid: alive.map(|identity| identity.pid),
        ports: stack.ports_of(name),
        memory_bytes: alive.and_then(crate::procfs::Identity::resident_bytes),
        uptime_seconds: alive.and_then(crate::procfs::Identity::uptime).map(|uptime| uptime.as_secs()),
        ready: matches!(health, Some(Ok(()))),
        missing: health.and_then(Result::err),
        log: stack.layout.log(&name.to_string()),
    }
}

fn connector(stack: &Stack) -> Connector {
    match connector::status(stack) {
        Ok(Some(status)) => Connector { running: status.is_running(), status: Some(status), error: None },
        Ok(None) => Connector { running: false, status: None, error: Some("not registered".to_owned()) },
        Err(error) => Connector { running: false, status: None, error: Some(format!("{error:#}")) },
    }
}

fn print(layout: &Layout, status: &Status) {
    if !status.running {
        println!("the {} stack is down; `{}` starts it", layout.stack().folder(), layout.command("up"));
        return;
    }
    println!("{:<18} {:>8} {:<12} {:<14} {:>9} {:>10}  HEALTH", "NAME", "PID", "STATE", "PORTS", "MEMORY", "UPTIME");
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let mut memory = 0;
    for process in &status.processes {
        memory += process.memory_bytes.unwrap_or_default();
        let ports: Vec<_> = process.ports.iter().map(u16::to_string).collect();
        println!(
            "{:<18} {:>8} {:<12} {:<14} {:>9} {:>10}  {}",
            process.name,
            or_dash(process.pid.map(|pid| pid.to_string())),
            process.state,
            ports.join(" "),
            or_dash(process.memory_bytes.map(mebibytes)),
            or_dash(process.uptime_seconds.map(uptime)),
            if process.ready { "ready" } else { process.missing.as_deref().unwrap_or("-") },
        );
    }
    println!("{:<18} {:>8} {:<12} {:<14} {:>9}", "", "", "", "", mebibytes(memory));
    if let Some(connector) = &status.connector {
        match (&connector.status, &connector.error) {
            (Some(status), _) => println!("\n{}: {status}", connector::NAME),
            (None, error) => println!("\n{}: {}", connector::NAME, error.as_deref().unwrap_or("unknown")),
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

fn uptime(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
