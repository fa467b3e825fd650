//! Conversations and their members: every change takes the next `seq` of the conversation, every change of a
//! person's memberships the next `user_seq` of that person.

pub mod read;
pub mod store;
pub mod visibility;

use std::sync::Arc;

use chassis::seeded::{self, Bug};
use chrono::{DateTime, Utc};
use proto::{
    Code, ConversationId, EventType, UserId, WorkspaceId,
    event::{MemberData, MembershipData},
};
use serde::{Deserialize, Serialize};
use sqlx::MySqlConnection;

use crate::{
    config,
    db::{Db, lock_epoch},
    error::{Error, Refusal, Result, is_duplicate, refuse},
    outbox::{self, Event},
    snowflake::Snowflakes,
    user,
};
use store::Locked;

/// What a conversation is: who sees what of it, and who may change its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Channel,
    Dm,
    Group,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Channel => "channel",
            Kind::Dm => "dm",
            Kind::Group => "group",
        }
    }

    /// The kind of a stored text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "channel" => Ok(Kind::Channel),
            "dm" => Ok(Kind::Dm),
            "group" => Ok(Kind::Group),
            other => Err(Error::Internal(anyhow::anyhow!("a stored conversation has the kind {other:?}"))),
        }
    }
}

/// Who may join a channel unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    Public,
    Private,
}

impl Visibility {
    pub const fn as_str(self) -> &'static str {
        match self {
            Visibility::Public => "public",
            Visibility::Private => "private",
        }
    }
}

/// A conversation as its members see it.
#[derive(Clone, Debug, Serialize)]
pub struct Conversation {
    pub id: ConversationId,
    pub workspace_id: WorkspaceId,
    pub kind: Kind,
    pub visibility: Visibility,
    pub name: Option<String>,
    pub created_by: UserId,
    #[serde(serialize_with = "crate::rest::time")]
    pub created_at: DateTime<Utc>,
    pub archived: bool,
    pub last_seq: i64,
    pub message_no: i64,
}

/// What a creation asks for; `members` without the creator.
#[derive(Clone, Debug)]
pub struct NewConversation {
    pub kind: Kind,
    pub visibility: Visibility,
    pub name: Option<String>,
    pub members: Vec<UserId>,
    pub workspace: WorkspaceId,
}

/// What people do with conversations. Cheap to clone.
#[derive(Clone)]
pub struct Conversations {
    pub db: Db,
    pub ids: Arc<Snowflakes>,
    pub limits: config::Conversations,
}

/// Why somebody leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Left,
    Removed,
}

impl Conversations {
    /// Makes a conversation with its first members; the creator owns it. A dm that is there already is returned, with
    /// `false`.
    pub async fn create(&self, creator: UserId, new: NewConversation) -> Result<(Conversation, bool)> {
        let new = self.validated(creator, new)?;
        let id = self.ids.next().map_err(|error| Refusal::unavailable(error.to_string()))?;
        let at = crate::now();
        let conversation = Conversation {
            id: ConversationId(id),
            workspace_id: new.workspace,
            kind: new.kind,
            visibility: new.visibility,
            name: new.name,
            created_by: creator,
            created_at: at,
            archived: false,
            last_seq: 1,
            message_no: 0,
        };
        let pair = dm_pair(new.kind, creator, &new.members);
        let mut members = new.members;
        members.push(creator);
        members.sort_unstable();
        let made = self
            .db
            .transact("create a conversation", |tx| {
                let (conversation, members, pair) = (conversation.clone(), members.clone(), pair.clone());
                Box::pin(async move { create(tx, &conversation, &members, pair.as_deref()).await })
            })
            .await;
        match (made, pair) {
            (Ok(()), _) => Ok((conversation, true)),
            (Err(Error::Database(error)), Some(pair)) if is_duplicate(&error) => {
                let found = store::by_dm_pair(&self.db, conversation.workspace_id, &pair).await?;
                let found = found.ok_or(Error::Database(error))?;
                Ok((found, false))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn validated(&self, creator: UserId, mut new: NewConversation) -> Result<NewConversation> {
        new.members.retain(|member| *member != creator);
        new.members.sort_unstable();
        new.members.dedup();
        let others = new.members.len();
        if others >= self.limits.max_added {
            let limit = self.limits.max_added;
            return refuse(
                Code::InvalidBody,
                format!("member_ids: one call takes at most {limit} members, you included"),
            );
        }
        if let Some(name) = &new.name {
            let limit = self.limits.max_name;
            if name.trim().is_empty() || name.chars().count() > limit || name.contains(char::is_control) {
                return refuse(Code::InvalidBody, format!("name: expected 1 to {limit} printable characters"));
            }
        }
        match new.kind {
            Kind::Channel if new.name.is_none() => refuse(Code::InvalidBody, "name: a channel needs one"),
            Kind::Dm if others != 1 => refuse(Code::InvalidBody, "member_ids: a dm is with one other person"),
            Kind::Group if others == 0 => refuse(Code::InvalidBody, "member_ids: a group is with other people"),
            Kind::Channel => Ok(new),
            Kind::Dm | Kind::Group => Ok(NewConversation { visibility: Visibility::Private, ..new }),
        }
    }

    /// Adds people; those who are members already stay as they are. A dm has the two it has.
    pub async fn add(&self, actor: UserId, id: ConversationId, mut users: Vec<UserId>) -> Result<()> {
        users.sort_unstable();
        users.dedup();
        if users.len() > self.limits.max_added {
            let limit = self.limits.max_added;
            return refuse(Code::InvalidBody, format!("user_ids: one call adds at most {limit} members"));
        }
        let max_group = self.limits.max_group_members;
        self.db
            .transact("add members", |tx| {
                let users = users.clone();
                Box::pin(async move {
                    let epoch = lock_epoch(tx).await?;
                    let locked = Locked::take(tx, id).await?;
                    locked.require_member(tx, actor).await?;
                    if locked.kind == Kind::Dm {
                        return refuse(Code::Forbidden, "a dm has two members");
                    }
                    if locked.kind == Kind::Group {
                        let there = store::open_members(tx, id, &users).await?.len();
                        if store::member_count(tx, id).await? + users.len() - there > max_group {
                            let message = format!("user_ids: a group has at most {max_group} members");
                            return refuse(Code::InvalidBody, message);
                        }
                    }
                    join(tx, &locked, epoch, actor, users, "added").await
                })
            })
            .await
    }

    /// Joins a public channel. Who is a member already stays one.
    pub async fn join(&self, user: UserId, id: ConversationId) -> Result<()> {
        self.db
            .transact("join", |tx| {
                Box::pin(async move {
                    let epoch = lock_epoch(tx).await?;
                    let locked = Locked::take(tx, id).await?;
                    if locked.kind != Kind::Channel || locked.visibility != Visibility::Public {
                        return refuse(Code::Forbidden, "only a public channel is joined unasked");
                    }
                    join(tx, &locked, epoch, user, vec![user], "joined").await
                })
            })
            .await
    }

    pub async fn leave(&self, user: UserId, id: ConversationId) -> Result<()> {
        self.end(user, user, id, Leave::Left).await
    }

    /// Removes somebody else; owners and admins may.
    pub async fn remove(&self, actor: UserId, user: UserId, id: ConversationId) -> Result<()> {
        let reason = if actor == user { Leave::Left } else { Leave::Removed };
        self.end(actor, user, id, reason).await
    }

    async fn end(&self, actor: UserId, user: UserId, id: ConversationId, reason: Leave) -> Result<()> {
        self.db
            .transact("leave", |tx| {
                Box::pin(async move {
                    let epoch = lock_epoch(tx).await?;
                    let locked = Locked::take(tx, id).await?;
                    let role = locked.require_member(tx, actor).await?;
                    if locked.kind == Kind::Dm {
                        return refuse(Code::Forbidden, "a dm can't be left");
                    }
                    if reason == Leave::Removed && role == "member" {
                        return refuse(Code::Forbidden, "only an owner or admin removes members");
                    }
                    end(tx, &locked, epoch, actor, user, reason).await
                })
            })
            .await
    }
}

/// Both ids of a dm, the smaller first.
fn dm_pair(kind: Kind, creator: UserId, members: &[UserId]) -> Option<String> {
    let other = *members.first().filter(|_| kind == Kind::Dm)?;
    Some(format!("{}:{}", creator.min(other), creator.max(other)))
}

async fn create(
    tx: &mut MySqlConnection,
    conversation: &Conversation,
    members: &[UserId],
    dm_pair: Option<&str>,
) -> Result<()> {
    let (id, at, actor) = (conversation.id, conversation.created_at, conversation.created_by);
    let epoch = lock_epoch(tx).await?;
    let user_seqs = take_user_seqs(tx, members).await?;
    store::insert(tx, conversation, dm_pair).await?;
    let mut events =
        vec![Event::of_conversation(EventType::ConversationCreated, id, 1, epoch, actor, at, conversation)];
    let mut rows = Vec::with_capacity(members.len());
    for (user, user_seq) in user_seqs {
        let role = if user == actor { "owner" } else { "member" };
        rows.push(store::NewMember { user, joined_seq: 1, user_seq, role });
        events.push(started(id, conversation.kind, user, user_seq, 1, role, epoch, actor, at));
    }
    store::insert_members(tx, id, &rows).await?;
    outbox::insert(tx, &events).await
}

/// New members under the conversation's lock: each takes a seq for USER_JOINED, and a user_seq.
async fn join(
    tx: &mut MySqlConnection,
    locked: &Locked,
    epoch: i64,
    actor: UserId,
    mut users: Vec<UserId>,
    reason: &str,
) -> Result<()> {
    locked.require_open()?;
    users.sort_unstable();
    users.dedup();
    let members = store::open_members(tx, locked.id, &users).await?;
    users.retain(|user| !members.contains(user));
    if users.is_empty() {
        return Ok(());
    }
    let first_seq = locked.take_seqs(tx, users.len()).await?;
    let at = crate::now();
    let role = "member";
    let mut rows = Vec::with_capacity(users.len());
    let mut events = Vec::with_capacity(users.len() * 2);
    for (seq, (user, user_seq)) in (first_seq..).zip(take_user_seqs(tx, &users).await?) {
        let data = MemberData { user_id: user, role: role.to_owned(), reason: reason.to_owned() };
        let joined = Event::of_conversation(EventType::UserJoined, locked.id, seq, epoch, actor, at, data);
        events.push(joined.about(user, user_seq));
        if !seeded::on(Bug::JoinWithoutUserSeq) {
            events.push(started(locked.id, locked.kind, user, user_seq, seq, role, epoch, actor, at));
        }
        rows.push(store::NewMember { user, joined_seq: seq, user_seq, role });
    }
    store::insert_members(tx, locked.id, &rows).await?;
    outbox::insert(tx, &events).await
}

/// The end of one membership: its last seq is the USER_LEFT.
async fn end(
    tx: &mut MySqlConnection,
    locked: &Locked,
    epoch: i64,
    actor: UserId,
    user: UserId,
    reason: Leave,
) -> Result<()> {
    let Some((joined_seq, role)) = store::open_membership(tx, locked.id, user).await? else {
        return refuse(Code::NotFound, format!("{user} is not a member"));
    };
    let seq = locked.take_seqs(tx, 1).await?;
    let (_, user_seq) = take_user_seqs(tx, &[user]).await?[0];
    store::close_membership(tx, locked.id, user, joined_seq, seq, user_seq).await?;
    let at = crate::now();
    let reason = if reason == Leave::Left { "left" } else { "removed" };
    let data = MemberData { user_id: user, role: role.clone(), reason: reason.to_owned() };
    let left =
        Event::of_conversation(EventType::UserLeft, locked.id, seq, epoch, actor, at, data).about(user, user_seq);
    let data = MembershipData {
        conversation_id: locked.id,
        kind: locked.kind.as_str().to_owned(),
        role,
        joined_seq,
        left_seq: Some(seq),
    };
    let ended = Event::of_user(EventType::MembershipEnded, user, Some(user_seq), epoch, actor, at, data);
    outbox::insert(tx, &[left, ended]).await
}

/// The next `user_seq` of each user, their rows locked in id order; users who do not exist are refused by id.
async fn take_user_seqs(tx: &mut MySqlConnection, users: &[UserId]) -> Result<Vec<(UserId, i64)>> {
    let missing = user::store::missing(tx, users).await?;
    if let Some(user) = missing.first() {
        return refuse(Code::NotFound, format!("there is no user {user}"));
    }
    store::take_user_seqs(tx, users).await
}

#[allow(clippy::too_many_arguments)] // one row's columns, in order
fn started(
    conversation_id: ConversationId,
    kind: Kind,
    user: UserId,
    user_seq: i64,
    joined_seq: i64,
    role: &str,
    epoch: i64,
    actor: UserId,
    at: DateTime<Utc>,
) -> Event {
    let data = MembershipData {
        conversation_id,
        kind: kind.as_str().to_owned(),
        role: role.to_owned(),
        joined_seq,
        left_seq: None,
    };
    Event::of_user(EventType::MembershipStarted, user, Some(user_seq), epoch, actor, at, data)
}
