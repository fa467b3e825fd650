//! Conversations and members.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use proto::{UserId, WorkspaceId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Page, done,
    extract::{Body, Conversation, Me, Params, Segments, limit, path_id},
};
use crate::{
    app::App,
    conversation::{self, Kind, NewConversation, Visibility, read},
    error::{Refusal, Result},
};

const DEFAULT_WORKSPACE: WorkspaceId = WorkspaceId(1);

#[derive(Deserialize)]
pub struct Create {
    kind: Kind,
    name: Option<String>,
    visibility: Option<Visibility>,
    #[serde(default)]
    member_ids: Vec<UserId>,
    workspace_id: Option<WorkspaceId>,
}

/// 201; or 200 with the dm that these two have already.
pub async fn create(State(app): State<Arc<App>>, Me(me): Me, Body(body): Body<Create>) -> Result<Response> {
    let workspace = body.workspace_id.unwrap_or(DEFAULT_WORKSPACE);
    if workspace != DEFAULT_WORKSPACE {
        return Err(Refusal::new(proto::Code::NotFound, format!("there is no workspace {workspace}")).into());
    }
    let new = NewConversation {
        kind: body.kind,
        visibility: body.visibility.unwrap_or(Visibility::Public),
        name: body.name,
        members: body.member_ids,
        workspace,
    };
    let (conversation, made) = app.conversations.create(me, new).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(conversation)).into_response())
}

#[derive(Deserialize)]
pub struct Cursor {
    limit: Option<usize>,
    cursor: Option<i64>,
}

pub async fn mine(
    State(app): State<Arc<App>>,
    Me(me): Me,
    Params(query): Params<Cursor>,
) -> Result<Json<Page<read::Listed>>> {
    let limit = limit(query.limit);
    let listed = read::mine(&app.db, me, query.cursor.unwrap_or(0), limit + 1).await?;
    Ok(Page::of(listed, limit, |one| one.conversation.id.to_string()))
}

pub async fn one(
    State(app): State<Arc<App>>,
    Me(me): Me,
    Conversation(id): Conversation,
) -> Result<Json<conversation::Conversation>> {
    Ok(Json(read::one(&app.db, me, id).await?))
}

pub async fn join(State(app): State<Arc<App>>, Me(me): Me, Conversation(id): Conversation) -> Result<Json<Value>> {
    app.conversations.join(me, id).await?;
    Ok(done())
}

pub async fn leave(State(app): State<Arc<App>>, Me(me): Me, Conversation(id): Conversation) -> Result<Json<Value>> {
    app.conversations.leave(me, id).await?;
    Ok(done())
}

pub async fn members(
    State(app): State<Arc<App>>,
    Me(me): Me,
    Conversation(id): Conversation,
    Params(query): Params<Cursor>,
) -> Result<Json<Page<Value>>> {
    read::require_member(&app.db, me, id).await?;
    let limit = limit(query.limit);
    let members = read::members(&app.db, id, query.cursor.unwrap_or(0), limit + 1).await?;
    let Json(page) = Page::of(members, limit, |(user, _)| user.to_string());
    let items = page.items.into_iter().map(|(user, role)| json!({ "user_id": user, "role": role })).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

#[derive(Deserialize)]
pub struct Add {
    user_ids: Vec<UserId>,
}

pub async fn add(
    State(app): State<Arc<App>>,
    Me(me): Me,
    Conversation(id): Conversation,
    Body(body): Body<Add>,
) -> Result<Json<Value>> {
    app.conversations.add(me, id, body.user_ids).await?;
    Ok(done())
}

pub async fn remove(
    State(app): State<Arc<App>>,
    Me(me): Me,
    Conversation(id): Conversation,
    Segments((_, user)): Segments<(String, String)>,
) -> Result<Json<Value>> {
    app.conversations.remove(me, path_id(&user, "user")?, id).await?;
    Ok(done())
}
