//! MessageService.

use std::{pin::Pin, sync::Arc};

use proto::rpc::v1::{
    AckOffset, AckOffsetResult, CreateMessageRequest, CreateMessageResponse, CreateMessageResult,
    message_service_server::MessageService,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{caller, header, stream};
use crate::{app::App, message};

pub struct Messages(pub Arc<App>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MessageService for Messages {
    async fn create_message(
        &self,
        request: Request<CreateMessageRequest>,
    ) -> Result<Response<CreateMessageResponse>, Status> {
        let caller = caller(&self.0, &request).await?;
        let traceparent = header(request.metadata(), "traceparent").map(str::to_owned);
        let limits = &self.0.config.messages;
        let message = message::validate(&caller, request.into_inner(), limits, traceparent.as_deref())?;
        let committed = self.0.writers.commit(message).await?;
        Ok(Response::new(committed.into_response()))
    }

    type StreamCreateMessagesStream = Answers<CreateMessageResult>;

    async fn stream_create_messages(
        &self,
        request: Request<Streaming<CreateMessageRequest>>,
    ) -> Result<Response<Self::StreamCreateMessagesStream>, Status> {
        let caller = caller(&self.0, &request).await?;
        let answers = stream::create_messages(Arc::clone(&self.0), caller, request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    type StreamAckOffsetsStream = Answers<AckOffsetResult>;

    async fn stream_ack_offsets(
        &self,
        request: Request<Streaming<AckOffset>>,
    ) -> Result<Response<Self::StreamAckOffsetsStream>, Status> {
        let caller = caller(&self.0, &request).await?;
        let answers = stream::ack_offsets(Arc::clone(&self.0), caller, request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }
}
