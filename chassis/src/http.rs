//! A small HTTP client for what processes ask of each other: a JSON document, a form posted.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::de::DeserializeOwned;

/// An answer larger than this is refused, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// From the request to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{url}: {message}")]
    Failed { url: String, message: String },
    #[error("{url} answered {status}: {body}")]
    Status { url: String, status: StatusCode, body: String },
}

/// GETs `url` and parses its JSON.
pub async fn get_json<T: DeserializeOwned>(url: &str) -> Result<T, HttpError> {
    send(url, Request::builder().method(Method::GET).uri(url).body(Full::default())).await
}

/// POSTs `fields` as a form to `url` and parses the JSON of the answer.
pub async fn post_form<T: DeserializeOwned>(url: &str, fields: &[(&str, &str)]) -> Result<T, HttpError> {
    let body = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>();
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(body.join("&")));
    send(url, request).await
}

async fn send<T: DeserializeOwned>(url: &str, request: http::Result<Request<Full<Bytes>>>) -> Result<T, HttpError> {
    let failed = |message: String| HttpError::Failed { url: url.to_owned(), message };
    let request = request.map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let answer = client.request(request).await.map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        if !status.is_success() {
            let body = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(HttpError::Status { url: url.to_owned(), status, body });
        }
        serde_json::from_slice(&body).map_err(|error| failed(format!("the answer is not what was expected: {error}")))
    };
    tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(failed(format!("no answer in {TIMEOUT:?}"))))
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_field_is_percent_encoded() {
        assert_eq!(encode("a b&c=ü~"), "a%20b%26c%3D%C3%BC~");
    }
}
