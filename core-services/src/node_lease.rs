//! The lease of a snowflake node id in MySQL, unique among live cores.
//!
//! The row also says up to which millisecond its holder may stamp ids; the next holder stamps above it only. It is never
//! lowered, whatever clocks do, so a holder may use all that it ever stored there. So two cores never stamp alike, even
//! when a clock is wrong or the server's and theirs differ.

use std::{sync::Arc, time::Duration};

use chassis::Dependency;
use sqlx::{MySqlConnection, Row as _};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    db::Db,
    error::{Error, Result},
    snowflake::{NODES, Snowflakes},
};

/// Clocks of cores and server may differ by this much: a lease is used that much shorter than it is held.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);
/// After a failure.
const RETRY: Duration = Duration::from_millis(500);

/// A node id and what of it this process may use.
#[derive(Clone, Copy, Debug)]
struct Held {
    node: u16,
    /// The holder before may have used milliseconds up to this one.
    after_ms: i64,
}

/// Holds a node id from start to drain: takes one, renews it at a third of its time, takes another when it was lost.
pub async fn keep(db: Db, ids: Arc<Snowflakes>, lease: Duration, dependency: Dependency, draining: CancellationToken) {
    let holder = Uuid::now_v7().to_string();
    let mut held: Option<Held> = None;
    let mut valid_until_ms = 0;
    loop {
        // The time is taken before the statement: the lease is at least this long.
        let until_ms = chassis::now_us() / 1000 + (lease - CLOCK_MARGIN.min(lease / 2)).as_millis() as i64;
        let wait = match renew_or_take(&db, &holder, held, lease, until_ms).await {
            Ok(leased) => {
                if held.is_none_or(|held| held.node != leased.node) {
                    info!(node.id = leased.node, "leased a node id");
                }
                held = Some(leased);
                valid_until_ms = ids.lease(leased.node, leased.after_ms, until_ms);
                dependency.up();
                lease / 3
            }
            Err(error) => {
                warn!(%error, "the node id could not be leased");
                if chassis::now_us() / 1000 >= valid_until_ms {
                    dependency.down("no node id is leased: no ids can be given");
                }
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = draining.cancelled() => return,
        }
    }
}

async fn renew_or_take(db: &Db, holder: &str, held: Option<Held>, lease: Duration, until_ms: i64) -> Result<Held> {
    let micros = lease.as_micros() as i64;
    db.transact("lease a node id", |tx| {
        let holder = holder.to_owned();
        Box::pin(async move {
            if let Some(held) = held
                && renew(tx, &holder, held.node, micros, until_ms).await?
            {
                return Ok(held);
            }
            take(tx, &holder, micros, until_ms).await
        })
    })
    .await
}

async fn renew(tx: &mut MySqlConnection, holder: &str, node: u16, micros: i64, until_ms: i64) -> Result<bool> {
    let renewed = sqlx::query(
        "UPDATE node_leases SET expires_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, until_ms = GREATEST(until_ms, ?)
         WHERE node_id = ? AND holder = ?",
    )
    .bind(micros)
    .bind(until_ms)
    .bind(node)
    .bind(holder)
    .execute(tx)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// The lowest node id that nobody holds, and whose milliseconds of before this core's clock has passed. Cores that
/// start at once take turns at the rows' locks; if both make a new row, the second finds it there (1062) and tries again.
async fn take(tx: &mut MySqlConnection, holder: &str, micros: i64, until_ms: i64) -> Result<Held> {
    let rows = sqlx::query(
        "SELECT node_id, until_ms, expires_at > UTC_TIMESTAMP(6) FROM node_leases ORDER BY node_id FOR UPDATE",
    )
    .fetch_all(&mut *tx)
    .await?;
    let now_ms = chassis::now_us() / 1000;
    let free = |row: &&sqlx::mysql::MySqlRow| row.get::<i64, _>(2) == 0 && row.get::<i64, _>(1) < now_ms;
    if let Some(row) = rows.iter().find(free) {
        let held = Held { node: row.get(0), after_ms: row.get(1) };
        sqlx::query(
            "UPDATE node_leases SET holder = ?, expires_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND,
                 until_ms = GREATEST(until_ms, ?)
             WHERE node_id = ?",
        )
        .bind(holder)
        .bind(micros)
        .bind(until_ms)
        .bind(held.node)
        .execute(tx)
        .await?;
        return Ok(held);
    }
    let used: Vec<u16> = rows.iter().map(|row| row.get(0)).collect();
    let node = (0..NODES)
        .find(|node| !used.contains(node))
        .ok_or_else(|| Error::Internal(anyhow::anyhow!("all {NODES} node ids are leased")))?;
    sqlx::query(
        "INSERT INTO node_leases (node_id, holder, expires_at, until_ms)
         VALUES (?, ?, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, ?)",
    )
    .bind(node)
    .bind(holder)
    .bind(micros)
    .bind(until_ms)
    .execute(tx)
    .await?;
    Ok(Held { node, after_ms: 0 })
}
