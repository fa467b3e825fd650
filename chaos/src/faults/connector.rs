//! The outbox connector through Connect's REST interface, and what an operator's watchdog does: restart a task that
//! has failed, which Connect never does by itself.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use e2e::rest::Rest;
use http::Method;
use serde_json::Value;
use sqlx::{ConnectOptions as _, MySqlConnection, Row as _, mysql::MySqlConnectOptions};
use tokio::time::{Instant, sleep};

use super::Effect;
use crate::stack::Stack;

pub const NAME: &str = "switchboard-outbox";
/// The user that it reads MySQL as.
const USER: &str = "debezium";
/// For Connect to start a task.
const RUNNING_LIMIT: Duration = Duration::from_secs(60);
/// How often the watchdog looks.
const WATCH: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(200);

/// Restarts connector and task, whatever they do.
pub async fn restart(connect: &str) -> Result<Effect> {
    ask(connect, Method::POST, "/restart?includeTasks=true").await?;
    let restarted = until_it_runs(connect).await?;
    Ok(Effect { took_effect: true, detail: format!("RUNNING after {:.1} s", restarted.as_secs_f64()) })
}

/// Ends the connector's sessions with MySQL, as a fail-over or an operator would.
pub async fn kill_sessions(stack: &Stack) -> Result<Effect> {
    let mut mysql = as_connector(stack).await?;
    let others = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ? AND ID <> CONNECTION_ID()";
    let sessions = sqlx::query(others).bind(USER).fetch_all(&mut mysql).await.context("listing MySQL's sessions")?;
    let mut killed = 0;
    for session in &sessions {
        let id: u64 = session.try_get(0)?;
        // One may end by itself in between.
        killed += u32::from(sqlx::query(sqlx::AssertSqlSafe(format!("KILL {id}"))).execute(&mut mysql).await.is_ok());
    }
    until_it_runs(&stack.endpoints()?.connect).await?;
    Ok(Effect { took_effect: killed > 0, detail: format!("{killed} sessions ended") })
}

/// What a watchdog does: restarts what has failed, which Connect never does by itself. Never returns.
pub async fn watch(connect: String) {
    loop {
        sleep(WATCH).await;
        // Connect may be away: that is a fault of its own.
        if restart_failed(&connect).await.unwrap_or(false) {
            println!("         the connector's task had failed, and is restarted");
        }
    }
}

async fn restart_failed(connect: &str) -> Result<bool> {
    let status = ask(connect, Method::GET, "/status").await?;
    let failed = states(&status).any(|state| state == "FAILED");
    if failed {
        ask(connect, Method::POST, "/restart?includeTasks=true&onlyFailed=true").await?;
    }
    Ok(failed)
}

async fn until_it_runs(connect: &str) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let status = ask(connect, Method::GET, "/status").await?;
        // The connector, and its task.
        if states(&status).count() >= 2 && states(&status).all(|state| state == "RUNNING") {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < RUNNING_LIMIT, "the connector does not run: {status}");
        sleep(LOOK).await;
    }
}

fn states(status: &Value) -> impl Iterator<Item = &str> {
    let tasks = status["tasks"].as_array().into_iter().flatten();
    std::iter::once(&status["connector"]).chain(tasks).filter_map(|one| one["state"].as_str())
}

/// While Connect moves its work about it answers 409, or 404 for a status that it has not written yet.
async fn ask(connect: &str, method: Method, path: &str) -> Result<Value> {
    let rest = Rest::new(&[connect.to_owned()]);
    let path = format!("/connectors/{NAME}{path}");
    let began = Instant::now();
    loop {
        let answer = rest.raw(method.clone(), &path, None, None, Bytes::new()).await?;
        match answer.status.as_u16() {
            200..=299 => return Ok(answer.body),
            404 | 409 | 500 if began.elapsed() < RUNNING_LIMIT => sleep(LOOK).await,
            status => bail!("Connect answered {method} {path} with {status}: {}", answer.body),
        }
    }
}

/// As the connector's own user, who may end their own sessions.
async fn as_connector(stack: &Stack) -> Result<MySqlConnection> {
    let password = stack.folder().join("secrets/mysql-debezium.password");
    let password = std::fs::read_to_string(&password).with_context(|| format!("reading {}", password.display()))?;
    let options: MySqlConnectOptions = stack.endpoints()?.mysql.parse().context("the address of MySQL")?;
    let options = options.username(USER).password(password.trim()).database("information_schema");
    options.connect().await.context("connecting to MySQL as the connector's user")
}
