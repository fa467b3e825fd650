//! People and conversations of a run, from core's bulk import; their tokens are signed with the stack's own key.

use std::{collections::HashMap, process::Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use proto::{Claims, claims};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::Plan;
use crate::{endpoints::Endpoints, grpc, rest::id_in, tokens};

/// How long the tokens last.
const TOKEN_SECONDS: i64 = 3600;

/// Who takes part.
#[derive(Debug)]
pub struct Crowd {
    pub people: Vec<Person>,
    pub rooms: Vec<i64>,
    /// Of the gateways' service client.
    pub service_token: String,
    /// Tells this run's messages from those of another.
    pub run: String,
}

#[derive(Debug)]
pub struct Person {
    pub id: i64,
    pub token: String,
    /// By number.
    pub room: usize,
}

impl Crowd {
    pub async fn gather(endpoints: &Endpoints, plan: &Plan) -> Result<Self> {
        let service_token = grpc::service_token(endpoints, None).await?;
        let answers = import(endpoints, &records(plan)).await?;
        let ids: HashMap<&str, i64> = answers
            .iter()
            .filter_map(|answer| Some((answer["username"].as_str()?, id_in(answer, "user_id").ok()?)))
            .collect();
        let signer = plan.subscribe.then_some(tokens::Signer::of_the_stack(endpoints).await?);
        let issued = tokens::claims_of(&service_token)?;
        let mut people = Vec::new();
        for room in 0..plan.rooms {
            for member in 0..plan.members {
                let id = *ids.get(username(room, member).as_str()).context("the import answers each user")?;
                let claims = Claims {
                    sub: id.to_string(),
                    exp: issued.iat + TOKEN_SECONDS,
                    jti: uuid::Uuid::now_v7().to_string(),
                    scope: claims::USER_SCOPES.to_owned(),
                    client_id: None,
                    sid: None,
                    ..issued.clone()
                };
                let token = signer.as_ref().map(|signer| signer.sign(&claims)).transpose()?.unwrap_or_default();
                people.push(Person { id, token, room });
            }
        }
        let rooms: Vec<i64> = answers.iter().filter_map(|answer| id_in(answer, "conversation_id").ok()).collect();
        ensure!(rooms.len() == plan.rooms, "the import answered {} conversations", rooms.len());
        Ok(Self { people, rooms, service_token, run: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned() })
    }
}

fn username(room: usize, member: usize) -> String {
    format!("durable-{room}-{member}")
}

fn records(plan: &Plan) -> Vec<Value> {
    let members = |room| (0..plan.members).map(move |member| username(room, member));
    let people = (0..plan.rooms).flat_map(members);
    let people = people.map(|name| json!({ "user": { "username": name, "email": format!("{name}@example.com") } }));
    let rooms = (0..plan.rooms).map(|room| {
        let name = format!("durable-{room}-of-{}", plan.members);
        let (creator, others) = (username(room, 0), members(room).skip(1).collect::<Vec<_>>());
        json!({ "conversation": { "kind": "channel", "name": name, "creator": creator, "members": others } })
    });
    people.chain(rooms).collect()
}

/// Runs the importer of the core that runs, with its configuration.
async fn import(endpoints: &Endpoints, records: &[Value]) -> Result<Vec<Value>> {
    const CORE: &str = "core-services-1";
    let pid = endpoints.process(CORE)?.pid;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).context("which program core is")?;
    let config = endpoints.folder.join(format!("run/{CORE}.yaml"));
    let mut command = Command::new(program);
    command.arg("import").arg("--config").arg(&config).stdin(Stdio::piped()).stdout(Stdio::piped());
    let begun = std::time::Instant::now();
    let mut child = command.spawn().context("starting the import")?;
    let mut input = child.stdin.take().context("the importer's input")?;
    let mut text = String::new();
    for record in records {
        text += &format!("{record}\n");
    }
    let writing = tokio::spawn(async move { input.write_all(text.as_bytes()).await });
    let output = child.wait_with_output().await?;
    writing.await??;
    if !output.status.success() {
        bail!("the import failed: {}", String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default());
    }
    println!("{} records imported in {:.1} s", records.len(), begun.elapsed().as_secs_f64());
    output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| Ok(serde_json::from_slice(line)?))
        .collect()
}
