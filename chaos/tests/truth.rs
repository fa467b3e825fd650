//! What is read from the real engines, against what a client of the real stack has seen.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use chaos::{
    checker::Kind,
    history::{ClientRecord, Clock, Floors, RunRecord, Writer, digest},
    truth::{self, Sources},
    verdict,
};
use e2e::{
    stomp::{Client, Frame},
    testing::Stack,
};

/// Above the gateways' linger.
const SETTLE: Duration = Duration::from_secs(30);

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("switchboard-chaos-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It may not have been made.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sources(stack: &Stack, settle: Duration) -> Sources {
    Sources {
        mysql: stack.endpoints.mysql.clone(),
        redis: stack.endpoints.redis.clone(),
        key_prefix: "sb:".to_owned(),
        kafka: stack.endpoints.kafka.clone(),
        group: "fanout".to_owned(),
        topics: vec!["chat.message.events".to_owned()],
        gateways: Vec::new(),
        settle,
    }
}

/// One client that writes down what it does, as the workload's do.
struct Writing {
    client: Client,
    history: Writer<ClientRecord>,
    subscription: String,
}

const MINE: &str = "mine";

impl Writing {
    async fn subscribed(mut client: Client, mut history: Writer<ClientRecord>) -> Result<Self> {
        history.record(&ClientRecord::Connected { session: 1, gateway: "any".to_owned() })?;
        let (session, subscription) = (1, MINE.to_owned());
        history.record(&ClientRecord::Subscribed { session, subscription, conversation: None, resume: None })?;
        let subscription = client.subscribe("/user/queue/events").await?;
        let mut writing = Self { client, history, subscription };
        let frame = writing.client.event("RESUMED").await?;
        writing.take(&frame)?;
        let subscription = MINE.to_owned();
        writing.history.record(&ClientRecord::Attached { session, subscription })?;
        Ok(writing)
    }

    fn take(&mut self, frame: &Frame) -> Result<()> {
        ensure!(frame.header("subscription") == Some(&*self.subscription), "{frame:?}");
        let (session, subscription) = (1, MINE.to_owned());
        let body = frame.json();
        let conversation = body["conversation_id"].as_str().context("of no conversation")?.parse()?;
        let number = |value: &serde_json::Value| value.as_i64().context("no number");
        let event_type = frame.header("event-type").context("no type")?.to_owned();
        let record = if event_type == "RESUMED" {
            let data = &body["data"];
            ClientRecord::Resumed {
                session,
                subscription,
                conversation,
                after_seq: number(&data["after_seq"])?,
                head: number(&data["head"])?,
                epoch: number(&data["epoch"])?,
                user_seq: data["user_seq"].as_i64(),
                recovered: data["recovered"].as_bool().context("recovered")?,
                ended: data["ended"].as_bool().context("ended")?,
                tier: data["tier"].as_str().context("tier")?.to_owned(),
                skipped: Vec::new(),
            }
        } else {
            ClientRecord::Message {
                session,
                subscription,
                conversation,
                seq: number(&body["seq"])?,
                epoch: number(&body["epoch"])?,
                event_type,
                event_id: body["event_id"].as_str().context("no id")?.to_owned(),
                body: digest(&frame.body),
            }
        };
        self.history.record(&record)
    }

    async fn say(&mut self, conversation: i64, text: &str) -> Result<()> {
        let (session, client_message_id) = (1, format!("id of {text}"));
        let (id, digest) = (client_message_id.clone(), digest(text.as_bytes()));
        self.history.record(&ClientRecord::Send { session, conversation, client_message_id: id, text: digest })?;
        let body = serde_json::json!({ "body": text, "client_message_id": client_message_id });
        let receipt = self.client.send_message(conversation, &body).await?;
        let (seq, message_id, epoch) = (receipt.seq, receipt.message, receipt.epoch);
        let answer = ClientRecord::Acknowledged { session, conversation, client_message_id, seq, message_id, epoch };
        self.history.record(&answer)
    }

    async fn hear(&mut self) -> Result<()> {
        let frame = self.client.message().await?;
        self.take(&frame)
    }
}

#[tokio::test]
async fn a_run_without_faults_is_clean_and_a_client_that_stayed_is_found() -> Result<()> {
    let stack = Stack::get()?;
    let folder = Folder::new("truth");
    let clock = Clock::new();
    let mut run = Writer::run(&folder.0, clock)?;
    let floors = Floors { acknowledged: 2, deliveries: 4, ..Floors::default() };
    let (started, command) = (String::new(), String::new());
    run.record(&RunRecord::Run { seed: 0, started, command, late_after_ms: 5000, floors })?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let asked = clock.now();
    let id = stack.channel(&[&alice, &bob]).await?;
    let members = vec![alice.user_id, bob.user_id];
    run.record(&RunRecord::Conversation { id, kind: "channel".to_owned(), members, asked })?;
    let mut clients = Vec::new();
    for (number, (name, person)) in [("alice", &alice), ("bob", &bob)].into_iter().enumerate() {
        let history = Writer::client(&folder.0, clock, name, person.user_id)?;
        clients.push(Writing::subscribed(stack.connect(person, number).await?, history).await?);
    }
    for speaker in 0..2 {
        clients[speaker].say(id, ["hello", "Grüße ✓"][speaker]).await?;
        for client in &mut clients {
            client.hear().await?;
        }
    }
    run.record(&RunRecord::Final)?;
    run.record(&RunRecord::Closed)?;
    run.finish()?;
    let mut connected = Vec::new();
    for Writing { client, history, .. } in clients {
        history.finish()?;
        connected.push(client);
    }

    let gateways = stack.endpoints.gateway_admin()?;
    truth::collect(&folder.0, &Sources { gateways, ..sources(&stack, Duration::ZERO) }).await?;
    let early = verdict::judge(&folder.0)?;
    let texts: Vec<&str> = early.findings.iter().map(|finding| finding.text.as_str()).collect();
    for left in [&*format!("user:{{{}}}:connections", bob.user_id), "gateway_connections", "gateway_subscriptions"] {
        ensure!(texts.iter().any(|text| text.contains(left)), "no {left}: {texts:?}");
    }

    for client in connected {
        client.disconnect().await?;
    }
    truth::collect(&folder.0, &sources(&stack, SETTLE)).await?;
    let verdict = verdict::judge(&folder.0)?;
    // Other tests use the stack at the same time, and their records may be under way.
    ensure!(verdict.counts.keys().all(|kind| *kind == Kind::Lag), "{verdict}");
    Ok(())
}
