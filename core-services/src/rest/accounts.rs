//! Accounts, tokens and people.

use std::sync::Arc;

use axum::{
    Form, Json,
    extract::{State, rejection::FormRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use proto::{Code, claims::USER_SCOPES};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Page, done,
    extract::{Body, Me, Params, Segments, limit, path_id},
};
use crate::{
    app::App,
    auth::{
        clients::GrantError,
        sessions::Login,
        tokens::{Caller, Rejection},
    },
    error::{Result, refuse},
    user::{Registration, User, name, store},
};

#[derive(Deserialize)]
pub struct Register {
    email: String,
    username: String,
    password: String,
    display_name: Option<String>,
}

pub async fn register(State(app): State<Arc<App>>, Body(body): Body<Register>) -> Result<Response> {
    let Register { email, username, password, display_name } = body;
    let (user, login) = app.users.register(Registration { email, username, password, display_name }).await?;
    Ok((StatusCode::CREATED, Json(logged_in(&app, &user, login)?)).into_response())
}

#[derive(Deserialize)]
pub struct Credentials {
    login: String,
    password: String,
}

pub async fn login(State(app): State<Arc<App>>, Body(body): Body<Credentials>) -> Result<Json<Value>> {
    let (user, login) = app.users.login(&body.login, body.password).await?;
    Ok(Json(logged_in(&app, &user, login)?))
}

fn logged_in(app: &App, user: &User, login: Login) -> Result<Value> {
    Ok(json!({
        "user": user,
        "access_token": app.tokens.for_user(user.id, &login.session)?,
        "refresh_token": login.refresh_token,
        "token_type": "Bearer",
        "expires_in": app.tokens.ttl().as_secs(),
        "scope": USER_SCOPES,
    }))
}

#[derive(Deserialize)]
pub struct Refresh {
    refresh_token: String,
}

pub async fn refresh(State(app): State<Arc<App>>, Body(body): Body<Refresh>) -> Result<Json<Value>> {
    let (user, login) = app.users.sessions.refresh(&body.refresh_token).await?;
    let user = app.users.me(user).await?;
    Ok(Json(logged_in(&app, &user, login)?))
}

/// Ends the session of the token that is shown.
pub async fn logout(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Value>> {
    match &caller.claims.sid {
        Some(session) => app.users.sessions.revoke(session).await?,
        None => refuse(Code::Forbidden, "a service's token has no session")?,
    }
    Ok(done())
}

#[derive(Deserialize)]
pub struct Validate {
    access_token: String,
}

/// An invalid token is an answer, not an error.
pub async fn validate(State(app): State<Arc<App>>, Body(body): Body<Validate>) -> Result<Json<Value>> {
    let invalid = |reason: &str| Json(json!({ "valid": false, "reason": reason }));
    match app.tokens.check(&body.access_token).await {
        Ok(Caller { claims }) => Ok(Json(json!({
            "valid": true,
            "user_id": claims.user_id(),
            "client_id": claims.client_id,
            "scope": claims.scope,
            "expires_at": claims.exp,
        }))),
        Err(Rejection::Token(error)) => Ok(invalid(error.reason())),
        Err(Rejection::Revoked) => Ok(invalid("revoked")),
        Err(Rejection::Failed(error)) => Err(error),
    }
}

pub async fn me(State(app): State<Arc<App>>, Me(me): Me) -> Result<Json<User>> {
    Ok(Json(app.users.me(me).await?))
}

pub async fn profile(State(app): State<Arc<App>>, Me(_): Me, Segments(user): Segments<String>) -> Result<Json<User>> {
    Ok(Json(app.users.profile(path_id(&user, "user")?).await?))
}

#[derive(Deserialize)]
pub struct Rename {
    display_name: String,
}

pub async fn rename(State(app): State<Arc<App>>, Me(me): Me, Body(body): Body<Rename>) -> Result<Json<User>> {
    Ok(Json(app.users.rename(me, &body.display_name).await?))
}

#[derive(Deserialize)]
pub struct Search {
    #[serde(default)]
    username: String,
    #[serde(default)]
    cursor: String,
    limit: Option<usize>,
}

/// People by the beginning of their username.
pub async fn search(State(app): State<Arc<App>>, Me(_): Me, Params(query): Params<Search>) -> Result<Json<Page<User>>> {
    let limit = limit(query.limit);
    let prefix = name::normalise(&query.username);
    let found = store::by_prefix(&app.db, &prefix, &query.cursor, limit + 1).await?;
    let Json(page) = Page::of(found, limit, |(name, _)| name.clone());
    let items = page.items.into_iter().map(|(_, user)| user).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Where browsers find the gateways.
pub async fn client_config(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "gateway_urls": app.config.server.gateway_urls }))
}

pub async fn jwks(State(app): State<Arc<App>>) -> Json<jsonwebtoken::jwk::JwkSet> {
    Json(app.tokens.published().clone())
}

#[derive(Deserialize)]
pub struct TokenRequest {
    grant_type: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    client_secret: String,
    scope: Option<String>,
}

/// The client credentials grant of RFC 6749 section 4.4, with its own form of errors (section 5.2).
pub async fn token(State(app): State<Arc<App>>, form: Result<Form<TokenRequest>, FormRejection>) -> Result<Response> {
    let no_store = [("cache-control", "no-store")];
    let error = |status, error: &str, description: &str| {
        (status, no_store, Json(json!({ "error": error, "error_description": description }))).into_response()
    };
    let body = match form {
        Ok(Form(body)) => body,
        // 413 when it is too large; what it is not, the description says.
        Err(rejection) => {
            let status = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            return Ok(error(status, "invalid_request", &rejection.body_text()));
        }
    };
    if body.grant_type != "client_credentials" {
        let description = "the only grant type is client_credentials";
        return Ok(error(StatusCode::BAD_REQUEST, "unsupported_grant_type", description));
    }
    match app.clients.grant(&body.client_id, &body.client_secret, body.scope.as_deref()) {
        Ok(scopes) => {
            let answer = json!({
                "access_token": app.tokens.for_service(&body.client_id, &scopes)?,
                "token_type": "Bearer",
                "expires_in": app.tokens.ttl().as_secs(),
                "scope": scopes.join(" "),
            });
            Ok((no_store, Json(answer)).into_response())
        }
        Err(GrantError::InvalidClient) => {
            Ok(error(StatusCode::UNAUTHORIZED, "invalid_client", "the client is unknown or its secret is wrong"))
        }
        Err(GrantError::InvalidScope) => {
            Ok(error(StatusCode::BAD_REQUEST, "invalid_scope", "the client may not have all of these scopes"))
        }
    }
}
