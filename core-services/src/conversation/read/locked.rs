//! Rows that were locked, one by one: each in a transaction of its own, so that none is kept while another is waited for.
//!
//! A row may be held for as long as `mysql.session_timeout`, and waiting takes a session of the pool. So waiting is
//! bounded: in time for all rows of a call together, in sessions for the process (see [`Db::lock_wait`]).

use std::{collections::BTreeSet, future::Future, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use super::Lock;
use crate::{
    db::Db,
    error::{Error, Result, is_locked},
};

/// How long a row is waited for, and how long after the first wait of a call the last one may begin. So a call waits for
/// rows for twice this at most, well below the 5 s that gateways give it (`core.request_timeout`).
pub const WAIT: Duration = Duration::from_secs(1);
/// How long each is waited for before any is for longer: rows that are only busy do not wait behind those that are stuck.
const BRIEFLY: Duration = Duration::from_millis(100);

/// Rows that one call asks for at once.
const AT_ONCE: usize = 4;

/// Asks for each row alone. What `read` answered, and the rows that are locked still.
pub(super) async fn each_alone<T, F>(
    db: &Db,
    ids: Vec<i64>,
    until: Instant,
    read: impl Fn(i64, Lock) -> F,
) -> Result<(Vec<T>, BTreeSet<i64>)>
where
    F: Future<Output = Result<T>>,
{
    let mut rows = Vec::with_capacity(ids.len());
    // Nobody waits behind the lock of another for a row that is free, or is not there.
    let at_once = |id| {
        let answer = read(id, Lock::ShareNoWait);
        async move { (id, unless_locked(answer.await)) }
    };
    let mut locked = asked(ids, at_once, &mut rows).await?;
    for wait in [BRIEFLY, WAIT] {
        let waiting = |id| {
            let answer = read(id, Lock::Share(wait));
            async move {
                let Ok(_permit) = timeout_at(until, db.lock_wait()).await else { return (id, Ok(None)) };
                (id, if Instant::now() < until { unless_locked(answer.await) } else { Ok(None) })
            }
        };
        locked = asked(locked, waiting, &mut rows).await?;
    }
    Ok((rows, locked.into_iter().collect()))
}

/// Asks for some at once; the rows, and those that are locked.
async fn asked<T, F>(ids: Vec<i64>, ask: impl Fn(i64) -> F, rows: &mut Vec<T>) -> Result<Vec<i64>>
where
    F: Future<Output = (i64, Result<Option<T>>)>,
{
    let mut answers = stream::iter(ids).map(ask).buffer_unordered(AT_ONCE);
    let mut locked = Vec::new();
    while let Some((id, answer)) = answers.next().await {
        match answer? {
            Some(row) => rows.push(row),
            None => locked.push(id),
        }
    }
    Ok(locked)
}

/// `None`: somebody holds the row.
fn unless_locked<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(Error::Database(error)) if is_locked(&error) => Ok(None),
        answer => answer.map(Some),
    }
}
