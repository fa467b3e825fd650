//! An HTTP client that shows what is on the wire: one request, its answer chunk by chunk.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::gateway::DEADLINE;

pub struct Request {
    method: &'static str,
    path: String,
    version: &'static str,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    pub fn new(method: &'static str, path: &str) -> Self {
        Self { method, path: path.to_owned(), version: "1.1", headers: Vec::new(), body: String::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub fn http_1_0(mut self) -> Self {
        self.version = "1.0";
        self
    }

    /// Sends it on a connection of its own, and reads the head of the answer.
    pub async fn send(self, address: SocketAddr) -> Answer {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let Self { method, path, version, headers, body } = self;
        let mut text = format!("{method} {path} HTTP/{version}\r\nHost: {address}\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if method == "POST" {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(&body);
        stream.write_all(text.as_bytes()).await.unwrap();
        Answer::read(BufReader::new(stream)).await
    }
}

pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
}

impl Answer {
    async fn read(mut stream: BufReader<TcpStream>) -> Self {
        let status = line(&mut stream).await;
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = line(&mut stream).await;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Self { status, headers, stream }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Without its spaces, as the protocol's tests compare it.
    pub fn content_type(&self) -> Option<String> {
        self.header("content-type").map(|value| value.replace(' ', ""))
    }

    /// The next chunk; none at the end.
    pub async fn chunk(&mut self) -> Option<String> {
        assert_eq!(self.header("transfer-encoding"), Some("chunked"));
        let read = async {
            let size = usize::from_str_radix(&line(&mut self.stream).await, 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk).await.unwrap();
            chunk.truncate(size);
            (size > 0).then(|| String::from_utf8(chunk).unwrap())
        };
        timeout(DEADLINE, read).await.expect("no chunk in time")
    }

    /// All of it.
    pub async fn body(mut self) -> String {
        let mut body = String::new();
        if let Some(length) = self.header("content-length") {
            let mut bytes = vec![0; length.parse().unwrap()];
            timeout(DEADLINE, self.stream.read_exact(&mut bytes)).await.expect("no body in time").unwrap();
            body = String::from_utf8(bytes).unwrap();
        } else if self.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await {
                body.push_str(&chunk);
            }
        } else if !matches!(self.status, 204 | 304) {
            timeout(DEADLINE, self.stream.read_to_string(&mut body)).await.expect("no end in time").unwrap();
        }
        body
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    timeout(DEADLINE, stream.read_line(&mut line)).await.expect("no line in time").unwrap();
    line.trim_end().to_owned()
}
