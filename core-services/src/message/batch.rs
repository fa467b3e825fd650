//! One transaction for many messages: the promise's first rule.
//!
//! The conversations' rows are locked in id order and held to COMMIT, so the order of seq is the order of commits, of
//! the binlog, and of the Kafka partition. Retries are looked up after the lock and before a seq is taken; what is
//! refused leaves the batch before. Rows and outbox rows go in together.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use proto::{Code, ConversationId, EventType, MessageId, UserId, event::MessageData};
use sqlx::{AssertSqlSafe, MySqlConnection, Row as _};

use super::{Committed, NewMessage, store};
use crate::{
    db::{lock_epoch, placeholders},
    error::{Refusal, Result},
    outbox::{self, Event},
};

/// What becomes of one message of a batch that commits.
pub type Outcome = std::result::Result<Committed, Refusal>;

/// A conversation's counters under its lock.
struct Counters {
    last_seq: i64,
    message_no: i64,
    archived: bool,
    taken: i64,
}

/// What names a message for its retries.
type RetryKey<'a> = (ConversationId, UserId, &'a str);

/// Writes the messages, in their order, with the ids given for them. One outcome a message, in the same order; they
/// hold once the transaction has committed.
pub async fn write(tx: &mut MySqlConnection, messages: &[NewMessage], ids: &[MessageId]) -> Result<Vec<Outcome>> {
    let epoch = lock_epoch(tx).await?;
    let mut conversations = lock_conversations(tx, messages).await?;
    let members = read_members(tx, messages).await?;
    let mut known = read_retries(tx, messages).await?;
    let roots = read_roots(tx, messages).await?;
    let at = crate::now();

    let mut outcomes = Vec::with_capacity(messages.len());
    let mut rows = Vec::with_capacity(messages.len());
    for (message, id) in messages.iter().zip(ids) {
        let outcome = decide(message, &mut conversations, &members, &known, &roots).map(|place| match place {
            Place::Retry(first) => Committed { duplicate: true, ..first },
            Place::New { seq, message_no } => {
                let committed = Committed {
                    id: *id,
                    conversation: message.conversation,
                    seq,
                    message_no,
                    created_at: at,
                    client_message_id: message.client_message_id.clone(),
                    epoch,
                    duplicate: false,
                };
                known.insert(retry_key(message), (message.request_hash, committed.clone()));
                rows.push((message, committed.clone()));
                committed
            }
        });
        outcomes.push(outcome);
    }
    if !rows.is_empty() {
        take_seqs(tx, &conversations).await?;
        store::insert(tx, &rows).await?;
        let events: Vec<Event> = rows.iter().map(|(message, committed)| event(message, committed, at)).collect();
        outbox::insert(tx, &events).await?;
    }
    Ok(outcomes)
}

enum Place {
    New { seq: i64, message_no: i64 },
    Retry(Committed),
}

fn decide(
    message: &NewMessage,
    conversations: &mut BTreeMap<ConversationId, Counters>,
    members: &HashSet<(ConversationId, UserId)>,
    known: &HashMap<RetryKey<'_>, ([u8; 32], Committed)>,
    roots: &HashSet<(ConversationId, MessageId)>,
) -> std::result::Result<Place, Refusal> {
    let id = message.conversation;
    let Some(counters) = conversations.get_mut(&id) else {
        return Err(Refusal::new(Code::NotFound, format!("there is no conversation {id}")));
    };
    // Before the membership: who was removed after their message was committed is told so, when they ask again.
    if let Some((hash, first)) = known.get(&retry_key(message)) {
        if *hash == message.request_hash {
            return Ok(Place::Retry(first.clone()));
        }
        let key = &message.client_message_id;
        return Err(Refusal::new(Code::Conflict, format!("client_message_id {key:?} was used for another content")));
    }
    if !members.contains(&(id, message.sender)) {
        return Err(Refusal::new(Code::NotAMember, format!("{} is not a member of {id}", message.sender)));
    }
    if counters.archived {
        return Err(Refusal::new(Code::Forbidden, format!("the conversation {id} is archived")));
    }
    if let Some(root) = message.thread_root
        && !roots.contains(&(id, root))
    {
        return Err(Refusal::new(Code::NotFound, format!("thread_root_id: there is no message {root} in {id}")));
    }
    counters.taken += 1;
    Ok(Place::New { seq: counters.last_seq + counters.taken, message_no: counters.message_no + counters.taken })
}

fn retry_key(message: &NewMessage) -> RetryKey<'_> {
    (message.conversation, message.sender, &message.client_message_id)
}

async fn lock_conversations(
    tx: &mut MySqlConnection,
    messages: &[NewMessage],
) -> Result<BTreeMap<ConversationId, Counters>> {
    let mut ids: Vec<i64> = messages.iter().map(|message| message.conversation.0).collect();
    ids.sort_unstable();
    ids.dedup();
    let query = format!(
        "SELECT id, last_seq, message_no, archived_at IS NOT NULL FROM conversations FORCE INDEX (PRIMARY)
         WHERE id IN ({}) ORDER BY id FOR UPDATE",
        placeholders(ids.len(), 1)
    );
    let mut query = sqlx::query(AssertSqlSafe(query));
    for id in ids {
        query = query.bind(id);
    }
    let rows = query.fetch_all(tx).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let archived = row.get::<i64, _>(3) != 0;
            let counters = Counters { last_seq: row.get(1), message_no: row.get(2), archived, taken: 0 };
            (ConversationId(row.get(0)), counters)
        })
        .collect())
}

async fn read_members(tx: &mut MySqlConnection, messages: &[NewMessage]) -> Result<HashSet<(ConversationId, UserId)>> {
    let mut pairs: Vec<_> = messages.iter().map(|message| (message.conversation, message.sender)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let query = format!(
        "SELECT conversation_id, user_id FROM conversation_members
         WHERE left_seq IS NULL AND (conversation_id, user_id) IN ({})",
        placeholders(pairs.len(), 2)
    );
    let mut query = sqlx::query(AssertSqlSafe(query));
    for (conversation, user) in pairs {
        query = query.bind(conversation.0).bind(user.0);
    }
    let rows = query.fetch_all(tx).await?;
    Ok(rows.iter().map(|row| (ConversationId(row.get(0)), UserId(row.get(1)))).collect())
}

/// What was committed before under the retry keys of these messages.
async fn read_retries<'a>(
    tx: &mut MySqlConnection,
    messages: &'a [NewMessage],
) -> Result<HashMap<RetryKey<'a>, ([u8; 32], Committed)>> {
    let query = format!(
        "SELECT conversation_id, sender_id, client_message_id, request_hash, id, seq, message_no, created_at, epoch
         FROM messages WHERE (conversation_id, sender_id, client_message_id) IN ({})",
        placeholders(messages.len(), 3)
    );
    let mut query = sqlx::query(AssertSqlSafe(query));
    for message in messages {
        query = query.bind(message.conversation.0).bind(message.sender.0).bind(&message.client_message_id);
    }
    let mut known = HashMap::new();
    for row in query.fetch_all(tx).await? {
        let (conversation, sender) = (ConversationId(row.get(0)), UserId(row.get(1)));
        let client_message_id: String = row.get(2);
        let asked = messages.iter().find(|message| retry_key(message) == (conversation, sender, &client_message_id));
        let Some(asked) = asked else { continue };
        let hash = <[u8; 32]>::try_from(row.get::<&[u8], _>(3)).unwrap_or_default();
        let first = Committed {
            id: MessageId(row.get(4)),
            conversation,
            seq: row.get(5),
            message_no: row.get(6),
            created_at: row.get::<DateTime<Utc>, _>(7),
            client_message_id,
            epoch: row.get(8),
            duplicate: true,
        };
        known.insert(retry_key(asked), (hash, first));
    }
    Ok(known)
}

/// Which of the thread roots named are messages of their conversations.
async fn read_roots(tx: &mut MySqlConnection, messages: &[NewMessage]) -> Result<HashSet<(ConversationId, MessageId)>> {
    let asked: Vec<_> =
        messages.iter().filter_map(|message| Some((message.conversation, message.thread_root?))).collect();
    if asked.is_empty() {
        return Ok(HashSet::new());
    }
    let query = format!(
        "SELECT conversation_id, id FROM messages WHERE (conversation_id, id) IN ({})",
        placeholders(asked.len(), 2)
    );
    let mut query = sqlx::query(AssertSqlSafe(query));
    for (conversation, root) in asked {
        query = query.bind(conversation.0).bind(root.0);
    }
    let rows = query.fetch_all(tx).await?;
    Ok(rows.iter().map(|row| (ConversationId(row.get(0)), MessageId(row.get(1)))).collect())
}

/// One statement raises the counters of all conversations of the batch, by what each took.
async fn take_seqs(tx: &mut MySqlConnection, conversations: &BTreeMap<ConversationId, Counters>) -> Result<()> {
    let taken: Vec<_> = conversations.iter().filter(|(_, counters)| counters.taken > 0).collect();
    let cases = vec!["WHEN ? THEN ?"; taken.len()].join(" ");
    let query = format!(
        "UPDATE conversations FORCE INDEX (PRIMARY)
         SET last_seq = last_seq + CASE id {cases} END, message_no = message_no + CASE id {cases} END
         WHERE id IN ({})",
        placeholders(taken.len(), 1)
    );
    let mut query = sqlx::query(AssertSqlSafe(query));
    for _ in 0..2 {
        for (id, counters) in &taken {
            query = query.bind(id.0).bind(counters.taken);
        }
    }
    for (id, _) in &taken {
        query = query.bind(id.0);
    }
    query.execute(tx).await?;
    Ok(())
}

fn event(message: &NewMessage, committed: &Committed, at: DateTime<Utc>) -> Event {
    let data = MessageData {
        message_id: committed.id,
        message_no: committed.message_no,
        kind: message.kind.to_owned(),
        body: message.body.clone(),
        client_message_id: message.client_message_id.clone(),
        thread_root_id: message.thread_root,
        mentions: Vec::new(),
        attachments: Vec::new(),
        deleted: false,
    };
    let (conversation, seq, epoch) = (message.conversation, committed.seq, committed.epoch);
    Event::of_conversation(EventType::Message, conversation, seq, epoch, message.sender, at, data)
        .traced(message.traceparent.clone())
}
