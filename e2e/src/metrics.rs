//! What a service's admin listener says of it at `/metrics`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// For a whole page.
const LIMIT: Duration = Duration::from_secs(2);

/// One look at all of them.
pub struct Metrics(String);

impl Metrics {
    /// Of the admin listener at `base`.
    pub async fn of(base: &str) -> Result<Self> {
        let authority = base.trim_start_matches("http://");
        let page = async {
            let mut socket = TcpStream::connect(authority).await?;
            let request = format!("GET /metrics HTTP/1.0\r\nHost: {authority}\r\n\r\n");
            socket.write_all(request.as_bytes()).await?;
            let mut page = String::new();
            socket.read_to_string(&mut page).await?;
            std::io::Result::Ok(page)
        };
        let page = timeout(LIMIT, page).await.map_err(std::io::Error::from).flatten();
        Ok(Self(page.with_context(|| format!("reading the metrics of {authority}"))?))
    }

    /// The one without labels that has this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }
}
