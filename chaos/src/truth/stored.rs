//! The rows of MySQL, in one snapshot.

use anyhow::Result;
use serde::Deserialize;
use sqlx::{Connection as _, MySqlConnection, Row as _, mysql::MySqlRow};

use crate::history::digest;

use super::{Says, SaysMessage, Scope, TruthRecord};

/// Ids in one statement.
const PAGE: usize = 200;

pub async fn read(url: &str, scope: &Scope) -> Result<Vec<TruthRecord>> {
    let mut mysql = MySqlConnection::connect(url).await?;
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut mysql).await?;
    sqlx::raw_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").execute(&mut mysql).await?;
    let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM cluster_state").fetch_one(&mut mysql).await?;
    let mut truth = vec![TruthRecord::Truth { epoch }];
    let conversations: Vec<i64> = scope.conversations.iter().copied().collect();
    for ids in conversations.chunks(PAGE) {
        for (query, record) in OF_CONVERSATIONS {
            rows(&mut mysql, query, &listed(ids, ""), record, &mut truth).await?;
        }
    }
    let users: Vec<i64> = scope.users.iter().copied().collect();
    for ids in users.chunks(PAGE) {
        rows(&mut mysql, USERS, &listed(ids, ""), user, &mut truth).await?;
        rows(&mut mysql, USER_EVENTS, &listed(ids, "'"), user_event, &mut truth).await?;
    }
    Ok(truth)
}

/// A row, as it is written down.
type Record = fn(&MySqlRow) -> sqlx::Result<TruthRecord>;

/// `?` stands for a list of ids.
const OF_CONVERSATIONS: [(&str, Record); 4] = [
    ("SELECT id, kind, last_seq, message_no FROM conversations WHERE id IN (?) ORDER BY id", conversation),
    (
        "SELECT conversation_id, user_id, joined_seq, left_seq, joined_user_seq, left_user_seq \
         FROM conversation_members WHERE conversation_id IN (?) ORDER BY conversation_id, user_id, joined_seq",
        member,
    ),
    (
        "SELECT conversation_id, seq, id, type, epoch, subject_id, user_seq, payload FROM message_producer_outbox \
         WHERE conversation_id IN (?) AND seq IS NOT NULL ORDER BY conversation_id, seq",
        event,
    ),
    (
        "SELECT conversation_id, seq, id, message_no, sender_id, client_message_id, body, epoch FROM messages \
         WHERE conversation_id IN (?) ORDER BY conversation_id, seq",
        message,
    ),
];
const USERS: &str = "SELECT id, user_seq FROM users WHERE id IN (?) ORDER BY id";
const USER_EVENTS: &str = "SELECT CAST(aggregateid AS SIGNED), user_seq, type FROM message_producer_outbox \
     WHERE aggregatetype = 'user' AND aggregateid IN (?) AND user_seq IS NOT NULL";

fn listed(ids: &[i64], quote: &str) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("{quote}{id}{quote}")).collect();
    ids.join(",")
}

async fn rows(
    mysql: &mut MySqlConnection,
    query: &str,
    ids: &str,
    record: Record,
    truth: &mut Vec<TruthRecord>,
) -> Result<()> {
    // Numbers only, so that they may stand in the text.
    let query = sqlx::AssertSqlSafe(query.replace('?', ids));
    for row in &sqlx::query(query).fetch_all(mysql).await? {
        truth.push(record(row)?);
    }
    Ok(())
}

fn conversation(row: &MySqlRow) -> sqlx::Result<TruthRecord> {
    Ok(TruthRecord::Conversation {
        id: row.try_get(0)?,
        kind: row.try_get(1)?,
        last_seq: row.try_get(2)?,
        message_no: row.try_get(3)?,
    })
}

fn member(row: &MySqlRow) -> sqlx::Result<TruthRecord> {
    Ok(TruthRecord::Member {
        conversation: row.try_get(0)?,
        user: row.try_get(1)?,
        joined_seq: row.try_get(2)?,
        left_seq: row.try_get(3)?,
        joined_user_seq: row.try_get(4)?,
        left_user_seq: row.try_get(5)?,
    })
}

fn event(row: &MySqlRow) -> sqlx::Result<TruthRecord> {
    let payload: String = row.try_get(7)?;
    Ok(TruthRecord::Event {
        conversation: row.try_get(0)?,
        seq: row.try_get(1)?,
        event_id: row.try_get(2)?,
        event_type: row.try_get(3)?,
        epoch: row.try_get(4)?,
        subject: row.try_get(5)?,
        user_seq: row.try_get(6)?,
        body: digest(payload.as_bytes()),
        says: says(&payload),
    })
}

fn message(row: &MySqlRow) -> sqlx::Result<TruthRecord> {
    let body: String = row.try_get(6)?;
    Ok(TruthRecord::Message {
        conversation: row.try_get(0)?,
        seq: row.try_get(1)?,
        id: row.try_get(2)?,
        message_no: row.try_get(3)?,
        sender: row.try_get(4)?,
        client_message_id: row.try_get(5)?,
        text: digest(body.as_bytes()),
        epoch: row.try_get(7)?,
    })
}

fn user(row: &MySqlRow) -> sqlx::Result<TruthRecord> {
    Ok(TruthRecord::User { id: row.try_get(0)?, user_seq: row.try_get(1)? })
}

fn user_event(row: &MySqlRow) -> sqlx::Result<TruthRecord> {
    Ok(TruthRecord::UserEvent { user: row.try_get(0)?, user_seq: row.try_get(1)?, event_type: row.try_get(2)? })
}

/// What of the envelope is looked at: `docs/protocol.md`, Events.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    event_type: String,
    event_id: String,
    epoch: i64,
    conversation_id: String,
    seq: i64,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
}

#[derive(Deserialize)]
struct Message {
    message_id: String,
    message_no: i64,
    client_message_id: String,
    body: String,
}

/// None: it is no such envelope.
fn says(payload: &str) -> Option<Says> {
    let envelope: Envelope = serde_json::from_str(payload).ok()?;
    let message = match envelope.event_type.as_str() {
        "MESSAGE" => {
            let message: Message = serde_json::from_str(envelope.data.get()).ok()?;
            Some(SaysMessage {
                id: message.message_id.parse().ok()?,
                message_no: message.message_no,
                client_message_id: message.client_message_id,
                text: digest(message.body.as_bytes()),
            })
        }
        _ => None,
    };
    Some(Says {
        event_type: envelope.event_type,
        event_id: envelope.event_id,
        epoch: envelope.epoch,
        conversation: envelope.conversation_id.parse().ok()?,
        seq: envelope.seq,
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_read_for_what_is_stored_elsewhere_too() {
        let payload = r#"{"type":"MESSAGE","event_id":"0197","epoch":1,"conversation_id":"7","seq":12,"actor_id":"3",
            "at":"2026-03-01T12:00:00.000000Z","data":{"message_id":"99","message_no":4,"kind":"text","body":"a",
            "client_message_id":"m1","deleted":false}}"#;
        let says = says(payload).unwrap();
        let message = says.message.unwrap();
        assert_eq!((says.conversation, says.seq, says.event_type.as_str()), (7, 12, "MESSAGE"));
        assert_eq!((message.id, message.message_no, message.text), (99, 4, digest(b"a")));
        assert!(super::says("{}").is_none());
    }

    #[test]
    fn ids_stand_in_the_statement_as_numbers() {
        assert_eq!(listed(&[1, 2], ""), "1,2");
        assert_eq!(listed(&[1, 2], "'"), "'1','2'");
    }
}
