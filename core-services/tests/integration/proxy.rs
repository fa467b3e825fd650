//! A TCP proxy that can be cut: a dependency that goes away and comes back.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

pub struct Proxy {
    pub address: String,
    target: String,
    running: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Takes a port and does not listen yet.
    pub async fn new(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap().to_string(), target: target.to_owned(), running: None }
    }

    /// Listens and forwards.
    pub async fn mend(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        let target = self.target.clone();
        self.running = Some(tokio::spawn(async move {
            // Aborted with this task: all connections end.
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        // Either side may end it.
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        }));
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
