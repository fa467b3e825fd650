//! Commits that binlog readers have and nobody else sees yet. Semi-synchronous replication makes them: it hands a
//! transaction to all readers of the binlog, and shows it to other sessions when a replica has answered. Here none
//! answers, and each wait ends by its timeout.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
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
    let mut mysql = as_root(stack).await?;
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

async fn run(mysql: &mut MySqlConnection, statement: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(mysql).await.with_context(|| statement.to_owned())?;
    Ok(())
}

/// Only root may, who is let in by the socket only: its place is in the command line that the stack has recorded.
async fn as_root(stack: &Stack) -> Result<MySqlConnection> {
    let read = |file: &str| {
        let path = stack.folder().join(file);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let state: Value = serde_json::from_str(&read("state.json")?)?;
    let processes = state["processes"].as_array().into_iter().flatten();
    let mut arguments =
        processes.filter(|one| one["name"] == "mysql").filter_map(|one| one["argv"].as_array()).flatten();
    let socket = arguments.find_map(|argument| argument.as_str()?.strip_prefix("--socket="));
    let socket = socket.context("MySQL was started without a socket")?.to_owned();
    let password = read("secrets/mysql-root.password")?;
    let options = MySqlConnectOptions::new().username("root").password(password.trim()).socket(socket);
    options.connect().await.context("connecting to MySQL as root")
}
