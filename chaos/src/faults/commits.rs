//! Commits that binlog readers have and nobody else sees yet. Semi-synchronous replication makes them: it hands a
//! transaction to all readers of the binlog, and shows it to other sessions when a replica has answered. Here none
//! answers, and each wait ends by its timeout.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, ConnectOptions as _, MySqlConnection, mysql::MySqlConnectOptions};
use tokio::time::{Instant, sleep};

use super::Effect;
use crate::stack::Stack;

/// How long a commit waits. After one timeout MySQL waits no more, until it is told to again.
const STALL: Duration = Duration::from_millis(400);
/// For the commits of a wait to be through before the next one.
const REST: Duration = Duration::from_millis(100);

/// Stalls commits again and again until `length` is over.
pub async fn stall(stack: &Stack, length: Duration) -> Result<Effect> {
    let mut mysql = connect(stack).await?;
    let installed = "SELECT COUNT(*) FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'rpl_semi_sync_source'";
    if sqlx::query_scalar::<_, i64>(installed).fetch_one(&mut mysql).await? == 0 {
        run(&mut mysql, "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'").await?;
    }
    run(&mut mysql, &format!("SET GLOBAL rpl_semi_sync_source_timeout = {}", STALL.as_millis())).await?;
    let before = unanswered(&mut mysql).await?;
    let until = Instant::now() + length;
    while Instant::now() < until {
        run(&mut mysql, "SET GLOBAL rpl_semi_sync_source_enabled = ON").await?;
        sleep(STALL).await;
        run(&mut mysql, "SET GLOBAL rpl_semi_sync_source_enabled = OFF").await?;
        sleep(REST).await;
    }
    let commits = unanswered(&mut mysql).await? - before;
    Ok(Effect { took_effect: commits > 0, detail: format!("{commits} commits waited for up to {STALL:?}") })
}

/// Commits that waited, and were shown without an answer.
async fn unanswered(mysql: &mut MySqlConnection) -> Result<i64> {
    let (_, count): (String, String) =
        sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_no_tx'").fetch_one(mysql).await?;
    count.parse().context("Rpl_semi_sync_source_no_tx")
}

pub async fn run(mysql: &mut MySqlConnection, statement: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(mysql).await.with_context(|| statement.to_owned())?;
    Ok(())
}

/// Who may, in this stack alone.
pub async fn connect(stack: &Stack) -> Result<MySqlConnection> {
    let password = stack.folder().join("secrets/mysql-chaos.password");
    let password = std::fs::read_to_string(&password).with_context(|| format!("reading {}", password.display()))?;
    let options: MySqlConnectOptions = stack.endpoints()?.mysql.parse().context("the address of MySQL")?;
    let options = options.username("chaos").password(password.trim()).database("information_schema");
    options.connect().await.context("connecting to MySQL as the user of chaos runs")
}
