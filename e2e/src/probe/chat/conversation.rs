//! Which conversation the terminal client enters, and what was said there before.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    demo,
    endpoints::Endpoints,
    rest::{Rest, Session, code_of, id_in},
};

/// Lines of history that are shown at the start.
const HISTORY: u32 = 10;

/// A line of history.
pub struct Line {
    pub seq: i64,
    pub sender: i64,
    pub at: String,
    pub text: String,
}

/// Finds the conversation and joins it where that is allowed; the demonstration's channel is made if need be.
pub async fn enter(endpoints: &Endpoints, rest: &Rest, session: &Session, wanted: Option<&str>) -> Result<i64> {
    let token = &session.token;
    let id = match wanted {
        Some(wanted) => match wanted.parse() {
            Ok(id) => Some(id),
            Err(_) => {
                let found = demo::find(rest, token, wanted).await?;
                Some(found.with_context(|| format!("{} is in no conversation named {wanted:?}", session.username))?)
            }
        },
        None => demo::remembered_channel(endpoints).or(demo::find(rest, token, demo::CHANNEL).await?),
    };
    let Some(id) = id else {
        let id = rest.create_conversation(token, "channel", demo::CHANNEL, &[]).await?;
        demo::remember(endpoints, id, &[])?;
        return Ok(id);
    };
    match rest.join(token, id).await {
        // Members of what can't be joined are in it already; the subscription says if not.
        Err(error) if matches!(code_of(&error), Some("conflict" | "forbidden")) => Ok(id),
        Err(error) => Err(error.context(format!("joining conversation {id}"))),
        Ok(_) => Ok(id),
    }
}

/// The latest messages, oldest first.
pub async fn latest(rest: &Rest, token: &str, conversation: i64) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for item in rest.history(token, conversation, HISTORY).await? {
        lines.push(Line {
            seq: item["seq"].as_i64().context("a message without seq")?,
            sender: id_in(&item, "sender_id")?,
            at: text(&item, "created_at"),
            text: text(&item, "body"),
        });
    }
    lines.sort_by_key(|line| line.seq);
    Ok(lines)
}

fn text(item: &Value, field: &str) -> String {
    item[field].as_str().unwrap_or_default().to_owned()
}
