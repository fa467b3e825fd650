//! Why a request is refused: a stable code and a text for people. The connection stays.

use std::borrow::Cow;

use proto::{
    Code,
    rpc::{CODE_METADATA, v1::Failure},
};
use tonic::Status;

/// A refusal; as JSON it is the body of a MESSAGE on `/user/queue/errors`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    pub code: Code,
    pub message: Cow<'static, str>,
    pub retry_after_ms: Option<u32>,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    #[must_use]
    pub fn retry_after_ms(mut self, ms: u32) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Core did not answer, or not in time.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// `{code, message, retry_after_ms?}`.
    pub fn to_json(&self) -> String {
        let mut body = serde_json::json!({ "code": self.code.as_str(), "message": self.message });
        if let Some(ms) = self.retry_after_ms {
            body["retry_after_ms"] = ms.into();
        }
        body.to_string()
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let code = failure.code.parse().unwrap_or(Code::Internal);
        let refusal = Self::new(code, failure.message);
        if failure.retry_after_ms > 0 { refusal.retry_after_ms(failure.retry_after_ms) } else { refusal }
    }
}

impl From<Status> for Refusal {
    /// The stable code that core sends along, else by the status. A status that says nothing of the request (the
    /// gateway's own token refused, a cancelled call) is `unavailable`: another try may go well.
    fn from(status: Status) -> Self {
        use tonic::Code as Grpc;
        let sent = status.metadata().get(CODE_METADATA).and_then(|code| code.to_str().ok()?.parse().ok());
        let code = match (sent, status.code()) {
            (Some(Code::Unauthenticated | Code::TokenExpired), _) => Code::Unavailable,
            (Some(code), _) => code,
            (None, Grpc::NotFound) => Code::NotFound,
            (None, Grpc::PermissionDenied) => Code::Forbidden,
            (None, Grpc::InvalidArgument) => Code::InvalidBody,
            (None, Grpc::Internal | Grpc::Unimplemented | Grpc::DataLoss) => Code::Internal,
            (None, _) => Code::Unavailable,
        };
        // What a server says of its own faults is for its log.
        match code {
            Code::Unavailable => Self::unavailable("the service behind the gateway did not answer; try again"),
            Code::Internal => Self::new(code, "the request failed inside the service"),
            _ => Self::new(code, status.message().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_the_stable_code_and_hides_inner_faults() {
        let mut status = Status::permission_denied("user 5 is no member of conversation 7");
        status.metadata_mut().insert(CODE_METADATA, "not_a_member".parse().unwrap());
        let refusal = Refusal::from(status);
        assert_eq!((refusal.code, refusal.message.contains("no member")), (Code::NotAMember, true));
        assert_eq!(Refusal::from(Status::deadline_exceeded("x")).code, Code::Unavailable);
        let inner = Refusal::from(Status::internal("SELECT … FROM messages"));
        assert!(!inner.message.contains("SELECT"));
    }

    #[test]
    fn the_body_names_code_message_and_hint() {
        let body = Refusal::new(Code::RateLimited, "too fast").retry_after_ms(5).to_json();
        assert_eq!(body, r#"{"code":"rate_limited","message":"too fast","retry_after_ms":5}"#);
    }
}
