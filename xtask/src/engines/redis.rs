//! Redis: carries latency, not truth, so nothing is written to disk; never evicts, because a lost interest set
//! is a lost message's delay.

use crate::packages;
use crate::stack::{CommandLine, Stack};
use anyhow::Result;
use std::fs;

const MAX_MEMORY: &str = "1gb";

pub fn prepare(stack: &Stack) -> Result<CommandLine> {
    let layout = &stack.layout;
    let data = layout.data().join("redis");
    fs::create_dir_all(&data)?;
    let mut argv = packages::redis_server(layout)?.argv;
    for (key, value) in [
        ("port", stack.ports.redis().to_string()),
        ("bind", "127.0.0.1".to_owned()),
        ("dir", data.display().to_string()),
        ("maxmemory", MAX_MEMORY.to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("save", String::new()),
        ("appendonly", "no".to_owned()),
        ("daemonize", "no".to_owned()),
    ] {
        argv.extend([format!("--{key}"), value]);
    }
    Ok(CommandLine { argv, env: Vec::new() })
}
