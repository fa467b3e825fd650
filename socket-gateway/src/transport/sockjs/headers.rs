//! Headers that many answers have: who may read them, who may keep them, and the cookie for balancers.

use axum::response::{IntoResponse as _, Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CACHE_CONTROL,
        COOKIE, EXPIRES, ORIGIN, SET_COOKIE, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};

use crate::config;

/// What may be kept is kept for a year.
const YEAR_S: i64 = 365 * 86400;
const YEAR: HeaderValue = HeaderValue::from_static("31536000");
const NEVER_CACHED: HeaderValue = HeaderValue::from_static("no-store, no-cache, must-revalidate, max-age=0");
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=31536000");
/// The balancers' cookie.
const COOKIE_NAME: &str = "JSESSIONID";

/// Lets pages of the request's origin, which is an allowed one, read the answer.
pub fn cors(mut response: Response, request: &HeaderMap) -> Response {
    let origin = request.get(ORIGIN).filter(|origin| *origin != "null");
    let headers = response.headers_mut();
    // Pages without an origin say "null", and would take it for a refusal.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.cloned().unwrap_or(HeaderValue::from_static("*")));
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|asked| !asked.is_empty()) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

/// The answer to OPTIONS.
pub fn options(request: &HeaderMap, methods: &'static str) -> Response {
    let own = [(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods)), (ACCESS_CONTROL_MAX_AGE, YEAR)];
    cors((StatusCode::NO_CONTENT, cached(), own).into_response(), request)
}

pub fn not_allowed(methods: &'static str) -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, methods)]).into_response()
}

/// For answers that may be kept long.
pub fn cached() -> [(HeaderName, HeaderValue); 2] {
    let expires = chrono::Utc::now() + chrono::Duration::seconds(YEAR_S);
    let expires = expires.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    [(CACHE_CONTROL, CACHED), (EXPIRES, expires.parse().expect("a date is a header value"))]
}

/// For answers that are of this moment.
pub fn uncached(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, NEVER_CACHED);
    // Scripts and pages hold what others wrote: browsers must not guess what it is.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Sets the balancers' cookie where it is needed: the client's own, or one that says nothing.
pub fn cookie(mut response: Response, request: &HeaderMap, settings: &config::Sockjs) -> Response {
    if !settings.cookie_needed {
        return response;
    }
    let sent = request.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(';'));
    let ours = sent.filter_map(|cookie| cookie.trim().split_once('=')).find(|(name, _)| *name == COOKIE_NAME);
    let value = ours.map_or("dummy", |(_, value)| value);
    if let Ok(cookie) = format!("{COOKIE_NAME}={value}; path=/").parse() {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
