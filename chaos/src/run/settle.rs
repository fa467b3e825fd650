//! The end of a run: the facts that it waits for.
//!
//! How far everybody must get is read from MySQL once nobody sends any more. None of this is the verdict: it only
//! says when there is nothing left to wait for.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use e2e::{bench::crowd::connect, endpoints::Endpoints, kafka::lag};
use sqlx::Row as _;
use tokio::time::sleep;

use crate::{
    faults::{GROUP, TOPICS},
    workload::{Crowd, MINE, Member, People, topic_name},
};

/// For each fact.
pub const LIMIT: Duration = Duration::from_secs(30);
/// At the end, for what should not come.
pub const STRAY: Duration = Duration::from_millis(1500);
const LOOK: Duration = Duration::from_millis(100);

/// Each client has all its subscriptions, in another session than `before`.
pub async fn all_attached(crowd: &Crowd, before: &[Option<u32>]) {
    let is_new = |number: usize, session: u32| before.get(number).is_none_or(|old| *old != Some(session));
    until(|| {
        let mut members = crowd.members.iter().enumerate();
        members.all(|(number, member)| member.view.now().attached.is_some_and(|session| is_new(number, session)))
    })
    .await;
}

/// Each client has an answer for everything it sent.
pub async fn all_answered(crowd: &Crowd) {
    until(|| crowd.members.iter().all(|member| member.view.now().unanswered == 0)).await;
}

/// Each client has got to the end of each conversation of its user.
pub async fn all_caught_up(endpoints: &Endpoints, people: &People, crowd: &Crowd) {
    loop {
        // MySQL may still be on its way up.
        if let Ok(heads) = heads(endpoints, people).await
            && crowd.members.iter().all(|member| has_all(member, &heads))
        {
            return;
        }
        sleep(LOOK).await;
    }
}

fn has_all(member: &Member, heads: &BTreeMap<i64, Vec<(i64, i64)>>) -> bool {
    let now = member.view.now();
    let has = |name: String, id: i64, head: i64| now.reached.get(&(name, id)).is_some_and(|seq| *seq >= head);
    now.attached.is_some()
        && heads.get(&member.person.user).into_iter().flatten().all(|(id, head)| {
            (!member.style.topics || has(topic_name(*id), *id, *head))
                && (!member.style.mine || has(MINE.to_owned(), *id, *head))
        })
}

/// Each user's conversations and their heads.
async fn heads(endpoints: &Endpoints, people: &People) -> Result<BTreeMap<i64, Vec<(i64, i64)>>> {
    let mut mysql = connect(endpoints).await?;
    let first = people.conversations.iter().map(|one| one.id).min().unwrap_or_default();
    let rows = sqlx::query(
        "SELECT m.user_id, m.conversation_id, c.last_seq FROM conversation_members m \
         JOIN conversations c ON c.id = m.conversation_id WHERE m.left_seq IS NULL AND c.id >= ?",
    )
    .bind(first)
    .fetch_all(&mut mysql)
    .await?;
    let mut heads = BTreeMap::<i64, Vec<(i64, i64)>>::new();
    for row in rows {
        heads.entry(row.try_get(0)?).or_default().push((row.try_get(1)?, row.try_get(2)?));
    }
    Ok(heads)
}

/// The workers have stored an offset behind every record.
pub async fn no_lag(endpoints: &Endpoints) {
    loop {
        let mut left = 0;
        for topic in TOPICS {
            // Kafka may still be on its way up.
            left += lag(&endpoints.kafka, GROUP, topic).await.unwrap_or(1);
        }
        if left == 0 {
            return;
        }
        sleep(LOOK).await;
    }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        sleep(LOOK).await;
    }
}
