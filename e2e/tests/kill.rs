//! Processes that die at once. The tests of this file end and start processes of the stack, one test at a time;
//! cargo runs no other test file meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{
    grpc::{Grpc, service_token},
    history::History,
    load::{self, Plan, Subscribe},
    stomp::{Client, Frame},
    testing::{
        Stack, eventually,
        processes::{alone, kill, restart},
    },
};
use proto::rpc::v1::GetConnectionsByUserRequest;
use tokio::{sync::Notify, time::Instant};

/// The gateway that only this file uses.
const VICTIM: &str = "socket-gateway-3";
const VICTIM_NUMBER: usize = 2;
/// The default `lease.ttl` of a gateway, and some time to see that it has ended.
const LEASE: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_secs(2);

fn record(history: &mut History, client: &str, frame: &Frame) {
    let data = &frame.json()["data"];
    let conversation = frame.number("conversation-id");
    match (frame.header("event-type"), conversation, frame.number("seq")) {
        (Some("RESUMED"), ..) => {
            let id = data["conversation_id"].as_str().and_then(|id| id.parse().ok());
            history.opened(client, id.unwrap_or_default(), data["after_seq"].as_i64().unwrap_or_default());
        }
        (_, Some(conversation), Some(seq)) => history.received(client, conversation, seq, data["body"].as_str()),
        _ => {}
    }
}

#[tokio::test]
async fn a_killed_gateways_connections_are_gone_with_its_lease_and_its_clients_resume_elsewhere() -> Result<()> {
    alone(kill_a_gateway()).await
}

async fn kill_a_gateway() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let destination = format!("/topic/conversations/{conversation}");
    let service = service_token(&stack.endpoints, None).await?;
    let core = Grpc::connect(&stack.endpoints.core[0], Some(&service)).await?;
    let connections = || async {
        let request = GetConnectionsByUserRequest { user_id: bob.user_id };
        let answer = core.connections().get_connections_by_user(request).await?.into_inner();
        anyhow::Ok(answer.connections.len())
    };

    let mut history = History::default();
    let mut sender = stack.connect(&alice, 0).await?;
    let mut receiver = stack.connect(&bob, VICTIM_NUMBER).await?;
    receiver.subscribe(&destination).await?;
    let mut position = None;
    for number in 0..20 {
        let text = format!("before {number}");
        let receipt = sender.say(conversation, &text).await?;
        history.acknowledged(conversation, receipt.seq, &text);
    }
    while position < Some(21) {
        let frame = receiver.message().await?;
        record(&mut history, "bob", &frame);
        position = frame.number("seq").or(position);
    }
    eventually("the connection is registered", || async { Ok((connections().await? == 1).then_some(())) }).await?;

    kill(VICTIM).await?;
    let killed = Instant::now();
    for number in 0..20 {
        let text = format!("while dead {number}");
        let receipt = sender.say(conversation, &text).await?;
        history.acknowledged(conversation, receipt.seq, &text);
    }
    eventually("the connection is gone", || async { Ok((connections().await? == 0).then_some(())) }).await?;
    ensure!(killed.elapsed() < LEASE + MARGIN, "gone after {:?} only", killed.elapsed());
    receiver.closed().await?;

    // Another gateway first, then the same one again.
    for gateway in [1, VICTIM_NUMBER] {
        if gateway == VICTIM_NUMBER {
            restart(VICTIM).await?;
        }
        let mut receiver = Client::connect(&stack.gateway(gateway), &bob.token).await?;
        let after = position.unwrap_or_default().to_string();
        receiver.subscribe_with(&destination, &[("after-seq", after)]).await?;
        let text = format!("live at {gateway}");
        let receipt = sender.say(conversation, &text).await?;
        history.acknowledged(conversation, receipt.seq, &text);
        while position < Some(receipt.seq) {
            let frame = receiver.message().await?;
            record(&mut history, "bob", &frame);
            position = frame.number("seq").or(position);
        }
        receiver.disconnect().await?;
    }
    let verdict = history.verdict();
    assert!(verdict.is_clean(), "{verdict}");
    Ok(())
}

#[tokio::test]
async fn messages_sent_while_a_worker_is_dead_arrive_once_and_in_order() -> Result<()> {
    alone(kill_workers()).await
}

async fn kill_workers() -> Result<()> {
    const MESSAGES: usize = 200;
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut sender = stack.connect(&alice, 0).await?;
    let mut receiver = stack.connect(&bob, 1).await?;
    receiver.subscribe(&format!("/topic/conversations/{conversation}")).await?;
    let mut history = History::default();
    for number in 0..MESSAGES {
        // Both workers in turn: the conversation's partition is with one of them.
        match number {
            50 => kill("fanout-worker-1").await?,
            100 => restart("fanout-worker-1").await?,
            120 => kill("fanout-worker-2").await?,
            150 => restart("fanout-worker-2").await?,
            _ => {}
        }
        let text = format!("message {number}");
        let receipt = sender.say(conversation, &text).await?;
        history.acknowledged(conversation, receipt.seq, &text);
    }
    while history.outstanding() > 0 || history.verdict().deliveries < MESSAGES {
        record(&mut history, "bob", &receiver.message().await?);
    }
    let verdict = history.verdict();
    assert!(verdict.is_clean(), "{verdict}");
    Ok(())
}

#[tokio::test]
async fn a_send_whose_core_was_killed_is_committed_once_when_its_receipt_comes() -> Result<()> {
    alone(kill_cores()).await
}

async fn kill_cores() -> Result<()> {
    const MESSAGES: i64 = 100;
    let stack = Stack::get()?;
    let alice = stack.person("alice").await?;
    let conversation = stack.channel(&[&alice]).await?;
    let mut client = stack.connect(&alice, 0).await?;
    let mut history = History::default();
    client.subscribe(&format!("/topic/conversations/{conversation}")).await?;
    for number in 1..=MESSAGES {
        match number {
            20 => kill("core-services-2").await?,
            50 => restart("core-services-2").await?,
            60 => kill("core-services-1").await?,
            90 => restart("core-services-1").await?,
            _ => {}
        }
        // What was not acknowledged is sent again under the same name, as any client would.
        let body = serde_json::json!({ "body": format!("{number}"), "client_message_id": format!("m{number}") });
        let taken = || client_attempt(&stack, &alice, conversation, &body);
        let receipt = eventually("a core takes the message", taken).await?;
        history.acknowledged(conversation, receipt, &format!("{number}"));
    }
    while history.outstanding() > 0 || history.verdict().deliveries < usize::try_from(MESSAGES)? {
        record(&mut history, "alice", &client.message().await?);
    }
    let verdict = history.verdict();
    assert!(verdict.is_clean(), "{verdict}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_connect_die_under_load_and_everything_arrives_once_and_in_order() -> Result<()> {
    alone(kill_engines()).await
}

async fn kill_engines() -> Result<()> {
    let stack = Stack::get()?;
    let plan = Plan {
        users: 60,
        rooms: 20,
        rooms_per_user: 3,
        rate: 50.0,
        time: Duration::from_secs(20),
        size: 128,
        gateways: usize::MAX,
        subscribe: Subscribe::Queue,
        drain: Duration::from_secs(90),
    };
    let under_way = Notify::new();
    let progress = |line: &str| {
        println!("{line}");
        // "   4 s  sent …"
        let seconds = line.split_once(" s  sent").and_then(|(seconds, _)| seconds.trim().parse::<u32>().ok());
        if seconds >= Some(3) {
            under_way.notify_one();
        }
    };
    let disturb = async {
        under_way.notified().await;
        // It keeps nothing on disk: it comes back empty.
        for engine in ["redis", "connect"] {
            kill(engine).await?;
            restart(engine).await?;
        }
        Ok(())
    };
    let (report, ()) = tokio::try_join!(load::run(&stack.endpoints, &plan, progress), disturb)?;
    ensure!(report.is_clean(), "the promise was broken:\n{report}");
    Ok(())
}

/// One SEND in a session of its own; `None` when it was refused as unavailable.
async fn client_attempt(
    stack: &Stack,
    person: &e2e::testing::Person,
    conversation: i64,
    body: &serde_json::Value,
) -> Result<Option<i64>> {
    let mut client = stack.connect(person, 1).await?;
    match client.send_message(conversation, body).await {
        Ok(receipt) => Ok(Some(receipt.seq)),
        Err(error) => match error.downcast_ref::<e2e::stomp::Refusal>() {
            Some(refusal) if refusal.code == "unavailable" => Ok(None),
            _ => Err(error),
        },
    }
}
