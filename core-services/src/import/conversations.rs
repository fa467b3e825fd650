//! Conversations of an import: made and filled as their creator would, in calls of bounded size.

use std::collections::HashMap;

use proto::{Code, UserId, WorkspaceId};

use super::record::{self, Outcome};
use crate::{
    conversation::{Conversations, Kind, NewConversation, Visibility, store},
    error::{Result, refuse},
    user,
};

/// Makes the conversation, or takes the one of this kind and name that the creator made before, and adds who is missing.
/// `batch` bounds how many names one statement looks up.
pub async fn write(conversations: &Conversations, record: record::Conversation, batch: usize) -> Result<Outcome> {
    if record.kind != Kind::Dm && record.name.is_none() {
        return refuse(Code::InvalidBody, "name: an imported channel or group needs one, to be found again");
    }
    let mut people = lookup(conversations, &record, batch).await?;
    let creator = people.remove(0);
    people.sort_unstable();
    people.dedup();
    people.retain(|member| *member != creator);
    let limit = conversations.limits.max_group_members;
    if record.kind == Kind::Group && people.len() >= limit {
        return refuse(Code::InvalidBody, format!("members: a group has at most {limit} members"));
    }
    let found = match &record.name {
        Some(name) => store::made_by(&conversations.db, creator, record.kind, name).await?,
        None => None,
    };
    // The creator is one of those that a creation takes.
    let first = people.len().min(conversations.limits.max_added.saturating_sub(1));
    let (conversation_id, created, missing) = match found {
        Some(id) => (id, false, &people[..]),
        None => {
            let new = NewConversation {
                kind: record.kind,
                visibility: record.visibility.unwrap_or(Visibility::Public),
                name: record.name,
                members: people[..first].to_vec(),
                workspace: WorkspaceId(crate::user::store::DEFAULT_WORKSPACE),
            };
            let (made, created) = conversations.create(creator, new).await?;
            (made.id, created, &people[first..])
        }
    };
    for members in missing.chunks(conversations.limits.max_added) {
        conversations.add(creator, conversation_id, members.to_vec()).await?;
    }
    Ok(Outcome::Conversation { conversation_id, created })
}

/// The ids of the creator and the members, in this order; a name that nobody has is refused.
async fn lookup(conversations: &Conversations, record: &record::Conversation, batch: usize) -> Result<Vec<UserId>> {
    let names = || std::iter::once(&record.creator).chain(&record.members);
    let normalised: Vec<String> = names().map(|name| user::name::normalise(name)).collect();
    let mut known = HashMap::new();
    for chunk in normalised.chunks(batch) {
        known.extend(user::store::ids_by_username(&conversations.db, chunk).await?);
    }
    let mut ids = Vec::with_capacity(normalised.len());
    for (written, name) in names().zip(&normalised) {
        match known.get(name) {
            Some(id) => ids.push(*id),
            None => return refuse(Code::NotFound, format!("there is no user {written:?}")),
        }
    }
    Ok(ids)
}
