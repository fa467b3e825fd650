//! `endpoints.json`: where everything is, for scripts and tests. It is replaced whole at every change.
//!
//! `core`, `gateways`, `workers` and `processes` name what is alive; the engines' addresses stay the same for as
//! long as the stack is up.

use crate::overrides::Override;
use crate::secrets::{Secret, write_private};
use crate::stack::{Kind, ProcessName, Stack};
use crate::state::State;
use anyhow::Result;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Serialize)]
struct Endpoints {
    core: Vec<String>,
    gateways: Vec<String>,
    workers: Vec<String>,
    mysql: String,
    redis: String,
    kafka: String,
    connect: String,
    processes: Vec<Process>,
    /// `debug` or `release`.
    build: &'static str,
    /// What `up --set` has set.
    overrides: Vec<Override>,
}

#[derive(Debug, Serialize)]
struct Process {
    name: ProcessName,
    pid: u32,
    log: PathBuf,
}

/// Writes the file from what of `state` is alive now.
pub fn write(stack: &Stack, state: &State) -> Result<()> {
    let password = Secret::MysqlChat.get(&stack.layout)?;
    let alive = state.processes.iter().filter(|process| process.identity.is_alive());
    let processes = alive
        .map(|process| Process { name: process.name, pid: process.identity.pid, log: process.log.clone() })
        .collect();
    let endpoints = endpoints(stack, &password, processes);
    write_private(&stack.layout.endpoints_file(), &serde_json::to_vec_pretty(&endpoints)?)
}

fn endpoints(stack: &Stack, password: &str, processes: Vec<Process>) -> Endpoints {
    let ports = stack.ports;
    let of_kind = |kind| -> Vec<String> {
        let names = processes.iter().map(|process| process.name).filter(|name| name.kind == kind);
        names.map(|name| format!("http://127.0.0.1:{}", stack.ports_of(name)[0])).collect()
    };
    Endpoints {
        core: of_kind(Kind::Core),
        gateways: of_kind(Kind::Gateway),
        workers: of_kind(Kind::Worker),
        mysql: format!("mysql://chat:{password}@127.0.0.1:{}/chat", ports.mysql()),
        redis: format!("redis://127.0.0.1:{}", ports.redis()),
        kafka: format!("127.0.0.1:{}", ports.kafka()),
        connect: format!("http://127.0.0.1:{}", ports.connect()),
        processes,
        build: if stack.settings.release { "release" } else { "debug" },
        overrides: stack.settings.overrides.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, StackName};
    use crate::stack::Settings;

    #[test]
    fn the_file_has_the_shape_that_scripts_rely_on() {
        let settings = Settings {
            port_offset: 0,
            gateways: 2,
            workers: 1,
            cores: 1,
            release: false,
            engines_only: false,
            overrides: vec!["socket-gateway.hub.shards=1".parse().unwrap()],
            seeded_bugs: Vec::new(),
        };
        let stack = Stack::new(Layout::of_this_repository(StackName::Dev), settings).unwrap();
        let processes =
            [("core-services-1", 1), ("fanout-worker-1", 2), ("socket-gateway-1", 3), ("socket-gateway-2", 4)];
        let processes = processes.map(|(name, pid)| Process {
            name: name.parse().unwrap(),
            pid,
            log: format!("log/{name}.log").into(),
        });
        let written = serde_json::to_value(endpoints(&stack, "pw", processes.into())).unwrap();
        let golden = serde_json::json!({
            "core": ["http://127.0.0.1:8081"],
            "gateways": ["http://127.0.0.1:8082", "http://127.0.0.1:8182"],
            "workers": ["http://127.0.0.1:8083"],
            "mysql": "mysql://chat:pw@127.0.0.1:13306/chat",
            "redis": "redis://127.0.0.1:16379",
            "kafka": "127.0.0.1:19092",
            "connect": "http://127.0.0.1:18084",
            "processes": [
                {"name": "core-services-1", "pid": 1, "log": "log/core-services-1.log"},
                {"name": "fanout-worker-1", "pid": 2, "log": "log/fanout-worker-1.log"},
                {"name": "socket-gateway-1", "pid": 3, "log": "log/socket-gateway-1.log"},
                {"name": "socket-gateway-2", "pid": 4, "log": "log/socket-gateway-2.log"},
            ],
            "build": "debug",
            "overrides": ["socket-gateway.hub.shards=1"],
        });
        assert_eq!(written, golden);
    }
}
