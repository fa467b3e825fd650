//! Accounts and tokens: registration, login, refresh, logout; keys and service clients.

use chassis::jwt::Verifier;
use proto::rpc::v1::{VerifyAccessTokenRequest, auth_service_client::AuthServiceClient};
use serde_json::{Value, json};

use crate::harness::{Core, SERVICE, code, request, user};

#[tokio::test]
async fn a_refresh_token_is_used_once_and_its_reuse_ends_the_session() {
    let core = Core::start().await;
    core.register("alice").await;
    let taken = json!({ "email": "other@example.com", "username": "ALICE", "password": "correct horse 1" });
    let (status, answer) = core.call("POST", "/auth/register", None, taken).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("conflict")));
    let wrong = json!({ "login": "alice", "password": "wrong horse 1" });
    let (status, answer) = core.call("POST", "/auth/login", None, wrong).await;
    assert_eq!((status, answer["code"].as_str()), (401, Some("unauthenticated")));

    let login = json!({ "login": "Alice@Example.com", "password": "correct horse 1" });
    let login = core.post("/auth/login", None, &login).await;
    let first = json!({ "refresh_token": login["refresh_token"] });
    let refreshed = core.post("/auth/refresh", None, &first).await;
    assert_eq!(user(&refreshed).id, user(&login).id);
    assert_ne!(refreshed["refresh_token"], login["refresh_token"]);

    // Somebody else has it: the session ends, the token that replaced it with it.
    assert_eq!(core.call("POST", "/auth/refresh", None, first).await.0, 401);
    let second = json!({ "refresh_token": refreshed["refresh_token"] });
    assert_eq!(core.call("POST", "/auth/refresh", None, second).await.0, 401);
    let shown = json!({ "access_token": refreshed["access_token"] });
    assert_eq!(core.post("/auth/validate", None, &shown).await["reason"], "revoked");
    core.finish().await;
}

#[tokio::test]
async fn a_logged_out_token_is_revoked_and_other_sessions_are_not() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let other = json!({ "login": "alice", "password": "correct horse 1" });
    let other = user(&core.post("/auth/login", None, &other).await);
    core.post("/auth/logout", Some(&alice), &Value::Null).await;

    let (status, problem) = core.call("GET", "/auth/me", Some(&alice), Value::Null).await;
    assert_eq!((status, problem["code"].as_str()), (401, Some("unauthenticated")));
    assert_eq!(core.call("GET", "/auth/me", Some(&other), Value::Null).await.0, 200);
    let mut auth = AuthServiceClient::new(core.grpc.clone());
    let refused = auth.verify_access_token(alice.request(VerifyAccessTokenRequest::default())).await.unwrap_err();
    assert_eq!(code(&refused), "unauthenticated");
    let asked = VerifyAccessTokenRequest { access_token: alice.token.clone() };
    let answer = auth.verify_access_token(other.request(asked)).await.unwrap().into_inner();
    assert_eq!((answer.valid, answer.reason.as_str()), (false, "revoked"));
    let asked = VerifyAccessTokenRequest { access_token: other.token.clone() };
    let answer = auth.verify_access_token(other.request(asked)).await.unwrap().into_inner();
    assert_eq!((answer.valid, answer.user_id), (true, other.id));
    core.finish().await;
}

#[tokio::test]
async fn a_service_gets_its_scopes_for_its_secret_and_the_published_keys_verify_its_token() {
    let core = Core::start().await;
    let url = format!("{}/oauth2/token", core.rest);
    let form = "application/x-www-form-urlencoded";
    let ask = |content_type: &'static str, body: String| {
        let url = url.clone();
        async move { request("POST", &url, &[("content-type", content_type)], body).await.unwrap() }
    };
    let grant = |secret: &str| format!("grant_type=client_credentials&client_id={}&client_secret={secret}", SERVICE.0);
    let secret = SERVICE.1.replace(' ', "+");
    for (content_type, body, status, error) in [
        (form, grant("wrong"), 401, "invalid_client"),
        (form, format!("{}&scope=root", grant(&secret)), 400, "invalid_scope"),
        (form, grant(&secret).replace("client_credentials", "password"), 400, "unsupported_grant_type"),
        (form, "client_id=gateway".to_owned(), 400, "invalid_request"),
        ("application/json", grant(&secret), 400, "invalid_request"),
    ] {
        let (is, answer) = ask(content_type, body).await;
        assert_eq!((is, answer["error"].as_str()), (status, Some(error)), "{answer}");
    }
    let (status, answer) = ask(form, format!("{}&scope=connections:write", grant(&secret))).await;
    assert_eq!((status, answer["scope"].as_str()), (200, Some("connections:write")));

    let keys = chassis::http::get_json(&format!("{}/.well-known/jwks.json", core.rest)).await.unwrap();
    let verifier = Verifier::new(core.rest.clone());
    verifier.set_keys(&keys);
    let claims = verifier.verify(answer["access_token"].as_str().unwrap()).unwrap();
    assert_eq!((claims.client_id.as_deref(), claims.user_id()), (Some(SERVICE.0), None));
    core.finish().await;
}
