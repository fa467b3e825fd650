//! The configuration of the three services, and how they are started.

use crate::layout::Layout;
use crate::overrides::Override;
use crate::secrets::{Secret, make_private_folder, write_private};
use crate::stack::{CommandLine, Kind, ProcessName, Settings, Stack};
use anyhow::{Result, ensure};
use std::path::PathBuf;

/// Tells services that were built with bugs on purpose which of them are on; no other build reads it.
const SEEDED_BUGS: &str = "SWITCHBOARD_SEEDED_BUGS";
/// What core gives to a gateway's client credentials.
const GATEWAY_SCOPES: &str = r#"["messages:send_as", "connections:write", "conversations:read_any"]"#;

pub fn prepare(stack: &Stack, name: ProcessName) -> Result<CommandLine> {
    let layout = &stack.layout;
    let (binary, config) = match name.kind {
        Kind::Core => ("core-services", core(stack, name.copy)?),
        Kind::Gateway => ("socket-gateway", gateway(stack, name)?),
        _ => ("fanout-worker", worker(stack, name)),
    };
    let Settings { release, overrides, seeded_bugs, .. } = &stack.settings;
    let binary =
        if seeded_bugs.is_empty() { layout.binary(binary, *release) } else { layout.seeded_binary(binary, *release) };
    ensure!(binary.exists(), "{} is not built: run `{}`", binary.display(), layout.command("up"));
    let path = config_file(layout, name);
    write_private(&path, config.as_bytes())?;
    let argv = vec![binary.display().to_string(), "--config".to_owned(), path.display().to_string()];
    let overrides = overrides.iter().filter(|one| one.is_for(name)).map(Override::variable);
    let bugs = (!seeded_bugs.is_empty()).then(|| (SEEDED_BUGS.to_owned(), seeded_bugs.join(",")));
    Ok(CommandLine { argv, env: overrides.chain(bugs).collect() })
}

pub fn config_file(layout: &Layout, name: ProcessName) -> PathBuf {
    layout.run().join(format!("{name}.yaml"))
}

fn core(stack: &Stack, copy: u16) -> Result<String> {
    let (layout, ports) = (&stack.layout, stack.ports);
    let key_dir = layout.secrets().join("signing-keys");
    make_private_folder(&key_dir)?;
    // Both are made at first use, and core only reads them.
    Secret::MysqlChat.get(layout)?;
    Secret::SocketGateway.get(layout)?;
    Ok(format!(
        r#"server: {{ listen: "127.0.0.1:{listen}" }}
admin: {{ listen: "127.0.0.1:{admin}" }}
log: {{ format: text, filter: info }}
mysql:
  url: "mysql://chat@127.0.0.1:{mysql}/chat"
  password_file: "{password_file}"
redis: {redis}
kafka: {{ brokers: "127.0.0.1:{kafka}", partitions: 32, replication_factor: 1 }}
auth:
  issuer: "{issuer}"
  key_dir: "{key_dir}"
  service_clients:
    - client_id: socket-gateway
      secret_file: "{secret_file}"
      scopes: {GATEWAY_SCOPES}
"#,
        listen = ports.core(copy),
        admin = ports.core_admin(copy),
        mysql = ports.mysql(),
        password_file = Secret::MysqlChat.path(layout).display(),
        redis = redis(stack),
        kafka = ports.kafka(),
        issuer = issuer(stack),
        key_dir = key_dir.display(),
        secret_file = Secret::SocketGateway.path(layout).display(),
    ))
}

fn gateway(stack: &Stack, name: ProcessName) -> Result<String> {
    let (layout, ports) = (&stack.layout, stack.ports);
    Secret::SocketGateway.get(layout)?;
    let cores: Vec<_> =
        (1..=stack.settings.cores).map(|copy| format!("\"http://127.0.0.1:{}\"", ports.core(copy))).collect();
    Ok(format!(
        r#"server: {{ listen: "127.0.0.1:{listen}" }}
admin: {{ listen: "127.0.0.1:{admin}" }}
log: {{ format: text, filter: info }}
gateway: {{ id: {name} }}
core: {{ endpoints: [{cores}] }}
auth:
  issuer: "{issuer}"
  client_id: socket-gateway
  client_secret_file: "{secret_file}"
redis: {redis}
"#,
        listen = ports.gateway(name.copy),
        admin = ports.gateway_admin(name.copy),
        cores = cores.join(", "),
        issuer = issuer(stack),
        secret_file = Secret::SocketGateway.path(layout).display(),
        redis = redis(stack),
    ))
}

fn worker(stack: &Stack, name: ProcessName) -> String {
    format!(
        r#"admin: {{ listen: "127.0.0.1:{admin}" }}
log: {{ format: text, filter: info }}
kafka: {{ brokers: "127.0.0.1:{kafka}", group_id: fanout, instance_id: {name} }}
redis: {redis}
"#,
        admin = stack.ports.worker(name.copy),
        kafka = stack.ports.kafka(),
        redis = redis(stack),
    )
}

/// The same text for every process of a stack: it stands in the tokens.
fn issuer(stack: &Stack) -> String {
    format!("http://127.0.0.1:{}", stack.ports.core(1))
}

fn redis(stack: &Stack) -> String {
    format!(r#"{{ url: "redis://127.0.0.1:{}", key_prefix: "sb:" }}"#, stack.ports.redis())
}
