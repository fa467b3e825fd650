//! Memberships of users, under the lock of each user's row.

use std::collections::HashMap;

use proto::{ConversationId, UserId};
use sqlx::{AssertSqlSafe, Row as _};

use super::{CHUNK, Held, heads, numbers};
use crate::{
    conversation::Kind,
    db::{Db, placeholders},
    error::Result,
};

/// A person's memberships.
#[derive(Clone, Debug)]
pub struct UserState {
    pub user: UserId,
    pub user_seq: i64,
    pub memberships: Vec<Membership>,
    /// That began behind the `user_seq` which the asker knows, and are over.
    pub ended: Vec<Ended>,
}

#[derive(Clone, Debug)]
pub struct Membership {
    pub conversation: ConversationId,
    pub kind: Kind,
    pub role: String,
    pub joined_seq: i64,
    pub joined_user_seq: i64,
    /// None: somebody holds the conversation's row.
    pub head: Option<i64>,
    pub read_seq: i64,
}

/// A membership of the past, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub conversation: ConversationId,
    pub joined_seq: i64,
    pub joined_user_seq: i64,
    pub left_seq: i64,
    pub left_user_seq: i64,
}

/// Each user's `user_seq` under a shared lock of its own, the memberships after it, the heads after those. So the
/// memberships are at least as new as the `user_seq`. Users who do not exist are left out, those whose row is locked are
/// named. `known`: who wants the memberships that have come and gone since that `user_seq` too. `held` is for the users'
/// rows, `held_heads` for the conversations'.
pub async fn user_states(
    db: &Db,
    users: &[UserId],
    known: &HashMap<UserId, i64>,
    held: Held,
    held_heads: Held,
) -> Result<(Vec<UserState>, Vec<UserId>)> {
    let (mut states, mut locked) = (Vec::with_capacity(users.len()), Vec::new());
    let seqs = numbers(db, "user_seq FROM users", users.iter().map(|user| user.0), held).await?;
    locked.extend(seqs.locked.into_iter().map(UserId));
    let seqs: Vec<(i64, i64)> = seqs.of.into_iter().collect();
    for seqs in seqs.chunks(CHUNK) {
        let marks = placeholders(seqs.len(), 1);
        let members = format!(
            "SELECT m.user_id, m.conversation_id, c.kind, m.role, m.joined_seq, m.joined_user_seq, COALESCE(a.read_seq, 0)
             FROM conversation_members m JOIN conversations c ON c.id = m.conversation_id
             LEFT JOIN message_acks a ON a.user_id = m.user_id AND a.conversation_id = m.conversation_id
             WHERE m.user_id IN ({marks}) AND m.left_seq IS NULL ORDER BY m.user_id, m.conversation_id"
        );
        let mut members = sqlx::query(AssertSqlSafe(members));
        for (user, _) in seqs {
            members = members.bind(*user);
        }
        let members = members.fetch_all(db).await?;
        // Behind the others: what ends in between is in both, and not in neither.
        let mut ended = ended_since(db, seqs, known).await?;
        let conversations: Vec<_> = members.iter().map(|row| ConversationId(row.get(1))).collect();
        let heads = heads(db, &conversations, held_heads).await?;
        let mut of_user: HashMap<i64, Vec<Membership>> = HashMap::new();
        for row in &members {
            let conversation = ConversationId(row.get(1));
            let head = heads.of.get(&conversation.0).copied();
            if head.is_none() && !heads.locked.contains(&conversation.0) {
                continue;
            }
            of_user.entry(row.get(0)).or_default().push(Membership {
                conversation,
                kind: Kind::parse(row.get(2))?,
                role: row.get(3),
                joined_seq: row.get(4),
                joined_user_seq: row.get(5),
                head,
                read_seq: row.get(6),
            });
        }
        states.extend(seqs.iter().map(|(user, user_seq)| UserState {
            user: UserId(*user),
            user_seq: *user_seq,
            memberships: of_user.remove(user).unwrap_or_default(),
            ended: ended.remove(user).unwrap_or_default(),
        }));
    }
    Ok((states, locked))
}

/// By user; `seqs` are id and `user_seq`: who has the known one has nothing to be read.
async fn ended_since(db: &Db, seqs: &[(i64, i64)], known: &HashMap<UserId, i64>) -> Result<HashMap<i64, Vec<Ended>>> {
    let behind = seqs.iter().filter_map(|&(user, user_seq)| {
        let known = *known.get(&UserId(user))?;
        (known < user_seq).then_some((user, known))
    });
    let behind: Vec<(i64, i64)> = behind.collect();
    let mut of_user: HashMap<i64, Vec<Ended>> = HashMap::new();
    if behind.is_empty() {
        return Ok(of_user);
    }
    let users = vec!["(user_id = ? AND joined_user_seq > ?)"; behind.len()].join(" OR ");
    let ended = format!(
        "SELECT user_id, conversation_id, joined_seq, joined_user_seq, left_seq, left_user_seq
         FROM conversation_members WHERE left_seq IS NOT NULL AND ({users}) ORDER BY user_id, joined_user_seq"
    );
    let mut ended = sqlx::query(AssertSqlSafe(ended));
    for (user, known) in behind {
        ended = ended.bind(user).bind(known);
    }
    for row in ended.fetch_all(db).await? {
        of_user.entry(row.get(0)).or_default().push(Ended {
            conversation: ConversationId(row.get(1)),
            joined_seq: row.get(2),
            joined_user_seq: row.get(3),
            left_seq: row.get(4),
            left_user_seq: row.get(5),
        });
    }
    Ok(of_user)
}
