//! A gateway of the test's own: the real process, on a port of its choice, with no core and no Redis to be found. What
//! SockJS does before CONNECT needs neither.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::http::{Answer, Request};

/// For anything that is waited for, on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Nothing listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// Ends with the test.
pub struct Gateway {
    pub address: SocketAddr,
    process: Child,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Keys of the section `sockjs` and others, as in `("SOCKJS__HEARTBEAT", "1s")`.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let id = uuid::Uuid::now_v7();
        let file = |name: &str| std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{id}.{name}"));
        let (secret, config) = (file("secret"), file("yaml"));
        std::fs::write(&secret, "of nobody").unwrap();
        let text = format!(
            "server: {{ listen: \"127.0.0.1:0\" }}\nadmin: {{ listen: \"127.0.0.1:0\" }}\n\
             core: {{ endpoints: [\"http://{NOWHERE}\"] }}\nredis: {{ url: \"redis://{NOWHERE}\" }}\n\
             auth: {{ client_secret_file: \"{}\" }}\n",
            secret.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_socket-gateway"));
        command.arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        for (key, value) in settings {
            command.env(format!("SWITCHBOARD__{key}"), value);
        }
        let mut process = command.spawn().unwrap();
        let (out, err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        let address = timeout(DEADLINE, async {
            let (mut out, mut err) = (BufReader::new(out).lines(), BufReader::new(err).lines());
            let address = loop {
                let line = tokio::select! {
                    Ok(Some(line)) = out.next_line() => line,
                    Ok(Some(line)) = err.next_line() => line,
                    else => panic!("the gateway ended"),
                };
                if let Some((_, rest)) = line.split_once("clients may connect") {
                    let digits = |c: char| c.is_ascii_digit() || c == '.' || c == ':';
                    let bound = rest.split("bound=").nth(1).unwrap_or_default();
                    let end = bound.find(|c| !digits(c)).unwrap_or(bound.len());
                    break bound[..end].parse().unwrap();
                }
            };
            // What it says further is read, or it would wait for a reader.
            tokio::spawn(async move { while let Ok(Some(_)) = out.next_line().await {} });
            tokio::spawn(async move { while let Ok(Some(_)) = err.next_line().await {} });
            address
        })
        .await
        .expect("the gateway did not start");
        Self { address, process }
    }

    /// SIGTERM: it drains.
    pub async fn terminate(&self) {
        let pid = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    }

    /// Waits for its end; says how it exits.
    pub async fn exit_code(&mut self) -> Option<i32> {
        timeout(DEADLINE, self.process.wait()).await.expect("the gateway does not end").unwrap().code()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Request::new("GET", path)).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(Request::new("POST", path).body(body)).await
    }

    pub async fn ask(&self, request: Request) -> Answer {
        timeout(DEADLINE, request.send(self.address)).await.expect("no answer in time")
    }

    /// The path of a new session.
    pub fn session(&self) -> String {
        format!("/ws/000/{}", uuid::Uuid::new_v4())
    }

    pub fn websocket(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }
}
