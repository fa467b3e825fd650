//! What handlers take from a request; each refuses with a problem that names what was wrong.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use proto::{Code, ConversationId, UserId};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    app::App,
    auth::tokens::Caller,
    error::{Error, Refusal, Result},
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        app.tokens.check_bearer(authorization).await
    }
}

/// A user's token; a service's is refused.
pub struct Me(pub UserId);

impl FromRequestParts<Arc<App>> for Me {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        Ok(Self(Caller::from_request_parts(parts, app).await?.user()?))
    }
}

/// The parts of the path, as texts.
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Segments<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        match Path::from_request_parts(parts, app).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(error) => Err(Refusal::new(Code::NotFound, error.to_string()).into()),
        }
    }
}

/// The conversation of the path.
pub struct Conversation(pub ConversationId);

impl FromRequestParts<Arc<App>> for Conversation {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Ids {
            id: String,
        }
        let Segments(ids) = Segments::<Ids>::from_request_parts(parts, app).await?;
        match ids.id.parse() {
            Ok(id) => Ok(Self(id)),
            Err(_) => Err(Refusal::new(Code::NotFound, format!("there is no conversation {:?}", ids.id)).into()),
        }
    }
}

/// A part of the path that is an id of the kind.
pub fn path_id<T: std::str::FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse().map_err(|_| Refusal::new(Code::NotFound, format!("there is no {what} {text:?}")).into())
}

/// A JSON body, whatever its content type says.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self> {
        let bytes = Bytes::from_request(request, app).await.map_err(|error| bad_body(&error))?;
        let body = serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::new(Code::InvalidBody, format!("the body is not the JSON expected: {error}")))?;
        Ok(Self(body))
    }
}

fn bad_body(error: &BytesRejection) -> Refusal {
    if error.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
        return Refusal::new(Code::BodyTooLarge, "the body is larger than server.max_body");
    }
    Refusal::new(Code::InvalidBody, error.to_string())
}

/// Parameters of the query; unknown ones are ignored.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let Query(params) = Query::from_request_parts(parts, app)
            .await
            .map_err(|error| Refusal::new(Code::InvalidBody, format!("the query: {error}")))?;
        Ok(Self(params))
    }
}

/// `limit`: at least 1, at most 200, by default 50.
pub fn limit(asked: Option<usize>) -> usize {
    asked.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)
}

/// An identity in a body must be the token's, if it is there.
pub fn refuse_other_sender(me: UserId, named: Option<&str>) -> Result<()> {
    match named {
        Some(named) if named != me.to_string() => {
            Err(Refusal::new(Code::SpoofedSender, format!("the token is {me}'s; the body names {named:?}")).into())
        }
        _ => Ok(()),
    }
}

/// The text of a header.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
