//! A TCP proxy that can be cut: a dependency that goes away and comes back.

use std::{future::pending, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
};

use crate::harness::free_port;

pub struct Proxy {
    pub address: String,
    target: String,
    running: Option<JoinHandle<()>>,
    silence: Arc<Notify>,
}

impl Proxy {
    /// Takes a port and does not listen yet.
    pub fn new(target: &str) -> Self {
        Self {
            address: format!("127.0.0.1:{}", free_port()),
            target: target.to_owned(),
            running: None,
            silence: Arc::default(),
        }
    }

    /// Listens and forwards.
    pub async fn mend(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        let (target, silence) = (self.target.clone(), Arc::clone(&self.silence));
        self.running = Some(tokio::spawn(async move {
            // Aborted with this task: all connections end.
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, silence) = (target.clone(), Arc::clone(&silence));
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        tokio::select! {
                            // Either side may end it.
                            _ = copy_bidirectional(&mut near, &mut far) => {}
                            // It stays open.
                            () = silence.notified() => pending().await,
                        }
                    }
                });
            }
        }));
    }

    /// Nothing passes any more through the connections of now, and none of them ends; new ones are as they were.
    pub fn silence(&self) {
        self.silence.notify_waiters();
    }

    /// Ends all connections and refuses new ones.
    pub async fn cut(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // Gone when it has heard so.
            let _ = running.await;
        }
    }
}
