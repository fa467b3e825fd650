//! Cores as tests need them.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use axum::{Router, routing::post};
use chassis::{Readiness, Secret, service_token::ServiceToken};
use proto::rpc::v1::{
    AckOffset, AckOffsetResult, CreateMessageRequest, CreateMessageResponse, CreateMessageResult,
    create_message_result,
    message_service_server::{MessageService, MessageServiceServer},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers everything with its number as `message_id`, and refuses bodies "refuse". Can be stopped as a process is: its
/// kernel goes on to accept connections and bytes, and nobody answers.
pub struct Core {
    pub url: String,
    stopped: watch::Sender<bool>,
}

impl Core {
    pub async fn new(number: i64) -> Self {
        let (inner, serving) = listen().await;
        let server = tonic::transport::Server::builder().add_service(MessageServiceServer::new(Numbered(number)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(serving)));
        let (address, listener) = listen().await;
        let (stopped, receiver) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (client_reads, client_writes) = client.into_split();
                let (core_reads, core_writes) = TcpStream::connect(inner).await.unwrap().into_split();
                tokio::spawn(pass_on(client_reads, core_writes, receiver.clone()));
                tokio::spawn(pass_on(core_reads, client_writes, receiver.clone()));
            }
        });
        Self { url: format!("http://{address}"), stopped }
    }

    pub fn stop(&self) {
        self.stopped.send_replace(true);
    }

    pub fn go_on(&self) {
        self.stopped.send_replace(false);
    }
}

async fn listen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut stopped: watch::Receiver<bool>) {
    let mut bytes = [0; 1 << 12];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if stopped.wait_for(|stopped| !stopped).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// The URL of one that ends every connection without a word.
pub async fn broken() -> String {
    let (address, listener) = listen().await;
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    format!("http://{address}")
}

struct Numbered(i64);

#[tonic::async_trait]
impl MessageService for Numbered {
    type StreamCreateMessagesStream = Answers<CreateMessageResult>;
    type StreamAckOffsetsStream = Answers<AckOffsetResult>;

    async fn create_message(
        &self,
        request: Request<CreateMessageRequest>,
    ) -> Result<Response<CreateMessageResponse>, Status> {
        match request.into_inner().body.as_str() {
            "refuse" => Err(Status::unavailable("the database is away")),
            _ => Ok(Response::new(CreateMessageResponse { message_id: self.0, ..Default::default() })),
        }
    }

    async fn stream_create_messages(
        &self,
        requests: Request<Streaming<CreateMessageRequest>>,
    ) -> Result<Response<Self::StreamCreateMessagesStream>, Status> {
        let number = self.0;
        let answers = requests.into_inner().map(move |request| {
            let CreateMessageRequest { request_no, client_message_id, .. } = request?;
            let created = CreateMessageResponse { message_id: number, ..Default::default() };
            let result = Some(create_message_result::Result::Created(created));
            Ok(CreateMessageResult { client_message_id, result, request_no })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn stream_ack_offsets(
        &self,
        _: Request<Streaming<AckOffset>>,
    ) -> Result<Response<Self::StreamAckOffsetsStream>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }
}

/// A token, as soon as there is one.
pub async fn token() -> Arc<ServiceToken> {
    let (address, listener) = listen().await;
    let answer = || async { r#"{"access_token": "token", "expires_in": 3600}"# };
    tokio::spawn(axum::serve(listener, Router::new().route("/oauth2/token", post(answer))).into_future());
    let token = Arc::new(ServiceToken::new(vec![format!("http://{address}")], "gateway", Secret::new("secret")));
    let dependency = Readiness::default().dependency("token");
    tokio::spawn(Arc::clone(&token).run(CancellationToken::new(), dependency));
    while token.bearer().is_none() {
        tokio::task::yield_now().await;
    }
    token
}
