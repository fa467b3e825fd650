//! The outbox connector through Connect's REST interface, and what an operator's watchdog does: restart a task that
//! has failed, which Connect never does by itself.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use e2e::rest::Rest;
use http::Method;
use serde_json::Value;
use sqlx::{ConnectOptions as _, MySqlConnection, mysql::MySqlConnectOptions};
use tokio::time::{Instant, sleep};

use super::{Effect, commits, inject::seconds};
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
pub async fn restart(stack: &Stack) -> Result<Effect> {
    let mut mysql = as_connector(stack).await?;
    let before = sessions(&mut mysql).await?;
    let connect = stack.endpoints()?.connect;
    ask(&connect, Method::POST, "/restart?includeTasks=true").await?;
    // RUNNING is also what Connect says of the task that it has not stopped yet.
    until_gone(&mut mysql, &before).await?;
    let restarted = until_it_runs(&connect).await?;
    let detail = format!("{} sessions of the task ended, RUNNING {} later", before.len(), seconds(restarted));
    Ok(Effect { took_effect: !before.is_empty(), detail })
}

/// Ends the connector's sessions with MySQL, as a fail-over or an operator would.
pub async fn kill_sessions(stack: &Stack) -> Result<Effect> {
    let mut mysql = as_connector(stack).await?;
    let sessions = sessions(&mut mysql).await?;
    let killed = kill(&mut mysql, &sessions).await;
    until_gone(&mut mysql, &sessions).await?;
    until_it_runs(&stack.endpoints()?.connect).await?;
    Ok(Effect { took_effect: killed > 0, detail: format!("{killed} sessions ended") })
}

/// Locks the connector out of MySQL until its task has failed and for `length` more. Then it is for the watchdog.
pub async fn fail(stack: &Stack, length: Duration) -> Result<Effect> {
    let mut root = commits::connect(stack).await?;
    let mut mysql = as_connector(stack).await?;
    let connect = stack.endpoints()?.connect;
    commits::run(&mut root, &format!("ALTER USER {USER}@'%' ACCOUNT LOCK")).await?;
    let failed = async {
        let before = sessions(&mut mysql).await?;
        kill(&mut mysql, &before).await;
        // A task that has lost its session tries again for as long as it lives; one that starts fails.
        ask(&connect, Method::POST, "/restart?includeTasks=true").await?;
        let failed = until(&connect, |states| states.iter().any(|state| state == "FAILED")).await?;
        sleep(length).await;
        Ok::<_, anyhow::Error>(failed)
    }
    .await;
    commits::run(&mut root, &format!("ALTER USER {USER}@'%' ACCOUNT UNLOCK")).await?;
    let (failed, runs) = (failed?, until_it_runs(&connect).await?);
    let detail = format!("FAILED after {}, RUNNING {} after it may", seconds(failed), seconds(runs));
    Ok(Effect { took_effect: true, detail })
}

/// The connector's sessions with MySQL, this one not.
async fn sessions(mysql: &mut MySqlConnection) -> Result<Vec<u64>> {
    let others = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ? AND ID <> CONNECTION_ID()";
    sqlx::query_scalar(others).bind(USER).fetch_all(mysql).await.context("listing MySQL's sessions")
}

/// How many were there still.
async fn kill(mysql: &mut MySqlConnection, sessions: &[u64]) -> usize {
    let mut killed = 0;
    for id in sessions {
        // One may end by itself in between.
        let kill = sqlx::query(sqlx::AssertSqlSafe(format!("KILL {id}"))).execute(&mut *mysql).await;
        killed += usize::from(kill.is_ok());
    }
    killed
}

async fn until_gone(mysql: &mut MySqlConnection, gone: &[u64]) -> Result<()> {
    let began = Instant::now();
    while sessions(mysql).await?.iter().any(|session| gone.contains(session)) {
        ensure!(began.elapsed() < RUNNING_LIMIT, "the connector keeps its sessions with MySQL");
        sleep(LOOK).await;
    }
    Ok(())
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
    // The connector, and its task.
    until(connect, |states| states.len() >= 2 && states.iter().all(|state| state == "RUNNING")).await
}

/// How long it took.
async fn until(connect: &str, is_so: impl Fn(&[String]) -> bool) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let status = ask(connect, Method::GET, "/status").await?;
        if is_so(&states(&status).map(str::to_owned).collect::<Vec<_>>()) {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < RUNNING_LIMIT, "the connector is not as it should be: {status}");
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
