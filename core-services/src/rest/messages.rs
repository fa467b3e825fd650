//! Messages, the event log, and read positions.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use proto::{Code, MessageId, rpc::v1};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    Page, done,
    extract::{Body, Conversation, Me, Params, Segments, header, limit, path_id, refuse_other_sender},
};
use crate::{
    app::App,
    auth::tokens::Caller,
    conversation::{
        read::{self, Held},
        visibility::{Range, may_see},
    },
    error::{Refusal, Result, refuse},
    message::{
        Message,
        acks::{self, Position, Positions},
        store::{self, Direction},
        validate,
    },
};

#[derive(Deserialize)]
pub struct Create {
    body: String,
    client_message_id: Option<String>,
    thread_root_id: Option<MessageId>,
    kind: Option<String>,
    #[serde(default)]
    attachment_ids: Vec<String>,
    sender_id: Option<String>,
}

/// 201; 200 for an exact retry. The key of a retry is `client_message_id`, or the header `Idempotency-Key`.
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Conversation(id): Conversation,
    headers: HeaderMap,
    Body(body): Body<Create>,
) -> Result<Response> {
    refuse_other_sender(caller.user()?, body.sender_id.as_deref())?;
    let attachment_ids = body.attachment_ids.iter().map(|id| path_id(id, "attachment")).collect::<Result<_>>()?;
    let request = v1::CreateMessageRequest {
        conversation_id: id.0,
        body: body.body,
        client_message_id: body
            .client_message_id
            .or_else(|| header(&headers, "idempotency-key").map(str::to_owned))
            .unwrap_or_default(),
        thread_root_id: body.thread_root_id.map_or(0, |id| id.0),
        kind: body.kind.unwrap_or_default(),
        attachment_ids,
        ..v1::CreateMessageRequest::default()
    };
    let message = validate(&caller, request, &app.config.messages, header(&headers, "traceparent"))?;
    let committed = app.writers.commit(message).await?;
    let status = if committed.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    let answer = json!({
        "id": committed.id,
        "conversation_id": committed.conversation,
        "seq": committed.seq,
        "message_no": committed.message_no,
        "created_at": proto::event::format_time(committed.created_at),
        "client_message_id": committed.client_message_id,
        "epoch": committed.epoch,
        "duplicate": committed.duplicate,
    });
    Ok((status, Json(answer)).into_response())
}

#[derive(Deserialize)]
pub struct History {
    before: Option<MessageId>,
    after: Option<MessageId>,
    around: Option<MessageId>,
    limit: Option<usize>,
}

/// Ascending. Without a message to start from: the newest.
pub async fn history(
    State(app): State<Arc<App>>,
    Me(me): Me,
    Conversation(id): Conversation,
    Params(query): Params<History>,
) -> Result<Json<Page<Message>>> {
    let visible = visible(&app, me, id).await?;
    let limit = limit(query.limit);
    let (anchor, direction) = match (query.before, query.after, query.around) {
        (None, None, None) => (None, Direction::Before),
        (Some(id), None, None) => (Some(id), Direction::Before),
        (None, Some(id), None) => (Some(id), Direction::After),
        (None, None, Some(id)) => (Some(id), Direction::Before),
        _ => return refuse(Code::InvalidBody, "the query: expected one of before, after and around"),
    };
    let from = match anchor {
        None => i64::MAX,
        Some(message) => seq_of(&app, id, message, &visible).await?,
    };
    let db = &app.db;
    let mut messages = if query.around.is_some() {
        // The message itself belongs to the newer half.
        let mut older = store::history(db, id, &visible, from, Direction::Before, limit / 2).await?;
        older.extend(store::history(db, id, &visible, from - 1, Direction::After, limit - limit / 2).await?);
        return Ok(Json(Page { items: older, next_cursor: None }));
    } else {
        store::history(db, id, &visible, from, direction, limit + 1).await?
    };
    let more = messages.len() > limit;
    if more {
        match direction {
            Direction::Before => drop(messages.remove(0)),
            Direction::After => messages.truncate(limit),
        }
    }
    let edge = if direction == Direction::Before { messages.first() } else { messages.last() };
    let next_cursor = edge.filter(|_| more).map(|message| message.id.to_string());
    Ok(Json(Page { items: messages, next_cursor }))
}

pub async fn one(
    State(app): State<Arc<App>>,
    Me(me): Me,
    Conversation(id): Conversation,
    Segments((_, message)): Segments<(String, String)>,
) -> Result<Json<Message>> {
    let visible = visible(&app, me, id).await?;
    let seq = seq_of(&app, id, path_id(&message, "message")?, &visible).await?;
    let mut found = store::by_seq(&app.db, &[(id.0, seq)]).await?;
    match found.remove(&id) {
        Some(message) => Ok(Json(message)),
        None => refuse(Code::NotFound, format!("there is no message {message} in {id}")),
    }
}

#[derive(Deserialize)]
pub struct Events {
    #[serde(default)]
    after_seq: i64,
    limit: Option<usize>,
}

/// A page of the event log.
#[derive(Serialize)]
pub struct EventPage {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
    /// False: the log goes back no further than the first item.
    complete: bool,
}

/// The event log, as far as the caller may see it: envelopes byte for byte as they were sent.
pub async fn events(
    State(app): State<Arc<App>>,
    Me(me): Me,
    Conversation(id): Conversation,
    Params(query): Params<Events>,
) -> Result<Json<EventPage>> {
    let access = read::access_of(&app.db, me, id).await?;
    let visible = member_ranges(&access, id)?;
    let limit = limit(query.limit);
    // A former member's log ends where their membership did.
    let up_to = visible.last().and_then(|range| range.to).map_or(access.head, |to| to.min(access.head));
    let events = read::events(&app.db, id, query.after_seq, up_to, limit + 1).await?;
    let after_seq = query.after_seq.max(0);
    let complete = events.first().map_or(after_seq >= up_to, |first| first.seq == after_seq + 1);
    let more = events.len() > limit;
    let last = events.get(limit.min(events.len()).wrapping_sub(1)).map(|event| event.seq.to_string());
    let mut items = Vec::with_capacity(limit);
    for event in events.into_iter().take(limit).filter(|event| may_see(&visible, event.seq)) {
        items.push(RawValue::from_string(event.payload).map_err(anyhow::Error::from)?);
    }
    Ok(Json(EventPage { items, next_cursor: last.filter(|_| more), complete }))
}

#[derive(Deserialize)]
pub struct Read {
    seq: i64,
}

/// Moves the caller's read position; never backwards.
pub async fn read(
    State(app): State<Arc<App>>,
    Me(me): Me,
    Conversation(id): Conversation,
    Body(body): Body<Read>,
) -> Result<Json<Value>> {
    let mut access = read::access_of(&app.db, me, id).await?;
    member_ranges(&access, id)?;
    if body.seq > access.head {
        // An event is delivered a moment before its commit is visible to all: the lock waits for it.
        access = match read::access(&app.db, &[(me, id)], Held::wait()).await?.pop() {
            Some(found) => found.unlocked()?.unwrap_or(access),
            None => access,
        };
    }
    if body.seq < 0 || body.seq > access.head {
        return refuse(Code::InvalidBody, format!("seq: {} is not within 0 and the head {}", body.seq, access.head));
    }
    let mut positions = Positions::new();
    acks::raise(&mut positions, me, id, Position { delivered_seq: body.seq, read_seq: body.seq });
    acks::store(&app.db, &positions).await?;
    Ok(done())
}

async fn visible(app: &App, me: proto::UserId, id: proto::ConversationId) -> Result<Vec<Range>> {
    member_ranges(&read::access_of(&app.db, me, id).await?, id)
}

/// What the caller may see; who never was a member is refused.
fn member_ranges(access: &read::Access, id: proto::ConversationId) -> Result<Vec<Range>> {
    if access.memberships.is_empty() {
        return refuse(Code::NotAMember, format!("you are not a member of {id}"));
    }
    Ok(access.visible())
}

/// The seq of a message that the caller may see; what they may not see is not there.
async fn seq_of(app: &App, id: proto::ConversationId, message: MessageId, visible: &[Range]) -> Result<i64> {
    let seq = store::seq_of(&app.db, id, message).await?;
    seq.filter(|seq| may_see(visible, *seq))
        .ok_or_else(|| Refusal::new(Code::NotFound, format!("there is no message {message} in {id}")).into())
}
