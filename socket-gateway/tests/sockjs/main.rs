//! SockJS, case by case as in its own test-suite (sockjs-protocol-0.3.3), against a real gateway. That suite's service
//! echoes; this one answers what is no STOMP with ERROR and the end, so that is what comes back here.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod ending;
mod gateway;
mod http;
mod pages;
mod polling;
mod streaming;
mod websocket;

/// STOMP that is refused: SEND needs a destination. As the JSON that a client sends.
const REFUSED: &str = r#"["SEND\nreceipt:r-1\n\n\u0000"]"#;
/// What comes at the end then.
const CLOSE: &str = r#"c[4400,"protocol_error"]"#;

/// Asserts that a SockJS frame is the ERROR for [`REFUSED`]; its only message.
fn assert_error(frame: &str) {
    let strings: Vec<String> = serde_json::from_str(frame.strip_prefix('a').expect(frame)).unwrap();
    let [error] = &strings[..] else { panic!("{frame}") };
    assert!(error.starts_with("ERROR\n") && error.contains("\nreceipt-id:r-1\n"), "{error}");
}

/// Asserts that the answer may be read by pages of that origin.
fn assert_cors(answer: &http::Answer, origin: Option<&str>) {
    let expected = origin.filter(|origin| *origin != "null").unwrap_or("*");
    assert_eq!(answer.header("access-control-allow-origin"), Some(expected));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
}

fn assert_not_cached(answer: &http::Answer) {
    assert_eq!(answer.header("cache-control"), Some("no-store, no-cache, must-revalidate, max-age=0"));
    assert_eq!(answer.header("expires"), None);
    assert_eq!(answer.header("last-modified"), None);
}

fn assert_cached(answer: &http::Answer) {
    assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000"));
    assert!(answer.header("expires").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(answer.header("last-modified"), None);
}
