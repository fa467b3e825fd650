//! Whether a process answers in its own protocol. An open port is not enough: MySQL and Kafka listen before they
//! serve.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// For one question and its answer.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Sends its handshake packet.
    Mysql { port: u16 },
    /// Answers PING.
    Redis { port: u16 },
    /// Answers ApiVersions without an error.
    Kafka { port: u16 },
    /// Answers GET with 200.
    Http { url: String },
}

impl Readiness {
    pub fn http(port: u16, path: &str) -> Self {
        Self::Http { url: format!("http://127.0.0.1:{port}{path}") }
    }

    /// # Errors
    /// What is missing, as one line.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Mysql { port } => mysql(*port).map_err(|error| error.to_string())?,
            Self::Redis { port } => redis(*port).map_err(|error| error.to_string())?,
            Self::Kafka { port } => kafka(*port).map_err(|error| error.to_string())?,
            Self::Http { url } => return http(url),
        }
        .then_some(())
        .ok_or_else(|| "it answers, but not as expected".to_owned())
    }
}

/// A client without TLS for services and Connect on loopback; answers with an error status are answers.
pub fn http_client() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build().into()
}

fn http(url: &str) -> Result<(), String> {
    let mut response = http_client().get(url).call().map_err(|error| error.to_string())?;
    if response.status().is_success() {
        return Ok(());
    }
    let body = response.body_mut().read_to_string().unwrap_or_default();
    Err(missing_dependencies(&body).unwrap_or_else(|| format!("{} {}", response.status(), first_line(&body))))
}

/// `{"ready":false,"missing":[{"dependency":"mysql","reason":"…"}]}` as `mysql: …`.
fn missing_dependencies(body: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct NotReady {
        missing: Vec<Missing>,
    }
    #[derive(serde::Deserialize)]
    struct Missing {
        dependency: String,
        reason: String,
    }
    let body: NotReady = serde_json::from_str(body).ok()?;
    let missing: Vec<_> = body.missing.iter().map(|one| format!("{}: {}", one.dependency, one.reason)).collect();
    Some(format!("not ready; {}", missing.join("; ")))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// A packet is three bytes of length, one of sequence, and the payload; a handshake starts with protocol
/// version 10, an error packet with 0xff.
fn mysql(port: u16) -> std::io::Result<bool> {
    let mut packet = [0; 5];
    connect(port)?.read_exact(&mut packet)?;
    Ok(packet[4] == 10)
}

fn redis(port: u16) -> std::io::Result<bool> {
    let mut stream = connect(port)?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(&answer == b"+PONG")
}

/// ApiVersions (key 18), version 0: length, key, version, correlation id, null client id. The answer is length,
/// correlation id, error code.
fn kafka(port: u16) -> std::io::Result<bool> {
    const CORRELATION: [u8; 4] = [0x5b, 0, 0, 1];
    let mut stream = connect(port)?;
    let mut request = vec![0, 0, 0, 10, 0, 18, 0, 0];
    request.extend(CORRELATION);
    request.extend([0xff, 0xff]);
    stream.write_all(&request)?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    Ok(answer[4..8] == CORRELATION && answer[8..10] == [0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_misses_is_said_in_one_line() {
        let body = r#"{"ready":false,"missing":[{"dependency":"mysql","reason":"connection refused"}]}"#;
        assert_eq!(missing_dependencies(body).unwrap(), "not ready; mysql: connection refused");
        assert_eq!(missing_dependencies("nonsense"), None);
    }
}
