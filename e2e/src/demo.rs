//! The two people of the demonstration and their channel.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{
    endpoints::Endpoints,
    people::{PASSWORD, write_private},
    rest::{Rest, Session, code_of, id_in, items},
};

/// Everybody of the demonstration meets here.
pub const CHANNEL: &str = "general";

/// Logs a person of the demonstration in, on first use with a new account.
pub async fn session(rest: &Rest, name: &str) -> Result<Session> {
    match rest.login(name, PASSWORD).await {
        Err(error) if code_of(&error).is_some() => {
            rest.register(name, PASSWORD).await.with_context(|| format!("{name} can neither log in nor register"))
        }
        outcome => outcome,
    }
}

/// Finds a conversation of that name among those of the caller.
pub async fn find(rest: &Rest, token: &str, name: &str) -> Result<Option<i64>> {
    let conversations = items(rest.get("/api/v1/conversations?limit=100", token).await?);
    let found = conversations.iter().find(|conversation| conversation["name"] == name);
    found.map(|conversation| id_in(conversation, "id")).transpose()
}

/// The channel of the demonstration with both people in it: found, or made.
pub async fn channel(rest: &Rest, alice: &Session, bob: &Session) -> Result<i64> {
    if let Some(id) = find(rest, &alice.token, CHANNEL).await? {
        rest.join(&bob.token, id).await?;
        return Ok(id);
    }
    rest.create_conversation(&alice.token, "channel", CHANNEL, &[bob.user_id]).await
}

/// Writes `demo.json` beside `endpoints.json`: for scripts, and for [`remembered_channel`].
pub fn remember(endpoints: &Endpoints, channel: i64, people: &[Session]) -> Result<()> {
    let users: Vec<_> = people
        .iter()
        .map(|person| {
            let Session { user_id, username, token } = person;
            let email = format!("{username}@example.com");
            json!({ "id": user_id.to_string(), "username": username, "email": email,
                    "password": PASSWORD, "access_token": token })
        })
        .collect();
    let content = json!({ "channel": { "id": channel.to_string(), "name": CHANNEL }, "users": users });
    write_private(&endpoints.folder.join("demo.json"), &serde_json::to_vec_pretty(&content)?)
}

/// The channel that [`remember`] wrote: how somebody new finds it.
pub fn remembered_channel(endpoints: &Endpoints) -> Option<i64> {
    let text = std::fs::read_to_string(endpoints.folder.join("demo.json")).ok()?;
    let content: serde_json::Value = serde_json::from_str(&text).ok()?;
    id_in(&content["channel"], "id").ok()
}
