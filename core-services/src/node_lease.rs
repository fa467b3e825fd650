//! The lease of a snowflake node id in MySQL, unique among live cores.

use std::{sync::Arc, time::Duration};

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

/// Holds a node id from start to drain: takes one, renews it at a third of its time, takes another when it was lost.
pub async fn keep(db: Db, ids: Arc<Snowflakes>, lease: Duration, draining: CancellationToken) {
    let holder = Uuid::now_v7().to_string();
    let mut held = None;
    loop {
        // The time is taken before the statement: the lease is at least this long.
        let until_ms = chassis::now_us() / 1000 + (lease - CLOCK_MARGIN.min(lease / 2)).as_millis() as i64;
        let wait = match renew_or_take(&db, &holder, held, lease).await {
            Ok(node) => {
                if held != Some(node) {
                    info!(node.id = node, "leased a node id");
                }
                held = Some(node);
                ids.lease(node, until_ms);
                lease / 3
            }
            Err(error) => {
                warn!(%error, "the node id could not be leased");
                Duration::from_millis(500)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = draining.cancelled() => return,
        }
    }
}

async fn renew_or_take(db: &Db, holder: &str, held: Option<u16>, lease: Duration) -> Result<u16> {
    let micros = lease.as_micros() as i64;
    db.transact("lease a node id", |tx| {
        let holder = holder.to_owned();
        Box::pin(async move {
            if let Some(node) = held
                && renew(tx, &holder, node, micros).await?
            {
                return Ok(node);
            }
            take(tx, &holder, micros).await
        })
    })
    .await
}

async fn renew(tx: &mut MySqlConnection, holder: &str, node: u16, micros: i64) -> Result<bool> {
    let renewed = sqlx::query(
        "UPDATE node_leases SET expires_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND WHERE node_id = ? AND holder = ?",
    )
    .bind(micros)
    .bind(node)
    .bind(holder)
    .execute(tx)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// The lowest node id that nobody holds. Cores that start at once take turns at the lock on the epoch's row.
async fn take(tx: &mut MySqlConnection, holder: &str, micros: i64) -> Result<u16> {
    sqlx::query("SELECT epoch FROM cluster_state WHERE id = 1 FOR UPDATE").fetch_one(&mut *tx).await?;
    let live =
        sqlx::query("SELECT node_id FROM node_leases WHERE expires_at > UTC_TIMESTAMP(6)").fetch_all(&mut *tx).await?;
    let live: Vec<u16> = live.iter().map(|row| row.get(0)).collect();
    let node = (0..NODES)
        .find(|node| !live.contains(node))
        .ok_or_else(|| Error::Internal(anyhow::anyhow!("all {NODES} node ids are leased")))?;
    sqlx::query(
        "INSERT INTO node_leases (node_id, holder, expires_at) VALUES (?, ?, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND)
         ON DUPLICATE KEY UPDATE holder = VALUES(holder), expires_at = VALUES(expires_at)",
    )
    .bind(node)
    .bind(holder)
    .bind(micros)
    .execute(tx)
    .await?;
    Ok(node)
}
