//! Which Debian mirror this machine uses: read from its own apt sources, in the one-line and the deb822 format
//! (sources.list(5)), so that no mirror is named by this repository.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// One archive: a `deb` line, or one combination of a deb822 stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
    components: Vec<String>,
}

/// Where this machine gets Debian itself from (not its security updates, not other vendors' packages).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debian {
    pub mirror: String,
    /// The release that the machine is.
    pub suite: String,
}

/// Reads the machine's apt sources.
///
/// # Errors
/// No such source is configured.
pub fn debian() -> Result<Debian> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = codename(&release).unwrap_or_default();
    let apt = Path::new("/etc/apt");
    let mut files = vec![apt.join("sources.list")];
    let parts = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten();
    let mut parts: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    parts.sort();
    files.extend(parts);
    let sources: Vec<Source> =
        files.iter().filter_map(|file| Some(parse(file, &fs::read_to_string(file).ok()?))).flatten().collect();
    choose(&sources, codename).context(
        "the apt sources of this machine name no Debian mirror (main, http or https). Add one to /etc/apt/sources.list.d, \
         or install redis-server and mysqld 8.0 or newer so that both are on the PATH",
    )
}

fn codename(os_release: &str) -> Option<&str> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"'))
}

fn choose(sources: &[Source], codename: &str) -> Option<Debian> {
    let is_debian = |suite: &str| suite == codename || matches!(suite, "stable" | "testing" | "unstable" | "sid");
    let usable = |source: &&Source| {
        is_debian(&source.suite)
            && source.components.iter().any(|component| component == "main")
            && (source.uri.starts_with("http://") || source.uri.starts_with("https://"))
            // Other vendors use the codename as a suite too; a Debian archive is a folder of that name.
            && source.uri.trim_end_matches('/').rsplit('/').any(|part| part == "debian")
    };
    let source = sources.iter().find(usable)?;
    Some(Debian { mirror: source.uri.trim_end_matches('/').to_owned(), suite: source.suite.clone() })
}

fn parse(file: &Path, text: &str) -> Vec<Source> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("sources") => text.split("\n\n").flat_map(parse_stanza).collect(),
        Some("list") => text.lines().filter_map(parse_line).collect(),
        _ => Vec::new(),
    }
}

/// `deb [options] uri suite component…`
fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source { uri: words.next()?, suite: words.next()?, components: words.collect() })
}

/// `Key: values` with continuation lines that begin with a space; every URI with every suite.
fn parse_stanza(stanza: &str) -> Vec<Source> {
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    for line in stanza.lines().filter(|line| !line.starts_with('#')) {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if line.starts_with([' ', '\t']) {
            if let Some((_, values)) = fields.last_mut() {
                values.extend(words(line));
            }
        } else if let Some((key, values)) = line.split_once(':') {
            fields.push((key.to_ascii_lowercase(), words(values)));
        }
    }
    let field = |key: &str| fields.iter().find(|(name, _)| name == key).map_or(&[][..], |(_, values)| values);
    let disabled = field("enabled").first().is_some_and(|value| value == "no");
    if disabled || !field("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let combine = |uri: &String| {
        let one = |suite: &String| Source {
            uri: uri.clone(),
            suite: suite.clone(),
            components: field("components").to_vec(),
        };
        field("suites").iter().map(one).collect::<Vec<_>>()
    };
    field("uris").iter().flat_map(combine).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(file: &str, text: &str) -> Option<String> {
        Some(choose(&parse(Path::new(file), text), "bookworm")?.mirror)
    }

    #[test]
    fn a_deb822_file_gives_its_mirror() {
        let text = "# a comment\nTypes: deb\n# another\nURIs: http://mirror.example/debian\nSuites: bookworm\n bookworm-updates\n\
                    Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                    Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(mirror("debian.sources", text).unwrap(), "http://mirror.example/debian");
    }

    #[test]
    fn a_list_file_gives_its_mirror_with_or_without_options() {
        let text = "# deb http://old.example/debian bookworm main\ndeb-src http://src.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/x.gpg] https://mirror.example/debian/ bookworm main contrib # here\n";
        assert_eq!(mirror("sources.list", text).unwrap(), "https://mirror.example/debian");
        assert_eq!(mirror("a.list", "deb http://m.example/debian stable main").unwrap(), "http://m.example/debian");
    }

    #[test]
    fn the_machines_release_is_the_suite_of_that_source() {
        let text = "deb http://m.example/debian bookworm-updates main\ndeb http://m.example/debian bookworm main\n";
        assert_eq!(choose(&parse(Path::new("a.list"), text), "bookworm").unwrap().suite, "bookworm");
    }

    #[test]
    fn other_vendors_security_and_disabled_sources_are_passed_over() {
        assert_eq!(mirror("a.list", "deb https://vendor.example/apt bookworm main"), None);
        assert_eq!(mirror("a.list", "deb http://m.example/debian-security bookworm-security main"), None);
        assert_eq!(mirror("a.list", "deb file:/srv/debian bookworm main"), None);
        let disabled = "Enabled: no\nTypes: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: main\n";
        assert_eq!(mirror("a.sources", disabled), None);
    }

    #[test]
    fn the_codename_is_read_with_or_without_quotes() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=trixie\n"), Some("trixie"));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"\n"), Some("trixie"));
    }
}
