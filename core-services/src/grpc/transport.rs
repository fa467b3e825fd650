//! What is refused before a call is ours: by the decoder, or because there is no such method. Those get the stable code
//! that every failure has, too.

use axum::{extract::Request, http::header::CONTENT_TYPE, middleware::Next, response::Response};
use proto::{Code, rpc::CODE_METADATA};
use tonic::Status;

use crate::error::Refusal;

/// The status of a message that could not be read, in our words; others as they are.
pub fn refused(status: &Status) -> Status {
    match status.code() {
        // What tonic calls a message over the limit, and one that is no protobuf of its type.
        tonic::Code::OutOfRange => {
            Refusal::new(Code::BodyTooLarge, "the message is larger than server.max_body").into()
        }
        tonic::Code::Internal => {
            Refusal::new(Code::InvalidBody, format!("the message can't be decoded: {}", status.message())).into()
        }
        _ => status.clone(),
    }
}

/// UNIMPLEMENTED, with the code `not_found`.
pub fn no_method(path: &str) -> Status {
    let mut status: Status = Refusal::new(Code::NotFound, format!("there is no method {path}")).into();
    let metadata = std::mem::take(status.metadata_mut());
    status = Status::unimplemented(status.message());
    *status.metadata_mut() = metadata;
    status
}

/// Whether the request is a gRPC call, by its content type.
pub fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("application/grpc"))
}

/// Gives failures without a code, which are none of ours, their code.
pub async fn with_code(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok && status.metadata().get(CODE_METADATA).is_none() => {
            match status.code() {
                tonic::Code::Unimplemented => no_method(&path).into_http(),
                _ => refused(&status).into_http(),
            }
        }
        _ => response,
    }
}
