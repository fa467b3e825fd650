//! The opening handshake: which requests become a WebSocket (RFC 6455, section 4.2).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use sha1::{Digest as _, Sha1};

use super::deflate::Deflate;

/// Appended to the client's key before hashing (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The version of the protocol.
pub const RFC_6455: [&str; 1] = ["13"];
/// That, and the drafts whose frames are the same (hybi-07 and hybi-10).
pub const RFC_6455_AND_DRAFTS: [&str; 3] = ["13", "8", "7"];

/// What the two sides agreed on.
#[derive(Debug)]
pub struct Accepted {
    key: String,
    /// The first of the client's subprotocols that this server has too.
    pub protocol: Option<&'static str>,
    pub deflate: Option<Deflate>,
}

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a WebSocket begins with GET over HTTP/1.1")]
    NotGet,
    #[error("this is a WebSocket endpoint: connect with Connection: Upgrade and Upgrade: websocket")]
    NoUpgrade,
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
}

/// Whether the client asks for a WebSocket at all.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// Checks a request. `protocols` are the server's subprotocols; with `deflate` compression is agreed to if asked for.
pub fn check<B>(
    request: &Request<B>,
    versions: &[&str],
    protocols: &[&'static str],
    deflate: bool,
) -> Result<Accepted, Refused> {
    let headers = request.headers();
    if !is_upgrade(headers) || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refused::NoUpgrade);
    }
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(Refused::NotGet);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| versions.iter().all(|known| version != known)) {
        return Err(Refused::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default().trim();
    if STANDARD.decode(key).map_or(true, |nonce| nonce.len() != 16) {
        return Err(Refused::Key);
    }
    let protocol = tokens(headers, &SEC_WEBSOCKET_PROTOCOL)
        .find_map(|asked| protocols.iter().copied().find(|protocol| *protocol == asked));
    let deflate = if deflate {
        headers
            .get_all(SEC_WEBSOCKET_EXTENSIONS)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(Deflate::agree)
    } else {
        None
    };
    Ok(Accepted { key: accept_key(key), protocol, deflate })
}

impl Accepted {
    /// 101, with what was agreed.
    pub fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.key.parse().expect("base64 is a header value"));
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        if let Some(deflate) = &self.deflate {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, deflate.response().parse().expect("ASCII is a header value"));
        }
        response
    }
}

impl Refused {
    pub fn status(self) -> StatusCode {
        match self {
            Refused::NotGet => StatusCode::METHOD_NOT_ALLOWED,
            Refused::NoUpgrade | Refused::Version => StatusCode::UPGRADE_REQUIRED,
            Refused::Key => StatusCode::BAD_REQUEST,
        }
    }
}

fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

fn tokens<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl Fn(&mut HeaderMap)) -> Request<()> {
        let mut request = Request::new(());
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        change(headers);
        request
    }

    #[test]
    fn the_key_is_answered_as_in_the_example_of_the_rfc() {
        let accepted = check(&request(|_| {}), &RFC_6455, &[], false).unwrap();
        let response = accepted.response::<()>();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn the_clients_order_of_subprotocols_counts_and_unknown_ones_are_left_out() {
        let ours = ["v12.stomp", "v11.stomp", "v10.stomp"];
        let asking = |value: &'static str| {
            let request = request(|h| {
                h.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
            });
            check(&request, &RFC_6455, &ours, false).unwrap().protocol
        };
        assert_eq!(asking("v10.stomp, v12.stomp"), Some("v10.stomp"));
        assert_eq!(asking("mqtt,v11.stomp"), Some("v11.stomp"));
        assert_eq!(asking("mqtt"), None);
    }

    #[test]
    fn a_request_that_lacks_something_is_refused_by_name() {
        let refused = |change: &dyn Fn(&mut HeaderMap)| check(&request(change), &RFC_6455, &[], false).unwrap_err();
        let without = |name: http::HeaderName| {
            refused(&|h: &mut HeaderMap| {
                h.remove(&name);
            })
        };
        assert_eq!(without(UPGRADE), Refused::NoUpgrade);
        assert_eq!(without(CONNECTION), Refused::NoUpgrade);
        assert_eq!(without(SEC_WEBSOCKET_VERSION), Refused::Version);
        assert_eq!(without(SEC_WEBSOCKET_KEY), Refused::Key);
        for key in ["", "abc", "dGhlIHNhbXBsZSBub25j"] {
            let value = HeaderValue::from_static(key);
            let with_key = |h: &mut HeaderMap| {
                h.insert(SEC_WEBSOCKET_KEY, value.clone());
            };
            assert_eq!(refused(&with_key), Refused::Key, "{key:?}");
        }
        let mut post = request(|_| {});
        *post.method_mut() = Method::POST;
        assert_eq!(check(&post, &RFC_6455, &[], false).unwrap_err(), Refused::NotGet);
    }

    #[test]
    fn compression_is_agreed_to_only_where_it_is_asked_for_and_allowed() {
        let asking = request(|h| {
            h.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("x-unknown, permessage-deflate"));
        });
        assert!(check(&asking, &RFC_6455, &[], true).unwrap().deflate.is_some());
        assert!(check(&asking, &RFC_6455, &[], false).unwrap().deflate.is_none());
        assert!(check(&request(|_| {}), &RFC_6455, &[], true).unwrap().deflate.is_none());
    }
}
