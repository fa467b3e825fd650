//! What is wrong is refused with a clear code and text, on each interface, and the neighbours notice nothing.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use e2e::{
    grpc::{self, Grpc, service_token},
    rest::Session,
    stomp::{Client, Frame, Incoming, Options, Refusal, connect_raw},
    testing::Stack,
    tokens::{Signer, claims_of, tampered, unsigned},
};
use http::{Method, StatusCode};
use proto::rpc::v1::CreateMessageRequest;
use serde_json::json;

/// Above every limit for the text of a message, below those for a frame and a request, in bytes.
const TOO_LARGE: usize = 128 * 1024;
/// Above the limit for a frame.
const FAR_TOO_LARGE: usize = 512 * 1024;
/// An id that nothing has.
const NOBODY: i64 = 9_000_000_000_000_000_000;

/// Two people in one conversation at the gateway under test, who talk on.
struct Neighbours {
    conversation: i64,
    sender: Client,
    receiver: Client,
    said: usize,
}

impl Neighbours {
    async fn settle(stack: &Stack) -> Result<Self> {
        let [nina, noah] = stack.people(["nina", "noah"]).await?;
        let conversation = stack.channel(&[&nina, &noah]).await?;
        let sender = stack.connect(&nina, 0).await?;
        let mut receiver = stack.connect(&noah, 0).await?;
        receiver.subscribe(&format!("/topic/conversations/{conversation}")).await?;
        receiver.event("RESUMED").await?;
        Ok(Self { conversation, sender, receiver, said: 0 })
    }

    /// A message goes through, and nothing else has come to them.
    async fn notice_nothing(&mut self) -> Result<()> {
        self.said += 1;
        let text = format!("quiet {}", self.said);
        let receipt = self.sender.say(self.conversation, &text).await?;
        let next = self.receiver.message().await?;
        ensure!(next.number("seq") == Some(receipt.seq) && next.json()["data"]["body"] == text, "{next:?}");
        Ok(())
    }
}

/// Somebody with a conversation, and one of somebody else.
struct Scene {
    stack: Stack,
    mallory: Session,
    other: Session,
    mine: i64,
    theirs: i64,
}

impl Scene {
    async fn set() -> Result<Self> {
        let stack = Stack::get()?;
        let [mallory, other] = stack.people(["mallory", "other"]).await?;
        let mine = stack.channel(&[&mallory]).await?;
        let theirs = stack.channel(&[&other]).await?;
        Ok(Self { stack, mallory, other, mine, theirs })
    }

    /// Tokens that are not accepted, with the code that says so.
    async fn bad_tokens(&self) -> Result<Vec<(&'static str, String, &'static str)>> {
        let endpoints = &self.stack.endpoints;
        let (ours, strangers) = tokio::try_join!(Signer::of_the_stack(endpoints), Signer::of_a_stranger(endpoints))?;
        let token = &self.mallory.token;
        let claims = claims_of(token)?;
        let good = || claims.clone();
        let hour_ago = claims.iat - 3600;
        Ok(vec![
            ("no token at all", "nonsense".to_owned(), "unauthenticated"),
            ("expired", ours.sign(&proto::Claims { iat: hour_ago, exp: hour_ago + 600, ..good() })?, "token_expired"),
            (
                "another issuer",
                ours.sign(&proto::Claims { iss: "https://elsewhere.example".to_owned(), ..good() })?,
                "unauthenticated",
            ),
            (
                "another audience",
                ours.sign(&proto::Claims { aud: "elsewhere".to_owned(), ..good() })?,
                "unauthenticated",
            ),
            ("another issuer's key", strangers.sign(&good())?, "unauthenticated"),
            ("HS256", ours.sign_with_a_secret(&good(), b"public key as secret")?, "unauthenticated"),
            ("alg none", unsigned(token)?, "unauthenticated"),
            (
                "a changed claim",
                tampered(token, |claims| claims.sub = self.other.user_id.to_string())?,
                "unauthenticated",
            ),
        ])
    }

    /// Mallory's token without the scope to write.
    async fn read_only_token(&self) -> Result<String> {
        let claims = claims_of(&self.mallory.token)?;
        let signer = Signer::of_the_stack(&self.stack.endpoints).await?;
        signer.sign(&proto::Claims { scope: "messages:read".to_owned(), ..claims })
    }
}

fn send_to(destination: &str, body: &str) -> Frame {
    Frame::new("SEND").with("destination", destination).with_body(body.to_owned())
}

#[tokio::test]
async fn stomp_requests_that_are_wrong_are_refused_by_their_codes_and_the_connection_stays() -> Result<()> {
    let scene = Scene::set().await?;
    let (mine, theirs) = (scene.mine, scene.theirs);
    let mut neighbours = Neighbours::settle(&scene.stack).await?;
    let mut client = scene.stack.connect(&scene.mallory, 0).await?;

    let messages = |conversation: &str| format!("/app/conversations/{conversation}/messages");
    let (to_mine, to_theirs) = (messages(&mine.to_string()), messages(&theirs.to_string()));
    let large = json!({ "body": "x".repeat(TOO_LARGE) }).to_string();
    let spoofed = json!({ "body": "x", "sender_id": scene.other.user_id.to_string() }).to_string();
    let good = r#"{"body":"x"}"#;
    let sends = [
        ("unknown destination", "/app/nowhere", good, "invalid_destination"),
        ("a destination to subscribe to", &format!("/topic/conversations/{mine}"), good, "invalid_destination"),
        ("an id that is none", &messages("seven"), good, "invalid_destination"),
        ("id 0", &messages("0"), good, "invalid_destination"),
        ("an id beyond 64 bits", &messages("99999999999999999999"), good, "invalid_destination"),
        ("an id of nothing", &messages(&NOBODY.to_string()), good, "not_found"),
        ("somebody else's conversation", &to_theirs, good, "not_a_member"),
        ("typing in somebody else's", &format!("/app/conversations/{theirs}/typing"), "{}", "not_a_member"),
        ("no JSON", &to_mine, "hello", "invalid_body"),
        ("JSON, no object", &to_mine, "[1]", "invalid_body"),
        ("no text", &to_mine, "{}", "invalid_body"),
        ("an empty text", &to_mine, r#"{"body":""}"#, "invalid_body"),
        ("a number for the text", &to_mine, r#"{"body":5}"#, "invalid_body"),
        ("an unknown kind", &to_mine, r#"{"body":"x","kind":"no such kind"}"#, "invalid_body"),
        ("too large", &to_mine, &large, "body_too_large"),
        ("a spoofed sender", &to_mine, &spoofed, "spoofed_sender"),
        ("no JSON for a resume", "/app/resume", "x", "invalid_body"),
        ("a bad token for a renewal", "/app/token", r#"{"access_token":"x"}"#, "unauthenticated"),
    ];
    for (what, destination, body, code) in sends {
        let refused = client.request(send_to(destination, body)).await.expect_err(what);
        let refusal = refused.downcast_ref::<Refusal>().with_context(|| format!("{what}: {refused:#}"))?;
        assert_eq!((refusal.code.as_str(), refusal.fatal), (code, false), "{what}: {refusal}");
        assert!(refusal.message.len() > 10, "{what}: says what was wrong: {refusal}");
    }
    for (what, destination, code) in [
        ("an unknown destination", "/topic/nowhere", "invalid_destination"),
        ("an id that is none", "/topic/conversations/seven", "invalid_destination"),
        ("an id of nothing", &format!("/topic/conversations/{NOBODY}"), "not_found"),
        ("somebody else's conversation", &format!("/topic/conversations/{theirs}"), "not_a_member"),
    ] {
        let refused = client.subscribe(destination).await.expect_err(what);
        let refusal = refused.downcast_ref::<Refusal>().with_context(|| format!("{what}: {refused:#}"))?;
        assert_eq!((refusal.code.as_str(), refusal.fatal), (code, false), "{what}: {refusal}");
    }
    // The connection is as good as before, and nothing of all that was stored.
    let receipt = client.say(mine, "well-formed").await?;
    assert_eq!(receipt.seq, 2, "behind CONVERSATION_CREATED");
    neighbours.notice_nothing().await
}

#[tokio::test]
async fn a_refusal_that_nobody_listens_to_is_an_error_and_the_end() -> Result<()> {
    let scene = Scene::set().await?;
    let mut neighbours = Neighbours::settle(&scene.stack).await?;
    let mut client = Client::connect(&scene.stack.gateway(0), &scene.mallory.token).await?;
    let refused = client.request(send_to("/app/nowhere", "{}")).await.unwrap_err();
    let refusal = refused.downcast_ref::<Refusal>().context("a refusal")?;
    assert_eq!((refusal.code.as_str(), refusal.fatal), ("invalid_destination", true));
    assert_eq!(client.closed().await?.code, Some(4400));
    neighbours.notice_nothing().await
}

#[tokio::test]
async fn tokens_that_are_not_accepted_end_a_connection_before_it_begins() -> Result<()> {
    let scene = Scene::set().await?;
    let mut neighbours = Neighbours::settle(&scene.stack).await?;
    let service = service_token(&scene.stack.endpoints, None).await?;
    let mut tokens: Vec<_> =
        scene.bad_tokens().await?.into_iter().map(|(what, token, code)| (what, Some(token), code)).collect();
    tokens.push(("none", None, "unauthenticated"));
    tokens.push(("a service's", Some(service), "unauthenticated"));
    for (what, token, code) in tokens {
        let (mut writer, mut reader) = connect_raw(&scene.stack.gateway(0)).await?;
        let mut connect = Frame::new("CONNECT").with("accept-version", "1.2").with("host", "switchboard");
        if let Some(token) = token {
            connect = connect.with("Authorization", format!("Bearer {token}"));
        }
        writer.send(&connect).await?;
        let Incoming::Frame { frame, .. } = reader.next().await? else { anyhow::bail!("{what}: closed without ERROR") };
        let refusal = Refusal::of(&frame).with_context(|| format!("{what}: {frame:?}"))?;
        assert_eq!((refusal.code.as_str(), refusal.fatal), (code, true), "{what}: {refusal}");
        let Incoming::Closed(closed) = reader.next().await? else { anyhow::bail!("{what}: not closed") };
        assert_eq!(closed.code, Some(4001), "{what}");
    }
    neighbours.notice_nothing().await
}

#[tokio::test]
async fn what_is_no_stomp_ends_that_connection_only() -> Result<()> {
    let scene = Scene::set().await?;
    let mut neighbours = Neighbours::settle(&scene.stack).await?;
    let token = &scene.mallory.token;
    let large = send_to("/app/nowhere", &"x".repeat(FAR_TOO_LARGE)).encode();
    let large = String::from_utf8(large)?;
    for (what, bytes, code) in [
        ("an unknown command", "SHOUT\n\n\0", "protocol_error"),
        ("a header without colon", "SEND\ndestination\n\n\0", "protocol_error"),
        ("an unknown escape", "SEND\ndestination:/app/\\x\n\n\0", "protocol_error"),
        ("a body longer than content-length", "SEND\ndestination:/app/x\ncontent-length:1\n\nab\0", "protocol_error"),
        ("a content-length that is no number", "SEND\ndestination:/app/x\ncontent-length:x\n\n\0", "protocol_error"),
        ("SEND without destination", "SEND\n\n\0", "protocol_error"),
        ("SUBSCRIBE without id", "SUBSCRIBE\ndestination:/user/queue/events\n\n\0", "protocol_error"),
        ("UNSUBSCRIBE of nothing", "UNSUBSCRIBE\nid:nothing\n\n\0", "protocol_error"),
        ("CONNECT again", "CONNECT\naccept-version:1.2\nhost:x\n\n\0", "protocol_error"),
        ("a frame for clients", "MESSAGE\nmessage-id:1\n\n\0", "protocol_error"),
        ("a frame that is far too large", &large, "body_too_large"),
    ] {
        let mut client = Client::connect(&scene.stack.gateway(0), token).await?;
        client.subscribe("/user/queue/errors").await?;
        client.write_raw(bytes).await?;
        let refusal = client.refusal().await.with_context(|| what.to_owned())?;
        assert_eq!((refusal.code.as_str(), refusal.fatal), (code, true), "{what}: {refusal}");
        assert_eq!(client.closed().await?.code, Some(4400), "{what}");
    }

    let (mut writer, mut reader) = connect_raw(&scene.stack.gateway(0)).await?;
    writer.send(&send_to("/app/nowhere", "{}")).await?;
    let Incoming::Frame { frame, .. } = reader.next().await? else { anyhow::bail!("closed without ERROR") };
    assert_eq!(Refusal::of(&frame).context("a refusal")?.code, "protocol_error", "SEND before CONNECT");

    let options = Options { headers: vec![("accept-version".to_owned(), "9.9".to_owned())], ..Options::new(token) };
    // Of a repeated header the first counts: this one asks for 1.2 and is well.
    Client::connect_with(&scene.stack.gateway(0), &options).await?.disconnect().await?;
    let (mut writer, mut reader) = connect_raw(&scene.stack.gateway(0)).await?;
    writer.send(&Frame::new("CONNECT").with("accept-version", "9.9").with("passcode", token)).await?;
    let Incoming::Frame { frame, .. } = reader.next().await? else { anyhow::bail!("closed without ERROR") };
    assert_eq!(Refusal::of(&frame).context("a refusal")?.code, "protocol_error", "no common version");
    neighbours.notice_nothing().await
}

#[tokio::test]
async fn a_token_without_the_scope_to_write_may_listen_and_not_send() -> Result<()> {
    let scene = Scene::set().await?;
    let token = scene.read_only_token().await?;
    let mut client = Client::connect(&scene.stack.gateway(0), &token).await?;
    client.subscribe("/user/queue/errors").await?;
    client.subscribe(&format!("/topic/conversations/{}", scene.mine)).await?;
    let refused = client.say(scene.mine, "x").await.unwrap_err();
    assert_eq!(refused.downcast_ref::<Refusal>().map(|refusal| refusal.code.as_str()), Some("forbidden"));
    let path = format!("/api/v1/conversations/{}/messages", scene.mine);
    let refused = scene.stack.rest.post(&path, &token, &json!({ "body": "x" })).await.unwrap_err();
    assert_eq!(e2e::rest::code_of(&refused), Some("forbidden"));
    Ok(())
}

#[tokio::test]
async fn rest_requests_that_are_wrong_get_problem_documents_with_their_codes() -> Result<()> {
    let scene = Scene::set().await?;
    let mut neighbours = Neighbours::settle(&scene.stack).await?;
    let token = scene.mallory.token.as_str();
    let of = |conversation: &str| format!("/api/v1/conversations/{conversation}/messages");
    let (mine, theirs) = (of(&scene.mine.to_string()), of(&scene.theirs.to_string()));
    let nobody = of(&NOBODY.to_string());
    let spoofed = json!({ "body": "x", "sender_id": scene.other.user_id.to_string() }).to_string();
    let large = json!({ "body": "x".repeat(TOO_LARGE) }).to_string();
    let good = r#"{"body":"x"}"#;
    let get = Method::GET;
    let post = Method::POST;
    for (what, method, path, body, status, code) in [
        ("no such path", &get, "/api/v1/nowhere", "", 404, "not_found"),
        ("an id that is none", &get, &of("seven"), "", 404, "not_found"),
        ("an id of nothing", &get, &nobody, "", 404, "not_found"),
        ("somebody else's history", &get, &theirs, "", 403, "not_a_member"),
        ("somebody else's conversation", &post, &theirs, good, 403, "not_a_member"),
        ("an id of nothing to post to", &post, &nobody, good, 404, "not_found"),
        ("no JSON", &post, &mine, "hello", 400, "invalid_body"),
        ("no text", &post, &mine, "{}", 400, "invalid_body"),
        ("an empty text", &post, &mine, r#"{"body":""}"#, 400, "invalid_body"),
        ("too large", &post, &mine, &large, 413, "body_too_large"),
        ("a spoofed sender", &post, &mine, &spoofed, 403, "spoofed_sender"),
        ("an unknown kind", &post, "/api/v1/conversations", r#"{"kind":"club","name":"x"}"#, 400, "invalid_body"),
        ("a login without password", &post, "/auth/login", r#"{"login":"x"}"#, 400, "invalid_body"),
        ("a wrong password", &post, "/auth/login", r#"{"login":"x","password":"y"}"#, 401, "unauthenticated"),
        (
            "a bad e-mail",
            &post,
            "/auth/register",
            r#"{"email":"x","username":"yy","password":"zzzzzzzzzzzz"}"#,
            400,
            "invalid_body",
        ),
    ] {
        let content_type = (!body.is_empty()).then_some("application/json");
        let body = Bytes::from(body.to_owned());
        let answer = scene.stack.rest.raw(method.clone(), path, Some(token), content_type, body).await?;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{what}: {}", answer.body);
        assert!(answer.body["detail"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {}", answer.body);
    }
    let body = Bytes::from_static(good.as_bytes());
    let answer = scene.stack.rest.raw(post.clone(), &mine, None, Some("application/json"), body.clone()).await?;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "no token");
    for (what, token, code) in scene.bad_tokens().await? {
        let json = Some("application/json");
        let answer = scene.stack.rest.raw(post.clone(), &mine, Some(&token), json, body.clone()).await?;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, code), "{what}: {}", answer.body);
    }
    neighbours.notice_nothing().await
}

#[tokio::test]
async fn grpc_requests_that_are_wrong_get_a_status_and_the_stable_code() -> Result<()> {
    use tonic::Code;
    let scene = Scene::set().await?;
    let endpoints = &scene.stack.endpoints;
    let mut neighbours = Neighbours::settle(&scene.stack).await?;
    let good = || CreateMessageRequest {
        conversation_id: scene.mine,
        body: "x".to_owned(),
        client_message_id: uuid::Uuid::now_v7().to_string(),
        ..CreateMessageRequest::default()
    };
    let refused = async |token: Option<&str>, request: CreateMessageRequest| -> Result<tonic::Status> {
        let core = Grpc::connect(&endpoints.core[0], token).await?;
        core.messages().create_message(request).await.err().context("it was accepted")
    };

    let mallory = Some(scene.mallory.token.as_str());
    let large = CreateMessageRequest { body: "x".repeat(TOO_LARGE), ..good() };
    for (what, request, status, code) in [
        ("no conversation", CreateMessageRequest { conversation_id: 0, ..good() }, Code::NotFound, "not_found"),
        ("an id of nothing", CreateMessageRequest { conversation_id: NOBODY, ..good() }, Code::NotFound, "not_found"),
        (
            "somebody else's",
            CreateMessageRequest { conversation_id: scene.theirs, ..good() },
            Code::PermissionDenied,
            "not_a_member",
        ),
        (
            "an empty text",
            CreateMessageRequest { body: String::new(), ..good() },
            Code::InvalidArgument,
            "invalid_body",
        ),
        ("too large", large, Code::InvalidArgument, "body_too_large"),
        (
            "another sender",
            CreateMessageRequest { sender_id: scene.other.user_id, ..good() },
            Code::PermissionDenied,
            "spoofed_sender",
        ),
    ] {
        let refusal = refused(mallory, request).await.context(what)?;
        assert_eq!((refusal.code(), grpc::code_of(&refusal)), (status, code), "{what}: {refusal:?}");
        assert!(!refusal.message().is_empty(), "{what}");
    }
    let refusal = refused(None, good()).await.context("no token")?;
    assert_eq!((refusal.code(), grpc::code_of(&refusal)), (Code::Unauthenticated, "unauthenticated"));
    for (what, token, code) in scene.bad_tokens().await? {
        let refusal = refused(Some(&token), good()).await.context(what)?;
        assert_eq!((refusal.code(), grpc::code_of(&refusal)), (Code::Unauthenticated, code), "{what}");
    }
    let read_only = scene.read_only_token().await?;
    let refusal = refused(Some(&read_only), good()).await.context("no scope to write")?;
    assert_eq!((refusal.code(), grpc::code_of(&refusal)), (Code::PermissionDenied, "forbidden"));

    // A service may name a sender only with the scope for it.
    let for_mallory = || CreateMessageRequest { sender_id: scene.mallory.user_id, ..good() };
    let without = service_token(endpoints, Some("connections:write")).await?;
    let refusal = refused(Some(&without), for_mallory()).await.context("a service without the scope")?;
    assert_eq!((refusal.code(), grpc::code_of(&refusal)), (Code::PermissionDenied, "spoofed_sender"));
    let with = service_token(endpoints, Some("messages:send_as")).await?;
    let core = Grpc::connect(&endpoints.core[0], Some(&with)).await?;
    core.messages().create_message(for_mallory()).await?;
    neighbours.notice_nothing().await
}
