//! What is wrong with a request is answered with its stable code, whoever found it: we, axum, or tonic.

use proto::rpc::v1::{CreateMessageRequest, create_message_result::Result::Created};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{Core, code, request};

#[tokio::test]
async fn a_rest_request_that_is_wrong_is_a_problem_with_a_code() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let messages = format!("/api/v1/conversations/{channel}/messages");
    let large = json!({ "body": "x".repeat(40_000) });
    let huge = json!({ "body": "x".repeat(2_000_000) });
    for (method, path, token, body, status, code) in [
        ("GET", "/auth/me", false, Value::Null, 401, "unauthenticated"),
        ("GET", "/nowhere", true, Value::Null, 404, "not_found"),
        ("DELETE", "/auth/me", true, Value::Null, 405, "not_found"),
        ("GET", "/api/v1/conversations/seven", true, Value::Null, 404, "not_found"),
        ("GET", "/api/v1/conversations/-7/messages", true, Value::Null, 404, "not_found"),
        ("GET", "/api/v1/conversations/%ff", true, Value::Null, 404, "not_found"),
        ("GET", "/auth/profile/%ff", true, Value::Null, 404, "not_found"),
        ("GET", &format!("{messages}/%ff"), true, Value::Null, 404, "not_found"),
        ("GET", &format!("{messages}/12"), true, Value::Null, 404, "not_found"),
        ("GET", &format!("{messages}?before=x"), true, Value::Null, 400, "invalid_body"),
        ("GET", &format!("{messages}?limit=-1"), true, Value::Null, 400, "invalid_body"),
        ("POST", &messages, true, json!(["hello"]), 400, "invalid_body"),
        ("POST", &messages, true, Value::Null, 400, "invalid_body"),
        ("POST", &messages, true, json!({ "body": "" }), 400, "invalid_body"),
        ("POST", &messages, true, json!({ "body": "hello", "sender_id": "1" }), 403, "spoofed_sender"),
        ("POST", &messages, true, large, 413, "body_too_large"),
        ("POST", &messages, true, huge, 413, "body_too_large"),
    ] {
        let (is, problem) = core.call(method, path, token.then_some(&alice), body).await;
        assert_eq!((is, problem["code"].as_str()), (status, Some(code)), "{method} {path}: {problem}");
        assert_eq!(problem["status"], status, "{method} {path}");
    }
    let url = format!("{}{messages}", core.rest);
    let bearer = format!("Bearer {}", alice.token);
    let (status, problem) = request("POST", &url, &[("authorization", &bearer)], "{\"body\":".into()).await.unwrap();
    assert_eq!((status, problem["code"].as_str()), (400, Some("invalid_body")));
    core.finish().await;
}

#[tokio::test]
async fn a_grpc_call_that_is_not_understood_has_a_code() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    for path in ["/chat.v1.MessageService/Nothing", "/chat.v1.Nothing/Nothing"] {
        let call = http::Request::post(format!("{}{path}", core.rest))
            .header("content-type", "application/grpc")
            .body(axum::body::Body::empty())
            .unwrap();
        let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
        let answer = client.request(call).await.unwrap();
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert_eq!((answer.status().as_u16(), header("grpc-status"), header("code")), (200, "12", "not_found"));
    }
    let huge = core.send(&alice, channel, "m-1", &"x".repeat(2_000_000)).await.unwrap_err();
    assert_eq!((huge.code(), code(&huge)), (Code::InvalidArgument, "body_too_large"));

    // On a stream it ends what can't be read on; what came before is answered.
    let huge = CreateMessageRequest { body: "x".repeat(2_000_000), ..Default::default() };
    let good = CreateMessageRequest { conversation_id: channel, body: "hello".into(), ..Default::default() };
    let requests = alice.request(tokio_stream::iter([good, huge]));
    let mut answers = core.messages().stream_create_messages(requests).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert!(matches!(first.result, Some(Created(_))), "{first:?}");
    let ended = answers.message().await.unwrap_err();
    assert_eq!((ended.code(), code(&ended)), (Code::InvalidArgument, "body_too_large"));
    core.finish().await;
}
