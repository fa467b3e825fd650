//! One transaction for many messages: the promise's first rule.
//!
//! The conversations' rows are locked in id order and held to COMMIT, so the order of seq is the order of commits, of
//! the binlog, and of the Kafka partition. Retries are looked up after the lock and before a seq is taken; what is
//! refused leaves the batch before. Rows and outbox rows go in together.
//!
//! Pure: what to read, and from what was read what to write. [`super::writer`] runs both on its session, each as one
//! text of several statements. A statement sees what was committed before it began, so those behind the lock see all
//! that was committed under it.

use std::collections::{BTreeMap, HashMap, HashSet};

use chassis::seeded::{self, Bug};
use chrono::{DateTime, Utc};
use proto::{Code, ConversationId, EventType, MessageId, UserId, event::MessageData};
use sqlx::Row as _;

use super::{Committed, NewMessage, store};
use crate::{
    db::{Rows, SqlText},
    error::{Error, Refusal, Result},
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

/// A text of a message and of the statements around it, about.
const BYTES_OF_A_MESSAGE: usize = 1024;

/// The statements that lock and look up, in this order: epoch, conversations, members, retries, thread roots.
pub fn read(messages: &[NewMessage]) -> SqlText {
    let mut sql = SqlText::with_capacity(messages.len() * 128 + 512);
    sql.sql("SELECT epoch FROM cluster_state WHERE id = 1 FOR SHARE;");

    let mut ids: Vec<i64> = messages.iter().map(|message| message.conversation.0).collect();
    ids.sort_unstable();
    ids.dedup();
    sql.sql("SELECT id, last_seq, message_no, archived_at IS NOT NULL FROM conversations FORCE INDEX (PRIMARY) WHERE id IN (");
    sql.list(ids, |sql, id| {
        sql.int(id);
    })
    .sql(") ORDER BY id FOR UPDATE;");

    let mut pairs: Vec<_> = messages.iter().map(|message| (message.conversation.0, message.sender.0)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    sql.sql(
        "SELECT conversation_id, user_id FROM conversation_members
         WHERE left_seq IS NULL AND (conversation_id, user_id) IN (",
    );
    sql.list(pairs, |sql, (conversation, user)| {
        sql.sql("(").int(conversation).sql(",").int(user).sql(")");
    });

    sql.sql(
        ");SELECT conversation_id, sender_id, client_message_id, request_hash, id, seq, message_no, created_at, epoch
         FROM messages WHERE (conversation_id, sender_id, client_message_id) IN (",
    );
    sql.list(messages, |sql, message| {
        sql.sql("(").int(message.conversation.0).sql(",").int(message.sender.0).sql(",");
        sql.text(&message.client_message_id).sql(")");
    });
    sql.sql(")");

    let roots = || messages.iter().filter_map(|message| Some((message.conversation.0, message.thread_root?.0)));
    if roots().next().is_some() {
        sql.sql(";SELECT conversation_id, id FROM messages WHERE (conversation_id, id) IN (");
        sql.list(roots(), |sql, (conversation, id)| {
            sql.sql("(").int(conversation).sql(",").int(id).sql(")");
        });
        sql.sql(")");
    }
    sql
}

/// What is to be written of the messages, in their order and with the ids given for them, and one outcome a message, in
/// the same order; they hold once the transaction has committed. `sets` are the rows of [`read`]'s statements.
pub fn decide(
    messages: &[NewMessage],
    ids: &[MessageId],
    sets: Vec<Rows>,
    at: DateTime<Utc>,
) -> Result<(Vec<Outcome>, SqlText)> {
    let mut sets = sets.into_iter();
    let mut next = || sets.next().unwrap_or_default();
    let epoch: i64 = match next().first() {
        Some(row) => row.try_get(0)?,
        None => return Err(Error::Internal(anyhow::anyhow!("cluster_state has no row"))),
    };
    let mut conversations = counters(&next());
    let pair = |row: &sqlx::mysql::MySqlRow| (ConversationId(row.get(0)), row.get::<i64, _>(1));
    let members: HashSet<_> = next().iter().map(pair).map(|(id, user)| (id, UserId(user))).collect();
    let mut known = retries(messages, &next());
    let roots: HashSet<_> = next().iter().map(pair).map(|(id, root)| (id, MessageId(root))).collect();

    let mut outcomes = Vec::with_capacity(messages.len());
    let mut rows = Vec::with_capacity(messages.len());
    for (message, id) in messages.iter().zip(ids) {
        let outcome = place(message, &mut conversations, &members, &known, &roots).map(|place| match place {
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
    let mut sql = SqlText::default();
    if !rows.is_empty() {
        let bodies: usize = rows.iter().map(|(message, _)| message.body.len() * 2).sum();
        sql = SqlText::with_capacity(rows.len() * BYTES_OF_A_MESSAGE + bodies);
        take_seqs(&mut sql, &conversations);
        store::insert(&mut sql, &rows);
        sql.sql(if seeded::on(Bug::OutboxRowOnItsOwn) { ";COMMIT;BEGIN;" } else { ";" });
        let events: Vec<Event> = rows.iter().map(|(message, committed)| event(message, committed, at)).collect();
        outbox::insert_text(&mut sql, &events);
    }
    Ok((outcomes, sql))
}

enum Place {
    New { seq: i64, message_no: i64 },
    Retry(Committed),
}

fn place(
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

fn counters(rows: &Rows) -> BTreeMap<ConversationId, Counters> {
    let counters = |row: &sqlx::mysql::MySqlRow| {
        let archived = row.get::<i64, _>(3) != 0;
        let counters = Counters { last_seq: row.get(1), message_no: row.get(2), archived, taken: 0 };
        (ConversationId(row.get(0)), counters)
    };
    rows.iter().map(counters).collect()
}

/// What was committed before under the retry keys of these messages.
fn retries<'a>(messages: &'a [NewMessage], rows: &Rows) -> HashMap<RetryKey<'a>, ([u8; 32], Committed)> {
    let mut known = HashMap::new();
    for row in rows {
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
    known
}

/// Raises the counters of all conversations of the batch: one statement for those that took as many.
fn take_seqs(sql: &mut SqlText, conversations: &BTreeMap<ConversationId, Counters>) {
    let mut by_taken = BTreeMap::<i64, Vec<i64>>::new();
    for (id, counters) in conversations.iter().filter(|(_, counters)| counters.taken > 0) {
        by_taken.entry(counters.taken).or_default().push(id.0);
    }
    for (taken, ids) in by_taken {
        sql.sql("UPDATE conversations FORCE INDEX (PRIMARY) SET last_seq = last_seq + ").int(taken);
        sql.sql(", message_no = message_no + ").int(taken).sql(" WHERE id IN (");
        sql.list(ids, |sql, id| {
            sql.int(id);
        })
        .sql(");");
    }
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
