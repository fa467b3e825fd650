//! Failures as `application/problem+json` (RFC 9457) with the stable `code`, and the id of each request.

use axum::{
    extract::Request,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use proto::Code;
use serde_json::json;
use uuid::Uuid;

use crate::{
    error::{Error, Refusal},
    grpc::transport,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID: usize = 128;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.into_refusal().into_response()
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self.code {
            Code::Unauthenticated | Code::TokenExpired => StatusCode::UNAUTHORIZED,
            Code::Forbidden | Code::NotAMember | Code::SpoofedSender => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Conflict => StatusCode::CONFLICT,
            Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::RateLimited | Code::TooManyConnections | Code::TooManySubscriptions => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable | Code::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn into_response_with(self, status: StatusCode) -> Response {
        let mut problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "code": self.code.as_str(),
            "detail": self.message,
        });
        if self.retry_after_ms > 0 {
            problem["retry_after_ms"] = self.retry_after_ms.into();
        }
        let mut response = (status, problem.to_string()).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.retry_after_ms > 0 {
            // Whole seconds, rounded up (RFC 9110 section 10.2.3).
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(self.retry_after_ms.div_ceil(1000)));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        self.into_response_with(status)
    }
}

/// No such path; to a gRPC call, no such service.
pub async fn no_route(request: Request) -> Response {
    if transport::is_grpc(&request) {
        return transport::no_method(request.uri().path()).into_http();
    }
    nothing_at(&request).into_response()
}

pub async fn no_method(request: Request) -> Response {
    nothing_at(&request).into_response_with(StatusCode::METHOD_NOT_ALLOWED)
}

fn nothing_at(request: &Request) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no {} {}", request.method(), request.uri().path()))
}

/// Every answer carries the request's `X-Request-Id`, or a new one.
pub async fn request_id(request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).filter(|id| id.len() <= MAX_REQUEST_ID).cloned();
    let id = given.or_else(|| HeaderValue::from_str(&Uuid::now_v7().to_string()).ok());
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
