//! A small client of core's REST interface.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{
    Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

/// An answer larger than this is refused, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// From the request to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Requests go to the cores in turn.
#[derive(Clone, Debug)]
pub struct Rest {
    client: Client<HttpConnector, Full<Bytes>>,
    bases: Arc<[String]>,
    next: Arc<AtomicUsize>,
}

/// Somebody who is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub user_id: i64,
    pub username: String,
    pub token: String,
}

/// What core answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// `null` when the body is no JSON.
    pub body: Value,
}

/// Core refused; the code is one of the protocol's stable codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{request}: {status} {code}: {detail}")]
pub struct RestRefusal {
    pub request: String,
    pub status: StatusCode,
    pub code: String,
    pub detail: String,
}

impl Rest {
    /// A client for these cores.
    pub fn new(bases: &[String]) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, bases: bases.into(), next: Arc::default() }
    }

    /// Sends one request, of which every part may be wrong on purpose.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Answer> {
        let base = &self.bases[self.next.fetch_add(1, Ordering::Relaxed) % self.bases.len()];
        let url = format!("{base}{path}");
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(body))?;
        let exchange = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?.to_bytes();
            Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
        };
        let outcome: Result<Answer> = tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in time")?;
        outcome.with_context(|| url)
    }

    /// Sends a request with a JSON body, or none, and gives the JSON of the answer.
    ///
    /// # Errors
    /// [`RestRefusal`] for every status but 2xx.
    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Result<Value> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let content_type = body.map(|_| "application/json");
        let answer = self.raw(method.clone(), path, token, content_type, bytes).await?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        Err(answer.refusal(&format!("{method} {path}")).into())
    }

    pub async fn get(&self, path: &str, token: &str) -> Result<Value> {
        self.call(Method::GET, path, Some(token), None).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(token), Some(body)).await
    }

    /// Makes an account; the e-mail address is `<username>@example.com`.
    pub async fn register(&self, username: &str, password: &str) -> Result<Session> {
        let email = format!("{username}@example.com");
        let body = json!({ "email": email, "username": username, "password": password });
        Session::of(&self.call(Method::POST, "/auth/register", None, Some(&body)).await?, username)
    }

    pub async fn login(&self, username: &str, password: &str) -> Result<Session> {
        let body = json!({ "login": username, "password": password });
        Session::of(&self.call(Method::POST, "/auth/login", None, Some(&body)).await?, username)
    }

    /// Logs in, or makes the account when there is none.
    pub async fn login_or_register(&self, username: &str, password: &str) -> Result<Session> {
        match self.register(username, password).await {
            Err(error) if code_of(&error) == Some("conflict") => self.login(username, password).await,
            outcome => outcome,
        }
    }

    /// Makes a conversation of that kind (`channel`, `dm`, `group`) with these members beside the caller.
    pub async fn create_conversation(&self, token: &str, kind: &str, name: &str, members: &[i64]) -> Result<i64> {
        let members: Vec<_> = members.iter().map(ToString::to_string).collect();
        let mut body = json!({ "kind": kind, "member_ids": members });
        if kind != "dm" {
            body["name"] = name.into();
        }
        if kind == "channel" {
            body["visibility"] = "public".into();
        }
        id_in(&self.post("/api/v1/conversations", token, &body).await?, "id")
    }

    /// Adds people, as a member who may.
    pub async fn add_members(&self, token: &str, conversation: i64, users: &[i64]) -> Result<Value> {
        let users: Vec<_> = users.iter().map(ToString::to_string).collect();
        let body = json!({ "user_ids": users });
        self.post(&format!("/api/v1/conversations/{conversation}/members"), token, &body).await
    }

    pub async fn remove_member(&self, token: &str, conversation: i64, user: i64) -> Result<Value> {
        let path = format!("/api/v1/conversations/{conversation}/members/{user}");
        self.call(Method::DELETE, &path, Some(token), None).await
    }

    pub async fn join(&self, token: &str, conversation: i64) -> Result<Value> {
        self.post(&format!("/api/v1/conversations/{conversation}/join"), token, &json!({})).await
    }

    /// The latest messages, at most `limit`, newest as the server orders them.
    pub async fn history(&self, token: &str, conversation: i64, limit: u32) -> Result<Vec<Value>> {
        let path = format!("/api/v1/conversations/{conversation}/messages?limit={limit}");
        Ok(items(self.get(&path, token).await?))
    }

    /// The event log behind `after_seq`, whole: pages are read until the end.
    pub async fn events(&self, token: &str, conversation: i64, after_seq: i64) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        let mut after = after_seq;
        loop {
            let path = format!("/api/v1/conversations/{conversation}/events?after_seq={after}&limit=100");
            let page = items(self.get(&path, token).await?);
            let Some(last) = page.last() else { return Ok(events) };
            after = last["seq"].as_i64().context("an event without seq")?;
            events.extend(page);
        }
    }

    /// The display name of a user, else the username.
    pub async fn name_of(&self, token: &str, user: i64) -> Result<String> {
        let profile = self.get(&format!("/auth/profile/{user}"), token).await?;
        let profile = profile.get("user").unwrap_or(&profile);
        let name = ["display_name", "username"].into_iter().find_map(|field| profile[field].as_str());
        Ok(name.context("a profile without name")?.to_owned())
    }
}

impl Answer {
    /// The stable code of a refusal.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    fn refusal(&self, request: &str) -> RestRefusal {
        RestRefusal {
            request: request.to_owned(),
            status: self.status,
            code: self.code().to_owned(),
            detail: self.body["detail"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

impl Session {
    fn of(answer: &Value, username: &str) -> Result<Self> {
        let token = answer["access_token"].as_str().context("an answer without access_token")?.to_owned();
        Ok(Self { user_id: id_in(&answer["user"], "id")?, username: username.to_owned(), token })
    }
}

/// The stable code of a failed [`Rest::call`].
pub fn code_of(error: &anyhow::Error) -> Option<&str> {
    Some(error.downcast_ref::<RestRefusal>()?.code.as_str())
}

/// The id in a field: a decimal string.
pub fn id_in(object: &Value, field: &str) -> Result<i64> {
    let text = object[field].as_str().with_context(|| format!("no text {field:?} in {object}"))?;
    text.parse().with_context(|| format!("{field:?} is {text:?}, which is no id"))
}

/// The items of a list's answer.
pub fn items(mut answer: Value) -> Vec<Value> {
    match answer["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
