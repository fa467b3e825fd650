//! Greeting, info, iframe pages, and what is not there.

use serde_json::Value;

use crate::{assert_cached, assert_cors, assert_not_cached, gateway::Gateway, http::Request};

#[tokio::test]
async fn the_base_greets_and_unknown_paths_are_not_found() {
    let gateway = Gateway::start().await;
    for path in ["/ws", "/ws/"] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.content_type().unwrap(), "text/plain;charset=UTF-8");
        assert_eq!(answer.header("set-cookie"), None);
        assert_eq!(answer.body().await, "Welcome to SockJS!\n");
    }
    for suffix in
        ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/", "/iframe.htm", "/IFRAME.HTML", "/iframe-/.html"]
    {
        assert_eq!(gateway.get(&format!("/ws{suffix}")).await.status, 404, "{suffix}");
    }
    for ids in ["//", "/a./a", "/a/a.", "/./.", "/", "///"] {
        for method in ["GET", "POST"] {
            let answer = gateway.ask(Request::new(method, &format!("/ws{ids}/xhr"))).await;
            assert_eq!(answer.status, 404, "{method} {ids}");
        }
    }
}

#[tokio::test]
async fn answers_have_a_length_or_an_end_in_http_1_0_and_1_1() {
    let gateway = Gateway::start().await;
    let answer = gateway.ask(Request::new("GET", "/ws").http_1_0().header("Connection", "Keep-Alive")).await;
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.header("content-length"), Some("19"));
    let answer = gateway.get("/ws").await;
    assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (Some("19"), None));

    let path = gateway.session();
    let streaming = Request::new("POST", &format!("{path}/xhr_streaming"));
    let answer = gateway.ask(streaming.http_1_0().header("Connection", "Keep-Alive")).await;
    assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (None, None));
    gateway.post(&format!("{path}/xhr_send"), crate::REFUSED).await;
    let body = answer.body().await;
    assert!(body.starts_with("hhh") && body.ends_with(&format!("{}\n", crate::CLOSE)), "{body}");
}

#[tokio::test]
async fn the_page_for_iframes_is_kept_by_caches() {
    let gateway = Gateway::with(&[("SOCKJS__CLIENT_URL", "/static/sockjs.js")]).await;
    let mut etags = Vec::new();
    for path in ["/iframe.html", "/iframe-a.html", "/iframe-.html", "/iframe-0.1.2abc-dirty.2144.html?t=qweqweq123"] {
        let answer = gateway.get(&format!("/ws{path}")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.content_type().unwrap(), "text/html;charset=UTF-8");
        assert_cached(&answer);
        assert_eq!(answer.header("set-cookie"), None);
        etags.push(answer.header("etag").unwrap().to_owned());
        let page = answer.body().await;
        assert!(page.starts_with("<!DOCTYPE html>\n<html>\n<head>\n  <meta http-equiv=\"X-UA-Compatible\""), "{page}");
        assert!(page.contains("    _sockjs_onload = function(){SockJS.bootstrap_iframe();};\n"), "{page}");
        assert!(page.contains("  <script src=\"/static/sockjs.js\"></script>\n"), "{page}");
    }
    etags.dedup();
    let [etag] = &etags[..] else { panic!("{etags:?}") };
    let answer = gateway.ask(Request::new("GET", "/ws/iframe.html").header("If-None-Match", etag)).await;
    assert_eq!((answer.status, answer.header("content-type")), (304, None));
    assert_eq!(answer.body().await, "");
}

#[tokio::test]
async fn only_pages_on_the_list_of_origins_may_hold_the_iframe() {
    let list = "[\"https://chat.example\", \"null\", \"https://gateway.example:8443\"]";
    let gateway = Gateway::with(&[("WEBSOCKET__ALLOWED_ORIGINS", list)]).await;
    let answer = gateway.get("/ws/iframe.html").await;
    let policy = "frame-ancestors https://chat.example https://gateway.example:8443";
    assert_eq!((answer.status, answer.header("content-security-policy")), (200, Some(policy)));
    assert_eq!((answer.header("cache-control"), answer.header("expires")), (Some("no-cache"), None));
    let etag = answer.header("etag").unwrap();
    let again = gateway.ask(Request::new("GET", "/ws/iframe.html").header("If-None-Match", etag)).await;
    assert_eq!((again.status, again.header("content-security-policy")), (304, Some(policy)));
    assert_eq!(again.header("cache-control"), Some("no-cache"));

    let open = Gateway::start().await.get("/ws/iframe.html").await;
    assert_eq!(open.header("content-security-policy"), None);
    assert_ne!(open.header("etag").unwrap(), etag);
}

#[tokio::test]
async fn info_says_what_is_offered_and_lends_entropy() {
    let gateway = Gateway::start().await;
    let mut entropy = Vec::new();
    for _ in 0..2 {
        let answer = gateway.get("/ws/info").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.content_type().unwrap(), "application/json;charset=UTF-8");
        assert_eq!(answer.header("set-cookie"), None);
        assert_not_cached(&answer);
        assert_cors(&answer, None);
        let info: Value = serde_json::from_str(&answer.body().await).unwrap();
        assert_eq!(info["websocket"], true);
        assert_eq!(info["cookie_needed"], false);
        assert_eq!(info["origins"], serde_json::json!(["*:*"]));
        entropy.push(info["entropy"].as_u64().unwrap());
    }
    assert_ne!(entropy[0], entropy[1]);
}

#[tokio::test]
async fn without_websockets_info_says_so_and_their_path_is_not_found() {
    let gateway = Gateway::with(&[("SOCKJS__WEBSOCKET", "false")]).await;
    let info: Value = serde_json::from_str(&gateway.get("/ws/info").await.body().await).unwrap();
    assert_eq!(info["websocket"], false);
    assert_eq!(gateway.get("/ws/0/0/websocket").await.status, 404);
}

#[tokio::test]
async fn options_are_answered_for_any_origin_and_kept_by_caches() {
    let gateway = Gateway::start().await;
    let paths = [
        ("/ws/info", "OPTIONS, GET"),
        ("/ws/abc/abc/xhr", "OPTIONS, POST"),
        ("/ws/abc/abc/xhr_send", "OPTIONS, POST"),
        ("/ws/abc/abc/xhr_streaming", "OPTIONS, POST"),
    ];
    for (path, methods) in paths {
        for origin in [None, Some("test"), Some("null")] {
            let request = Request::new("OPTIONS", path);
            let request = match origin {
                Some(origin) => request.header("Origin", origin),
                None => request,
            };
            let answer = gateway.ask(request).await;
            assert_eq!(answer.status, 204);
            assert_cached(&answer);
            assert!(answer.header("access-control-max-age").unwrap().parse::<u32>().unwrap() > 1_000_000);
            assert_eq!(answer.header("access-control-allow-methods"), Some(methods));
            assert_cors(&answer, origin);
            assert_eq!(answer.body().await, "");
        }
    }
}

#[tokio::test]
async fn an_origin_that_is_not_on_the_list_gets_nothing() {
    let gateway = Gateway::with(&[("WEBSOCKET__ALLOWED_ORIGINS", "[\"https://chat.example\"]")]).await;
    let session = gateway.session();
    let paths = [
        ("GET", "/ws/info".to_owned()),
        ("POST", format!("{session}/xhr")),
        ("OPTIONS", format!("{session}/xhr_send")),
    ];
    for (method, path) in paths {
        let foreign = gateway.ask(Request::new(method, &path).header("Origin", "https://evil.example")).await;
        assert_eq!(foreign.status, 403, "{path}");
        assert_eq!(foreign.header("access-control-allow-origin"), None);
        let ours = gateway.ask(Request::new(method, &path).header("Origin", "https://chat.example")).await;
        assert!(ours.status < 300, "{path}");
        assert_cors(&ours, Some("https://chat.example"));
    }
}

#[tokio::test]
async fn a_wrong_method_is_named_with_the_right_ones() {
    let gateway = Gateway::start().await;
    for (method, path, allow) in [
        ("POST", "/ws/0/0/websocket", "GET"),
        ("GET", "/ws/0/0/xhr", "OPTIONS, POST"),
        ("GET", "/ws/0/0/xhr_send", "OPTIONS, POST"),
        ("POST", "/ws/0/0/eventsource", "OPTIONS, GET"),
        ("POST", "/ws/info", "OPTIONS, GET"),
        ("POST", "/ws", "GET, HEAD"),
    ] {
        let answer = gateway.ask(Request::new(method, path)).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow));
        assert_eq!(answer.header("content-type"), None);
        assert_eq!(answer.body().await, "");
    }
}
