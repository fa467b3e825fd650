//! One receiver at a time, requests that are cut off, and sessions that nobody asks for.

use std::time::{Duration, Instant};

use crate::{
    gateway::{DEADLINE, Gateway},
    http::Request,
};

const ANOTHER: &str = "c[2010,\"Another connection still open\"]\n";
const INTERRUPTED: &str = "c[1002,\"Connection interrupted\"]\n";

async fn poll(gateway: &Gateway, path: &str) -> String {
    gateway.post(&format!("{path}/xhr"), "").await.body().await
}

#[tokio::test]
async fn a_second_stream_is_told_of_the_first_and_the_first_goes_on() {
    let gateway = Gateway::start().await;
    let path = gateway.session();
    let stream = async || gateway.post(&format!("{path}/xhr_streaming"), "").await;
    let mut first = stream().await;
    first.chunk().await.unwrap();
    assert_eq!(first.chunk().await.unwrap(), "o\n");
    // Prelude and frame may be one piece here.
    assert_eq!(stream().await.body().await, "h".repeat(2048) + "\n" + ANOTHER);
    assert_eq!(poll(&gateway, &path).await, ANOTHER);
    gateway.post(&format!("{path}/xhr_send"), crate::REFUSED).await;
    crate::assert_error(first.chunk().await.unwrap().trim_end());
}

#[tokio::test]
async fn a_receiving_request_that_is_cut_off_ends_the_session() {
    let gateway = Gateway::start().await;
    // Streaming.
    let path = gateway.session();
    let mut first = gateway.post(&format!("{path}/xhr_streaming"), "").await;
    first.chunk().await.unwrap();
    assert_eq!(first.chunk().await.unwrap(), "o\n");
    drop(first);
    assert_eq!(after_the_first(&gateway, &path).await, INTERRUPTED);

    // Polling: the request waits, is known to wait, and goes.
    let path = gateway.session();
    assert_eq!(poll(&gateway, &path).await, "o\n");
    let waiting = tokio::spawn(Request::new("POST", &format!("{path}/xhr")).send(gateway.address));
    let known = async {
        while poll(&gateway, &path).await != ANOTHER {
            assert!(!waiting.is_finished());
        }
    };
    // Whichever of the two came first is the one that waits.
    if tokio::time::timeout(std::time::Duration::from_millis(500), known).await.is_ok() {
        waiting.abort();
    }
    assert_eq!(after_the_first(&gateway, &path).await, INTERRUPTED);
}

/// What a poll is told when the request before is noticed to be gone.
async fn after_the_first(gateway: &Gateway, path: &str) -> String {
    let ask = async {
        loop {
            let told = poll(gateway, path).await;
            if told != ANOTHER {
                break told;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, ask).await.expect("the request before is not noticed to be gone")
}

#[tokio::test]
async fn a_session_that_nobody_receives_from_is_forgotten() {
    let gateway = Gateway::with(&[("SOCKJS__DISCONNECT_DELAY", "100ms")]).await;
    let path = gateway.session();
    assert_eq!(poll(&gateway, &path).await, "o\n");
    let forgotten = async {
        while gateway.post(&format!("{path}/xhr_send"), "[\"\\n\"]").await.status != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, forgotten).await.expect("the session is still there");
    // The same id is a new session.
    assert_eq!(poll(&gateway, &path).await, "o\n");
}

#[tokio::test]
async fn sessions_count_as_connections() {
    let gateway = Gateway::with(&[("LIMITS__CONNECTIONS", "2"), ("SOCKJS__DISCONNECT_DELAY", "30s")]).await;
    let first = gateway.session();
    assert_eq!(poll(&gateway, &first).await, "o\n");
    assert_eq!(poll(&gateway, &gateway.session()).await, "o\n");
    let refused = gateway.post(&format!("{}/xhr", gateway.session()), "").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert!(refused.body().await.contains("as many connections as it may have"));
    // Those that are in are served.
    gateway.post(&format!("{first}/xhr_send"), crate::REFUSED).await;
    crate::assert_error(poll(&gateway, &first).await.trim_end());
}

#[tokio::test]
async fn without_connect_a_session_ends_with_an_error_and_4001() {
    let gateway = Gateway::with(&[("SESSION__CONNECT_TIMEOUT", "100ms")]).await;
    let path = gateway.session();
    assert_eq!(poll(&gateway, &path).await, "o\n");
    let error = poll(&gateway, &path).await;
    assert!(error.starts_with("a[\"ERROR\\n") && error.contains("no CONNECT within"), "{error}");
    assert_eq!(poll(&gateway, &path).await, "c[4001,\"unauthenticated\"]\n");
}

#[tokio::test]
async fn while_it_drains_each_session_is_told_and_new_ones_are_refused() {
    let patient = [("DRAIN__WINDOW", "100ms"), ("WEBSOCKET__CLOSE_TIMEOUT", "10s")];
    let mut gateway = Gateway::with(&patient).await;
    let [path, streaming] = [gateway.session(), gateway.session()];
    assert_eq!(poll(&gateway, &path).await, "o\n");
    let mut stream = gateway.post(&format!("{streaming}/xhr_streaming"), "").await;
    gateway.terminate().await;
    // Who streams is told without asking.
    stream.chunk().await.unwrap();
    assert_eq!(stream.chunk().await.unwrap(), "o\n");
    assert_eq!(stream.chunk().await.unwrap(), "c[1001,\"draining\"]\n");
    assert_eq!(stream.chunk().await, None);
    let refused = gateway.post(&format!("{}/xhr", gateway.session()), "").await;
    assert_eq!(refused.status, 503);
    assert!(refused.body().await.contains("going away"));
    // Who polls has time to ask.
    assert_eq!(poll(&gateway, &path).await, "c[1001,\"draining\"]\n");
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn those_who_are_told_to_go_are_spread_over_the_window() {
    const WINDOW: Duration = Duration::from_secs(2);
    let mut gateway = Gateway::with(&[("DRAIN__WINDOW", "2s")]).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = gateway.post(&format!("{}/xhr_streaming", gateway.session()), "").await;
        stream.chunk().await.unwrap();
        assert_eq!(stream.chunk().await.unwrap(), "o\n");
        streams.push(stream);
    }
    gateway.terminate().await;
    let told = streams.into_iter().map(|mut stream| async move {
        assert_eq!(stream.chunk().await.unwrap(), "c[1001,\"draining\"]\n");
        Instant::now()
    });
    let told = futures_util::future::join_all(told).await;
    // That all of twenty draw the same half has a chance of one in 50,000.
    let spread = *told.iter().max().unwrap() - *told.iter().min().unwrap();
    assert!(spread > WINDOW / 2, "all within {spread:?}");
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_gateway_without_sessions_closes_its_listener_when_it_drains() {
    let mut gateway = Gateway::start().await;
    gateway.get("/ws").await;
    gateway.terminate().await;
    assert_eq!(gateway.exit_code().await, Some(0));
}
