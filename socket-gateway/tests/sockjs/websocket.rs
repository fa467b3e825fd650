//! The WebSocket transport, with frames of SockJS and raw.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, error::ProtocolError, protocol::CloseFrame},
};

use crate::{
    CLOSE, REFUSED, assert_error,
    gateway::{DEADLINE, Gateway},
    http::Request,
};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(gateway: &Gateway, path: &str) -> Client {
    connect_async(gateway.websocket(path)).await.unwrap().0
}

async fn next(client: &mut Client) -> Option<Result<Message, Error>> {
    timeout(DEADLINE, client.next()).await.expect("nothing in time")
}

async fn text(client: &mut Client) -> String {
    match next(client).await {
        Some(Ok(Message::Text(text))) => text.to_string(),
        other => panic!("no text: {other:?}"),
    }
}

async fn close(client: &mut Client) -> Option<CloseFrame> {
    match next(client).await {
        Some(Ok(Message::Close(close))) => close,
        other => panic!("no close: {other:?}"),
    }
}

#[tokio::test]
async fn requests_that_are_for_no_websocket_are_refused_as_the_protocol_says() {
    let gateway = Gateway::start().await;
    for path in ["/ws/0/0/websocket", "/ws/websocket"] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body().await.contains("Can \"Upgrade\" only to \"WebSocket\"."));
        let request = Request::new("GET", path).header("Upgrade", "WebSocket").header("Connection", "close");
        let answer = gateway.ask(request).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body().await.contains("\"Connection\" must be \"Upgrade\"."));
        for upgrade in [true, false] {
            let request = Request::new("POST", path);
            let request =
                if upgrade { request.header("Upgrade", "WebSocket").header("Connection", "Upgrade") } else { request };
            let answer = gateway.ask(request).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")));
            assert_eq!(answer.header("content-type"), None);
            assert_eq!(answer.body().await, "");
        }
    }
}

#[tokio::test]
async fn the_drafts_with_the_same_frames_are_spoken_too() {
    let gateway = Gateway::start().await;
    for version in ["7", "8", "13"] {
        let request = Request::new("GET", &format!("{}/websocket", gateway.session()))
            .header("Upgrade", "websocket")
            // As an old Firefox says it.
            .header("Connection", "keep-alive, Upgrade")
            .header("Sec-WebSocket-Version", version)
            .header("Sec-WebSocket-Origin", "http://asd")
            .header("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw==");
        let answer = gateway.ask(request).await;
        assert_eq!(answer.status, 101, "{version}");
        assert_eq!(answer.header("sec-websocket-accept"), Some("HSmrc0sMlYUkAGmm5OPpG2HaGWk="));
        assert!(answer.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
        assert!(answer.header("upgrade").unwrap().eq_ignore_ascii_case("websocket"));
        assert_eq!(answer.header("content-length"), None);
    }
    let gateway = Gateway::with(&[("WEBSOCKET__ALLOWED_ORIGINS", "[\"https://chat.example\"]")]).await;
    let request = Request::new("GET", &format!("{}/websocket", gateway.session()))
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade")
        .header("Sec-WebSocket-Version", "8")
        .header("Sec-WebSocket-Origin", "https://evil.example")
        .header("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw==");
    assert_eq!(gateway.ask(request).await.status, 403);
}

#[tokio::test]
async fn a_websocket_opens_ignores_what_is_empty_and_brings_the_error_before_the_close() {
    let gateway = Gateway::start().await;
    for message in [REFUSED, r#""SEND\nreceipt:r-1\n\n\u0000""#] {
        let mut client = connect(&gateway, &format!("{}/websocket", gateway.session())).await;
        assert_eq!(text(&mut client).await, "o");
        client.send(Message::text("")).await.unwrap();
        client.send(Message::text("[]")).await.unwrap();
        client.send(Message::text(message)).await.unwrap();
        assert_error(&text(&mut client).await);
        assert_eq!(text(&mut client).await, CLOSE);
        let frame = close(&mut client).await.unwrap();
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4400, "protocol_error"));
    }
}

#[tokio::test]
async fn two_websockets_may_have_one_session_id() {
    let gateway = Gateway::start().await;
    let path = format!("{}/websocket", gateway.session());
    let mut first = connect(&gateway, &path).await;
    assert_eq!(text(&mut first).await, "o");
    let mut second = connect(&gateway, &path).await;
    assert_eq!(text(&mut second).await, "o");
    for client in [&mut first, &mut second] {
        client.send(Message::text(REFUSED)).await.unwrap();
        assert_error(&text(client).await);
    }
    let mut third = connect(&gateway, &path).await;
    assert_eq!(text(&mut third).await, "o");
}

#[tokio::test]
async fn broken_json_cuts_the_connection_without_a_word() {
    let gateway = Gateway::start().await;
    for broken in ["[\"a", "[1]", "{}", "[\"a\"]x"] {
        let mut client = connect(&gateway, &format!("{}/websocket", gateway.session())).await;
        assert_eq!(text(&mut client).await, "o");
        client.send(Message::text(broken)).await.unwrap();
        let end = next(&mut client).await;
        let cut = matches!(
            end,
            None | Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_)))
        );
        assert!(cut, "{broken:?}: {end:?}");
    }
}

#[tokio::test]
async fn a_message_in_many_pieces_is_one_and_one_that_is_too_large_is_refused() {
    let gateway = Gateway::start().await;
    let mut client = connect(&gateway, &format!("{}/websocket", gateway.session())).await;
    assert_eq!(text(&mut client).await, "o");
    use tokio_tungstenite::tungstenite::protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    };
    let mut pieces = REFUSED.as_bytes().chunks(5).enumerate().peekable();
    while let Some((index, piece)) = pieces.next() {
        let opcode = OpCode::Data(if index == 0 { Data::Text } else { Data::Continue });
        let frame = Frame::message(piece.to_vec(), opcode, pieces.peek().is_none());
        client.send(Message::Frame(frame)).await.unwrap();
    }
    assert_error(&text(&mut client).await);

    let mut client = connect(&gateway, &format!("{}/websocket", gateway.session())).await;
    assert_eq!(text(&mut client).await, "o");
    // It may be cut off while it is sent.
    let _ = client.send(Message::text(format!("[\"{}\"]", " ".repeat(1024 * 1024)))).await;
    assert!(text(&mut client).await.contains("larger than"));
    assert_eq!(text(&mut client).await, "c[1009,\"protocol_error\"]");
    assert_eq!(close(&mut client).await.map(|frame| u16::from(frame.code)), Some(1009));
}

#[tokio::test]
async fn heartbeats_come_on_a_websocket_that_is_quiet() {
    let gateway = Gateway::with(&[("SOCKJS__HEARTBEAT", "50ms")]).await;
    let mut client = connect(&gateway, &format!("{}/websocket", gateway.session())).await;
    assert_eq!(text(&mut client).await, "o");
    for _ in 0..3 {
        assert_eq!(text(&mut client).await, "h");
    }
}

#[tokio::test]
async fn the_raw_websocket_has_no_frames_of_sockjs() {
    let gateway = Gateway::with(&[("SOCKJS__HEARTBEAT", "50ms")]).await;
    for path in ["/ws/websocket", "/ws"] {
        let mut client = connect(&gateway, path).await;
        client.send(Message::text("SEND\nreceipt:r-1\n\n\0")).await.unwrap();
        let error = text(&mut client).await;
        assert!(error.starts_with("ERROR\n") && error.contains("\nreceipt-id:r-1\n"), "{error}");
        assert_eq!(close(&mut client).await.map(|frame| u16::from(frame.code)), Some(4400));
    }
}

#[tokio::test]
async fn a_frame_larger_than_what_is_read_at_once_is_taken_whole() {
    let gateway = Gateway::start().await;
    let body = "x".repeat(200 * 1024);
    let frame = format!("SEND\nreceipt:r-1\ncontent-length:{}\n\n{body}\0", body.len());
    let mut raw = connect(&gateway, "/ws").await;
    raw.send(Message::text(frame.clone())).await.unwrap();
    assert!(text(&mut raw).await.contains("\nreceipt-id:r-1\n"));

    let mut client = connect(&gateway, &format!("{}/websocket", gateway.session())).await;
    assert_eq!(text(&mut client).await, "o");
    // The frame over several messages.
    for part in frame.as_bytes().chunks(50_000) {
        let message = serde_json::json!([str::from_utf8(part).unwrap()]);
        client.send(Message::text(message.to_string())).await.unwrap();
    }
    assert_error(&text(&mut client).await);

    let path = gateway.session();
    assert_eq!(gateway.post(&format!("{path}/xhr"), "").await.body().await, "o\n");
    let message = serde_json::json!([frame]).to_string();
    assert_eq!(gateway.post(&format!("{path}/xhr_send"), &message).await.status, 204);
    assert_error(gateway.post(&format!("{path}/xhr"), "").await.body().await.trim_end());
}
