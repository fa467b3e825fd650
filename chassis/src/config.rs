//! Configuration: commented defaults, overlaid by a YAML file, overlaid by the environment; then parsed whole.
//!
//! Unknown keys are refused by name; durations and sizes carry their unit (`"30s"`, `"1MiB"`).

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Variables that override a key start with this; sections and keys are separated by two underscores.
pub const ENV_PREFIX: &str = "SWITCHBOARD__";

/// What a configuration has beyond its own keys.
pub trait Validate {
    /// Checks relations between keys; the message names the keys by their path.
    fn validate(&self) -> Result<(), String>;
    fn log(&self) -> &Log;
    fn shutdown(&self) -> &Shutdown;
}

/// Section `log`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing` filter, e.g. `info,socket_gateway::session=debug`.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// A section with an address to listen on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub listen: SocketAddr,
}

/// Section `shutdown`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// From the first signal to the hard stop.
    #[serde(with = "duration")]
    pub grace: Duration,
}

/// Why a configuration is refused; the message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{origin} is no YAML mapping: {message}")]
    NotYaml { origin: String, message: String },
    #[error("{path}: {message}")]
    BadKey { path: String, message: String },
    #[error("the environment variable {0} names no key: expected {ENV_PREFIX}<SECTION>__<KEY>")]
    BadVariable(String),
    #[error("{0}")]
    Relation(String),
}

/// Loads `defaults`, then `file`, then the variables of `env` that start with [`ENV_PREFIX`].
pub fn load<C: DeserializeOwned + Validate>(
    defaults: &str,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<C, ConfigError> {
    let mut merged = parse(defaults, "the built-in defaults")?;
    if let Some(path) = file {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: name.clone(), source })?;
        overlay(&mut merged, parse(&text, &name)?);
    }
    for (name, value) in env {
        if let Some(path) = name.strip_prefix(ENV_PREFIX) {
            set(&mut merged, path, &value).ok_or(ConfigError::BadVariable(name))?;
        }
    }
    let config: C = serde_path_to_error::deserialize(Value::Object(merged)).map_err(|error| ConfigError::BadKey {
        path: error.path().to_string(),
        message: error.into_inner().to_string(),
    })?;
    config.validate().map_err(ConfigError::Relation)?;
    Ok(config)
}

fn parse(yaml: &str, origin: &str) -> Result<Map<String, Value>, ConfigError> {
    let error = |message: String| ConfigError::NotYaml { origin: origin.to_owned(), message };
    match serde_saphyr::from_str::<Option<Value>>(yaml).map_err(|e| error(e.to_string()))? {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(error("expected sections with keys".to_owned())),
    }
}

/// Mappings are merged key by key; anything else replaces what was there.
fn overlay(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => overlay(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Sets `SECTION__KEY`; the value is YAML, so that numbers, booleans and lists can be given, else text.
fn set(map: &mut Map<String, Value>, path: &str, value: &str) -> Option<()> {
    let mut parts = path.split("__").map(str::to_lowercase).peekable();
    let mut map = map;
    loop {
        let part = parts.next().filter(|part| !part.is_empty())?;
        if parts.peek().is_none() {
            let text = || Value::String(value.to_owned());
            // A default that is text stays text: "007" is no number there.
            let parsed = match map.get(&part) {
                Some(Value::String(_)) => text(),
                _ => serde_saphyr::from_str::<Value>(value).unwrap_or_else(|_| text()),
            };
            map.insert(part, parsed);
            return Some(());
        }
        map = map.entry(part).or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    }
}

/// `#[serde(with = "chassis::config::duration")]`: `"250ms"`, `"30s"`, `"1h 30m"`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|error| D::Error::custom(format_args!("{text:?} is no duration like \"30s\": {error}")))
    }
}

/// `#[serde(with = "chassis::config::bytes")]`: `"64KiB"`, `"1MiB"`.
pub mod bytes {
    use serde::{Deserialize, Deserializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size: bytesize::ByteSize = text
            .parse()
            .map_err(|error| D::Error::custom(format_args!("{text:?} is no size like \"64KiB\": {error}")))?;
        usize::try_from(size.as_u64()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str =
        "log: { format: text, filter: info }\nshutdown: { grace: 30s }\nlimits: { body: 64KiB, names: [] }\n";

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        log: Log,
        shutdown: Shutdown,
        limits: Limits,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        #[serde(with = "bytes")]
        body: usize,
        names: Vec<String>,
    }

    impl Validate for Config {
        fn validate(&self) -> Result<(), String> {
            if self.limits.body == 0 { Err("limits.body must be above 0".into()) } else { Ok(()) }
        }

        fn log(&self) -> &Log {
            &self.log
        }

        fn shutdown(&self) -> &Shutdown {
            &self.shutdown
        }
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn load_env(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        load(DEFAULTS, None, env(pairs))
    }

    #[test]
    fn the_environment_overrides_the_defaults() {
        let config = load_env(&[
            ("SWITCHBOARD__SHUTDOWN__GRACE", "5s"),
            ("SWITCHBOARD__LIMITS__NAMES", "[a, b]"),
            ("SWITCHBOARD__LOG__FILTER", "1"),
            ("HOME", "/"),
        ])
        .unwrap();
        assert_eq!(config.shutdown.grace, Duration::from_secs(5));
        assert_eq!(config.limits.names, ["a", "b"]);
        assert_eq!(config.log.filter, "1");
        assert_eq!(config.limits.body, 65536);
    }

    #[test]
    fn a_wrong_key_or_unit_is_refused_by_its_path() {
        let unknown = load_env(&[("SWITCHBOARD__LIMITS__BODDY", "1KiB")]).unwrap_err().to_string();
        assert!(unknown.contains("limits") && unknown.contains("boddy"), "{unknown}");
        let unit = load_env(&[("SWITCHBOARD__LIMITS__BODY", "1 parsec")]).unwrap_err().to_string();
        assert!(unit.contains("limits.body") && unit.contains("parsec"), "{unit}");
        let relation = load_env(&[("SWITCHBOARD__LIMITS__BODY", "0B")]).unwrap_err().to_string();
        assert!(relation.contains("limits.body must be above 0"), "{relation}");
        assert!(matches!(load_env(&[("SWITCHBOARD__", "x")]), Err(ConfigError::BadVariable(_))));
    }
}
