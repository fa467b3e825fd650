//! The people and conversations of a run, made by core's bulk import and remembered between runs.
//!
//! The people are `bench-00001` and up. A shape of `rooms` × `members` has conversations of its own, and room `n` the
//! next `members` people after room `n - 1`.

use std::{collections::BTreeMap, env, fs, process::Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};

use crate::{endpoints::Endpoints, people::write_private};

const FILE: &str = "bench-crowd.json";
/// A line of progress after so many answers.
const SAY_EVERY: usize = 1000;

/// Who takes part in one run.
#[derive(Debug)]
pub struct Crowd {
    pub users: Vec<i64>,
    pub rooms: Vec<i64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    /// In the order of their names.
    users: Vec<i64>,
    /// By shape, e.g. `500x5`.
    rooms: BTreeMap<String, Vec<i64>>,
}

/// Finds or makes what a run needs.
pub async fn gather(endpoints: &Endpoints, rooms: usize, members: usize, progress: impl Fn(&str)) -> Result<Crowd> {
    let file = endpoints.folder.join(FILE);
    let text = fs::read_to_string(&file).unwrap_or_default();
    let mut remembered: Remembered = serde_json::from_str(&text).unwrap_or_default();
    if !is_there(endpoints, &remembered).await? {
        remembered = Remembered::default();
    }
    let (users, shape) = (rooms * members, format!("{rooms}x{members}"));
    if remembered.users.len() < users {
        progress(&format!("importing {users} people"));
        let records = (0..users).map(|number| {
            let name = name(number);
            json!({"user": {"username": name, "email": format!("{name}@example.com")}})
        });
        remembered.users = import(endpoints, records, "user_id", &progress).await?;
    }
    if !remembered.rooms.contains_key(&shape) {
        progress(&format!("importing {rooms} conversations of {members}"));
        let records = (0..rooms).map(|room| {
            let first = room * members;
            let others: Vec<String> = (first + 1..first + members).map(name).collect();
            json!({"conversation": {
                "kind": "channel", "name": format!("bench {shape} {room}"), "visibility": "public",
                "creator": name(first), "members": others,
            }})
        });
        let made = import(endpoints, records, "conversation_id", &progress).await?;
        remembered.rooms.insert(shape.clone(), made);
    }
    write_private(&file, &serde_json::to_vec(&remembered)?)?;
    let rooms = remembered.rooms.remove(&shape).unwrap_or_default();
    Ok(Crowd { users: remembered.users.into_iter().take(users).collect(), rooms })
}

fn name(number: usize) -> String {
    format!("bench-{:05}", number + 1)
}

/// Whether what is remembered is of this database: its data may have been thrown away.
async fn is_there(endpoints: &Endpoints, remembered: &Remembered) -> Result<bool> {
    let Some(last) = remembered.users.last() else { return Ok(true) };
    let mut mysql = connect(endpoints).await?;
    let found: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE id = ?").bind(last).fetch_one(&mut mysql).await?;
    Ok(found == 1)
}

/// A connection to the stack's database.
pub async fn connect(endpoints: &Endpoints) -> Result<sqlx::MySqlConnection> {
    use sqlx::Connection as _;
    sqlx::MySqlConnection::connect(&endpoints.mysql).await.context("connecting to MySQL")
}

/// Runs `core-services import`, and takes the id of each answer, in the order of the records.
///
/// # Errors
/// It refused a record, or can't be run.
pub async fn import(
    endpoints: &Endpoints,
    records: impl Iterator<Item = Value>,
    id: &str,
    progress: &impl Fn(&str),
) -> Result<Vec<i64>> {
    let program = env::current_exe()?.with_file_name("core-services");
    let config = endpoints.folder.join("run/core-services-1.yaml");
    let mut child = Command::new(&program)
        .args(["import".as_ref(), "--config".as_ref(), config.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let (mut stdin, stdout, stderr) = match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), Some(stderr)) => (stdin, stdout, stderr),
        _ => bail!("the import has no pipes"),
    };
    let input: Vec<u8> = records.flat_map(|record| format!("{record}\n").into_bytes()).collect();
    let writing = async move {
        // An import that ends early says why itself.
        let _ = stdin.write_all(&input).await;
    };
    let reading = async {
        let mut lines = BufReader::new(stdout).lines();
        let mut ids = Vec::new();
        while let Some(line) = lines.next_line().await? {
            let answer: Value = serde_json::from_str(&line).with_context(|| format!("not an answer: {line}"))?;
            let found = answer[id].as_str().and_then(|id| id.parse().ok());
            ids.push(found.with_context(|| format!("the import refused a record: {line}"))?);
            if ids.len() % SAY_EVERY == 0 {
                progress(&format!("{} imported", ids.len()));
            }
        }
        Ok::<_, anyhow::Error>(ids)
    };
    let complaints = async {
        let mut lines = BufReader::new(stderr).lines();
        let mut last = String::new();
        while let Ok(Some(line)) = lines.next_line().await {
            last = line;
        }
        last
    };
    let ((), ids, last) = tokio::join!(writing, reading, complaints);
    let (ids, status) = (ids?, child.wait().await?);
    ensure!(status.success(), "the import ended with {status}: {last}");
    Ok(ids)
}
