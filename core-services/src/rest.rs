//! REST: the router is the table of contents.

pub mod accounts;
pub mod conversations;
mod extract;
pub mod messages;
mod problem;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{delete, get, patch, post, put},
};
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::app::App;

/// All routes; what is none of them is `not_found`.
pub fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/auth/register", post(accounts::register))
        .route("/auth/login", post(accounts::login))
        .route("/auth/refresh", post(accounts::refresh))
        .route("/auth/logout", post(accounts::logout))
        .route("/auth/validate", post(accounts::validate))
        .route("/auth/me", get(accounts::me))
        .route("/auth/profile/{user}", get(accounts::profile))
        .route("/oauth2/token", post(accounts::token))
        .route("/.well-known/jwks.json", get(accounts::jwks))
        .route("/api/v1/users", get(accounts::search))
        .route("/api/v1/users/me", patch(accounts::rename))
        .route("/api/v1/client-config", get(accounts::client_config))
        .route("/api/v1/conversations", post(conversations::create).get(conversations::mine))
        .route("/api/v1/conversations/{id}", get(conversations::one))
        .route("/api/v1/conversations/{id}/join", post(conversations::join))
        .route("/api/v1/conversations/{id}/leave", post(conversations::leave))
        .route("/api/v1/conversations/{id}/members", get(conversations::members).post(conversations::add))
        .route("/api/v1/conversations/{id}/members/{user}", delete(conversations::remove))
        .route("/api/v1/conversations/{id}/messages", get(messages::history).post(messages::create))
        .route("/api/v1/conversations/{id}/messages/{message}", get(messages::one))
        .route("/api/v1/conversations/{id}/events", get(messages::events))
        .route("/api/v1/conversations/{id}/read", put(messages::read))
        .route("/openapi.json", get(openapi))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(middleware::from_fn(problem::request_id))
        .layer(DefaultBodyLimit::max(app.config.server.max_body))
        .with_state(Arc::clone(app))
}

async fn openapi() -> Json<Value> {
    Json(serde_json::from_str(include_str!("../openapi.json")).expect("a test reads it"))
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it back as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// `items` were asked for one more than `limit`, which says whether there is a next page.
    fn of(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Json<Self> {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(cursor);
        Json(Self { items, next_cursor })
    }
}

/// Times in JSON: RFC 3339, UTC, microseconds.
pub fn time<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&proto::event::format_time(*at))
}

fn done() -> Json<Value> {
    Json(json!({ "ok": true }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn every_route_is_in_the_description_and_nothing_else() {
        let described: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
        let described = described["paths"].as_object().unwrap();
        let source = include_str!("rest.rs");
        let routes: Vec<&str> = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        for route in &routes {
            assert!(described.contains_key(*route) || *route == "/openapi.json", "{route} is not described");
        }
        for path in described.keys() {
            assert!(routes.contains(&path.as_str()), "{path} is described and not served");
        }
    }
}
