//! `endpoints.json`: where the running stack's parts are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

/// The environment variable with the path of the file.
pub const VARIABLE: &str = "SWITCHBOARD_ENDPOINTS";

/// The addresses of one stack, as `cargo xtask` writes them.
#[derive(Clone, Debug, Deserialize)]
pub struct Endpoints {
    pub core: Vec<String>,
    pub gateways: Vec<String>,
    pub workers: Vec<String>,
    pub mysql: String,
    pub redis: String,
    pub kafka: String,
    pub connect: String,
    pub processes: Vec<Process>,
    /// `debug` or `release`.
    #[serde(default)]
    pub build: String,
    /// What `up --set` has set, as `<service>.<section>.<key>=<value>`.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// The folder of the file: the stack's secrets lie there, and what these tools remember between runs.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// A process of the stack.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    pub name: String,
    pub pid: u32,
    pub log: PathBuf,
}

impl Endpoints {
    /// Reads `file`, else the file that the environment names.
    ///
    /// # Errors
    /// Neither is given, the file can't be read, or no core or gateway runs.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let file = match (file, std::env::var_os(VARIABLE)) {
            (Some(file), _) => file.to_owned(),
            (None, Some(file)) => PathBuf::from(file),
            (None, None) => bail!(
                "no running stack is named: start one with `cargo xtask up` and pass --endpoints \
                 .switchboard/dev/endpoints.json (or set {VARIABLE}); for the tests, use `cargo xtask test`"
            ),
        };
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "reading {}: is the stack up? `cargo xtask up` starts one, `cargo xtask test` runs the tests on one",
                file.display()
            )
        })?;
        let mut endpoints: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not what was expected", file.display()))?;
        ensure!(
            !endpoints.core.is_empty() && !endpoints.gateways.is_empty(),
            "{} names no running core or gateway: `cargo xtask up` starts them",
            file.display()
        );
        endpoints.folder = file.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(endpoints)
    }

    /// The process of that name, e.g. `socket-gateway-3`.
    pub fn process(&self, name: &str) -> Result<&Process> {
        self.processes.iter().find(|process| process.name == name).with_context(|| format!("no process {name} runs"))
    }

    /// The listeners with `/hops` of the cores.
    pub fn core_admin(&self) -> Result<Vec<String>> {
        self.core.iter().map(|url| admin_of(url)).collect()
    }

    /// The listeners with `/hops` of the gateways.
    pub fn gateway_admin(&self) -> Result<Vec<String>> {
        self.gateways.iter().map(|url| admin_of(url)).collect()
    }
}

/// Core's and a gateway's admin listener is 1000 ports above the public one.
fn admin_of(url: &str) -> Result<String> {
    let (host, port) = url.rsplit_once(':').with_context(|| format!("{url} has no port"))?;
    let port: u16 = port.parse().with_context(|| format!("{url} has no port"))?;
    Ok(format!("{host}:{}", port + 1000))
}

/// Where a gateway at `url` takes WebSockets.
pub fn websocket(url: &str) -> String {
    format!("{}/ws", url.replacen("http", "ws", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_derived_from_the_public_ones() {
        assert_eq!(admin_of("http://127.0.0.1:8182").unwrap(), "http://127.0.0.1:9182");
        assert_eq!(websocket("http://127.0.0.1:8082"), "ws://127.0.0.1:8082/ws");
    }

    #[test]
    fn a_missing_file_says_how_to_start_a_stack() {
        let error = Endpoints::load(Some(Path::new("/nowhere/endpoints.json"))).unwrap_err();
        assert!(error.to_string().contains("cargo xtask up"), "{error}");
    }
}
