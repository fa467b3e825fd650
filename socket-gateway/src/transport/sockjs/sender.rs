//! Requests that send: a body of JSON, in it strings of STOMP.

use axum::{
    body::{Body, Bytes, to_bytes},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use http::{HeaderMap, Request, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;

use super::{json, path::Transport, query};
use http_body_util::LengthLimitError;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No body, or one without the field.
    Empty,
    /// No array of strings, and what is wrong with it.
    Broken(String),
    TooLarge(usize),
    /// The client went away before the end of the body.
    CutOff,
}

/// Reads the STOMP that a request brings.
pub async fn read(request: Request<Incoming>, transport: Transport, max: usize) -> Result<BytesMut, Refused> {
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), max).await.map_err(|error| {
        let too_large = std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
        if too_large { Refused::TooLarge(max) } else { Refused::CutOff }
    })?;
    parse(&body, transport == Transport::JsonpSend && is_form(&head.headers))
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// In a form the JSON is the field `d`.
fn parse(body: &Bytes, form: bool) -> Result<BytesMut, Refused> {
    let json = if form { query::field(body, "d").unwrap_or_default() } else { (&body[..]).into() };
    if json.is_empty() {
        return Err(Refused::Empty);
    }
    let mut stomp = BytesMut::with_capacity(json.len());
    json::read(&json, json::Accept::Array, &mut stomp).map_err(|error| Refused::Broken(error.to_string()))?;
    Ok(stomp)
}

/// The answer when it is with the session.
pub fn taken(transport: Transport) -> Response {
    let content_type = [(CONTENT_TYPE, "text/plain; charset=UTF-8")];
    match transport {
        // Some old browsers can't have an empty answer here.
        Transport::JsonpSend => (content_type, "ok").into_response(),
        _ => (StatusCode::NO_CONTENT, content_type).into_response(),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Refused::Empty => (StatusCode::INTERNAL_SERVER_ERROR, "Payload expected.\n".to_owned()),
            Refused::Broken(why) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("Broken JSON encoding. Expected an array of strings: {why}\n"),
            ),
            Refused::TooLarge(max) => (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max} bytes\n")),
            Refused::CutOff => (StatusCode::BAD_REQUEST, "the body is not whole\n".to_owned()),
        };
        (status, text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &'static str, form: bool) -> Result<BytesMut, Refused> {
        parse(&Bytes::from_static(body.as_bytes()), form)
    }

    #[test]
    fn bodies_without_payload_and_broken_ones_are_told_apart() {
        for (body, form) in [("", false), ("", true), ("d=", true), ("p=p", true)] {
            assert_eq!(parsed(body, form), Err(Refused::Empty), "{body:?}");
        }
        for (body, form) in [("[\"x", false), ("d=%5B%22x", true), ("\"x\"", false), ("[1]", false)] {
            assert!(matches!(parsed(body, form), Err(Refused::Broken(_))), "{body:?}");
        }
        assert_eq!(parsed("[\"a\",\"b\"]", false).unwrap(), "ab");
        assert_eq!(parsed("d=%5B%22abc%22%5D", true).unwrap(), "abc");
        assert_eq!(parsed("[\"%61bc\"]", false).unwrap(), "%61bc");
    }
}
