//! xhr-polling, jsonp-polling, and the requests that send.

use std::fmt::Write as _;

use crate::{
    CLOSE, REFUSED, assert_cors, assert_error, assert_not_cached,
    gateway::Gateway,
    http::{Answer, Request},
};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

async fn poll(gateway: &Gateway, path: &str) -> String {
    let answer = gateway.post(&format!("{path}/xhr"), "").await;
    assert_eq!(answer.status, 200);
    answer.body().await
}

#[tokio::test]
async fn a_session_polls_sends_and_hears_the_error_before_the_close() {
    let gateway = Gateway::start().await;
    let path = gateway.session();
    let answer = gateway.post(&format!("{path}/xhr"), "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.content_type().unwrap(), "application/javascript;charset=UTF-8");
    assert_cors(&answer, None);
    assert_not_cached(&answer);
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.body().await, "o\n");

    let answer = gateway.post(&format!("{path}/xhr_send"), REFUSED).await;
    assert_eq!(answer.status, 204);
    // Some browsers take it for XML, and complain, where it says nothing.
    assert_eq!(answer.content_type().unwrap(), "text/plain;charset=UTF-8");
    assert_cors(&answer, None);
    assert_not_cached(&answer);
    assert_eq!(answer.body().await, "");

    assert_error(poll(&gateway, &path).await.trim_end());
    // As often as one asks.
    for _ in 0..3 {
        assert_eq!(poll(&gateway, &path).await, format!("{CLOSE}\n"));
    }
}

#[tokio::test]
async fn any_ids_will_do_and_the_servers_means_nothing() {
    let gateway = Gateway::start().await;
    for ids in ["/a/a", "/_/_", "/1/1", "/abcdefgh_i-j%20/abcdefg_i-j%20"] {
        assert_eq!(poll(&gateway, &format!("/ws{ids}")).await, "o\n", "{ids}");
    }
    let id = uuid::Uuid::new_v4();
    assert_eq!(poll(&gateway, &format!("/ws/000/{id}")).await, "o\n");
    assert_eq!(gateway.post(&format!("/ws/000/{id}/xhr_send"), REFUSED).await.status, 204);
    assert_error(poll(&gateway, &format!("/ws/999/{id}")).await.trim_end());
}

#[tokio::test]
async fn sending_to_a_session_that_is_not_there_is_not_found() {
    let gateway = Gateway::start().await;
    for transport in ["xhr_send", "jsonp_send"] {
        let answer = gateway.post(&format!("{}/{transport}", gateway.session()), REFUSED).await;
        assert_eq!(answer.status, 404);
        assert_cors(&answer, None);
    }
}

#[tokio::test]
async fn what_is_no_json_is_refused_and_the_session_goes_on() {
    let gateway = Gateway::start().await;
    let path = gateway.session();
    assert_eq!(poll(&gateway, &path).await, "o\n");
    for (body, said) in [
        ("[\"x", "Broken JSON encoding."),
        ("\"x\"", "Broken JSON encoding."),
        ("[\"x\",1]", "Broken JSON encoding."),
        ("", "Payload expected."),
    ] {
        let answer = gateway.post(&format!("{path}/xhr_send"), body).await;
        assert_eq!(answer.status, 500, "{body}");
        let text = answer.body().await;
        assert!(text.contains(said), "{text}");
    }
    assert_eq!(gateway.post(&format!("{path}/xhr_send"), REFUSED).await.status, 204);
    assert_error(poll(&gateway, &path).await.trim_end());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_size() {
    let gateway = Gateway::with(&[("SOCKJS__MAX_SEND", "300KiB")]).await;
    let path = gateway.session();
    assert_eq!(poll(&gateway, &path).await, "o\n");
    let answer = gateway.post(&format!("{path}/xhr_send"), &format!("[\"{}\"]", " ".repeat(300 * 1024))).await;
    assert_eq!(answer.status, 413);
    assert!(answer.body().await.contains("307200 bytes"));
    assert_eq!(gateway.post(&format!("{path}/xhr_send"), REFUSED).await.status, 204);
}

#[tokio::test]
async fn any_content_type_will_do_for_what_is_sent() {
    let gateway = Gateway::start().await;
    let path = gateway.session();
    assert_eq!(poll(&gateway, &path).await, "o\n");
    let types = ["text/plain", "T", "application/json", "", "application/json; charset=utf-8", "text/xml"];
    for content_type in types {
        // Line ends between frames: heart-beats.
        let request = Request::new("POST", &format!("{path}/xhr_send")).header("Content-Type", content_type);
        assert_eq!(gateway.ask(request.body("[\"\\n\"]")).await.status, 204, "{content_type}");
    }
    // A frame in several messages is one.
    for body in [r#"["SEND\nreceipt"]"#, r#"[":r-1\n", "\n"]"#, r#"["\u0000"]"#] {
        assert_eq!(gateway.post(&format!("{path}/xhr_send"), body).await.status, 204);
    }
    assert_error(poll(&gateway, &path).await.trim_end());
}

#[tokio::test]
async fn headers_that_a_page_wants_to_send_are_allowed() {
    let gateway = Gateway::start().await;
    for (asked, allowed) in [(Some("a, b, c"), Some("a, b, c")), (Some(""), None), (None, None)] {
        let request = Request::new("POST", &format!("{}/xhr", gateway.session()));
        let request = match asked {
            Some(asked) => request.header("Access-Control-Request-Headers", asked),
            None => request,
        };
        let answer = gateway.ask(request).await;
        assert_eq!(answer.status, 200);
        assert_cors(&answer, None);
        assert_eq!(answer.header("access-control-allow-headers"), allowed);
    }
}

#[tokio::test]
async fn characters_that_are_spoilt_on_the_way_are_escaped_and_unescaped() {
    let gateway = Gateway::start().await;
    // The receipt of a refused frame comes back.
    let round_trip = async |receipt: &str, json: &str| {
        let path = gateway.session();
        assert_eq!(poll(&gateway, &path).await, "o\n");
        let body = format!(r#"["SEND\nreceipt:{json}\n\n\u0000"]"#);
        assert_eq!(gateway.post(&format!("{path}/xhr_send"), &body).await.status, 204);
        let frame = poll(&gateway, &path).await;
        let strings: Vec<String> = serde_json::from_str(frame.trim_end().strip_prefix('a').unwrap()).unwrap();
        assert!(strings[0].contains(&format!("\nreceipt-id:{receipt}\n")), "{frame}");
        frame
    };
    let escaped = |text: &str| {
        text.encode_utf16().fold(String::new(), |mut json, unit| {
            let _ = write!(json, "\\u{unit:04x}");
            json
        })
    };
    let servers = ['\u{200c}'..='\u{200f}', '\u{2028}'..='\u{202f}', '\u{2060}'..='\u{206f}', '\u{fff0}'..='\u{ffff}'];
    let servers: String = servers.into_iter().flatten().collect();
    let frame = round_trip(&servers, &servers).await;
    assert!(frame.contains(&escaped(&servers)), "{frame}");

    let clients = ['\u{7f}'..='\u{9f}', '\u{300}'..='\u{362}', '\u{2000}'..='\u{20ff}', '\u{f900}'..='\u{fad9}'];
    let clients: String = clients.into_iter().flatten().chain(['\u{ad}', '\u{feff}', '😀']).collect();
    round_trip(&clients, &escaped(&clients)).await;
}

async fn jsonp(gateway: &Gateway, path: &str) -> Answer {
    let answer = gateway.get(&format!("{path}/jsonp?c=%63allback")).await;
    assert_eq!(answer.status, 200);
    answer
}

/// The SockJS frame in a script.
fn unwrapped(script: &str) -> String {
    serde_json::from_str(script.strip_prefix("callback(").unwrap().strip_suffix(");\r\n").unwrap()).unwrap()
}

#[tokio::test]
async fn jsonp_polls_with_scripts_and_sends_with_forms() {
    let gateway = Gateway::start().await;
    let path = gateway.session();
    let answer = jsonp(&gateway, &path).await;
    assert_eq!(answer.content_type().unwrap(), "application/javascript;charset=UTF-8");
    assert_not_cached(&answer);
    assert_eq!(answer.body().await, "callback(\"o\");\r\n");

    for body in ["d=%5B%22x", "d=%22x%22"] {
        let request = Request::new("POST", &format!("{path}/jsonp_send")).header(FORM.0, FORM.1);
        let answer = gateway.ask(request.body(body)).await;
        assert_eq!(answer.status, 500);
        assert!(answer.body().await.contains("Broken JSON encoding."));
    }
    for body in ["", "d=", "p=p"] {
        let request = Request::new("POST", &format!("{path}/jsonp_send")).header(FORM.0, FORM.1);
        let answer = gateway.ask(request.body(body)).await;
        assert_eq!(answer.status, 500);
        assert!(answer.body().await.contains("Payload expected."));
    }

    let request = Request::new("POST", &format!("{path}/jsonp_send")).header(FORM.0, FORM.1);
    let answer = gateway.ask(request.body("d=%5B%22SEND%5Cnreceipt:r-1%22%5D")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.content_type().unwrap(), "text/plain;charset=UTF-8");
    assert_not_cached(&answer);
    assert_eq!(answer.body().await, "ok");
    let request = Request::new("POST", &format!("{path}/jsonp_send")).header("Content-Type", "text/plain");
    assert_eq!(gateway.ask(request.body(r#"["\n\n\u0000"]"#)).await.body().await, "ok");

    assert_error(&unwrapped(&jsonp(&gateway, &path).await.body().await));
    for _ in 0..2 {
        assert_eq!(jsonp(&gateway, &path).await.body().await, "callback(\"c[4400,\\\"protocol_error\\\"]\");\r\n");
    }
}

#[tokio::test]
async fn a_script_without_a_good_callback_is_refused() {
    let gateway = Gateway::start().await;
    for transport in ["jsonp", "htmlfile"] {
        let answer = gateway.get(&format!("/ws/a/a/{transport}")).await;
        assert_eq!(answer.status, 500);
        assert!(answer.body().await.contains("\"callback\" parameter required"));
        for callback in ["%20", "*", "abc(", "abc%28", "%3Cscript%3E"] {
            let answer = gateway.get(&format!("/ws/a/a/{transport}?c={callback}")).await;
            assert_eq!(answer.status, 500, "{callback}");
            assert!(answer.body().await.contains("invalid \"callback\" parameter"));
        }
    }
}

#[tokio::test]
async fn the_balancers_cookie_is_set_where_it_is_asked_for() {
    let gateway = Gateway::with(&[("SOCKJS__COOKIE_NEEDED", "true")]).await;
    let answer = gateway.get("/ws/info").await;
    assert_eq!(answer.header("set-cookie"), None);
    assert!(answer.body().await.contains("\"cookie_needed\":true"));

    let path = gateway.session();
    let answer = gateway.post(&format!("{path}/xhr"), "").await;
    assert_eq!(answer.header("set-cookie"), Some("JSESSIONID=dummy; path=/"));
    answer.body().await;
    let answer = gateway.post(&format!("{path}/xhr_send"), "[\"\\n\"]").await;
    assert_eq!(answer.header("set-cookie"), Some("JSESSIONID=dummy; path=/"));
    let path = gateway.session();
    let request = Request::new("POST", &format!("{path}/xhr")).header("Cookie", "a=b; JSESSIONID=abcdef; c=d");
    assert_eq!(gateway.ask(request).await.header("set-cookie"), Some("JSESSIONID=abcdef; path=/"));
    for transport in ["eventsource", "htmlfile?c=%63allback", "jsonp?c=%63allback"] {
        let answer = gateway.get(&format!("{}/{transport}", gateway.session())).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("set-cookie"), Some("JSESSIONID=dummy; path=/"), "{transport}");
    }
    let answer = gateway.post(&format!("{}/xhr_streaming", gateway.session()), "").await;
    assert_eq!(answer.header("set-cookie"), Some("JSESSIONID=dummy; path=/"));
}
