//! Answers that are of no session.

use axum::response::{IntoResponse as _, Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH},
};
use sha1::{Digest as _, Sha1};

use super::headers;
use crate::config;

/// Calls `page` for the one method that there is.
pub fn only(method: &Method, expected: &Method, page: impl FnOnce() -> Response) -> Response {
    if method == expected || (method == Method::HEAD && expected == Method::GET) {
        page()
    } else {
        headers::not_allowed("GET, HEAD")
    }
}

pub fn greeting() -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=UTF-8")], "Welcome to SockJS!\n").into_response()
}

pub fn unknown() -> Response {
    let text = "there is nothing here; WebSockets are at /ws, SockJS is at /ws/{server}/{session}/{transport}\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

/// What clients ask first: what is offered, and how long an answer takes.
pub fn info(settings: &config::Sockjs) -> Response {
    let info = serde_json::json!({
        "websocket": settings.websocket,
        // Clients ignore it; who may connect is `websocket.allowed_origins`.
        "origins": ["*:*"],
        "cookie_needed": settings.cookie_needed,
        "entropy": rand::random::<u32>(),
    });
    let response = ([(CONTENT_TYPE, "application/json; charset=UTF-8")], info.to_string()).into_response();
    headers::uncached(response)
}

/// The page for iframes: it speaks to this gateway for a page of another origin. Its requests are of the gateway's own
/// origin, so browsers are told whose pages may hold it.
pub struct Iframe {
    page: String,
    etag: HeaderValue,
    /// The Content-Security-Policy; none: any page.
    holders: Option<HeaderValue>,
}

impl Iframe {
    pub fn new(client_url: &str, allowed_origins: &[String]) -> Self {
        let page = format!(
            r#"<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script>
    document.domain = document.domain;
    _sockjs_onload = function(){{SockJS.bootstrap_iframe();}};
  </script>
  <script src="{client_url}"></script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>
"#
        );
        let holders = (!allowed_origins.iter().any(|origin| origin == "*")).then(|| {
            let origins = allowed_origins.iter().filter(|origin| *origin != "null").map(String::as_str);
            format!("frame-ancestors {}", origins.collect::<Vec<_>>().join(" "))
        });
        let digest = Sha1::new().chain_update(&page).chain_update(holders.as_deref().unwrap_or_default()).finalize();
        let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest));
        let holders = holders.map(|holders| holders.parse().expect("the configuration was checked for origins"));
        Self { page, etag: etag.parse().expect("base64 is a header value"), holders }
    }

    pub fn page(&self, request: &HeaderMap) -> Response {
        let etag = [(ETAG, self.etag.clone())];
        let mut response = if request.get_all(IF_NONE_MATCH).iter().any(|known| known == self.etag) {
            (StatusCode::NOT_MODIFIED, etag, headers::cached()).into_response()
        } else {
            let content_type = [(CONTENT_TYPE, "text/html; charset=UTF-8")];
            (etag, headers::cached(), content_type, self.page.clone()).into_response()
        };
        if let Some(holders) = &self.holders {
            let headers = response.headers_mut();
            headers.insert(CONTENT_SECURITY_POLICY, holders.clone());
            // Kept, but asked for each time: who is taken off the list is off at once.
            headers.remove(EXPIRES);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        response
    }
}
