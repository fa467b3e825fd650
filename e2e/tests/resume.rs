//! Many clients that come back at once.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    metrics::Metrics,
    stomp::{Client, Frame},
    testing::Stack,
};
use futures_util::future::try_join_all;
use serde_json::json;

/// The gateway that they all come to; nobody there has followed the conversation before.
const GATEWAY: usize = 1;

/// Pages of the event log that this gateway has read, and uses of one that somebody else had asked for.
async fn pages(stack: &Stack) -> Result<[u64; 2]> {
    let metrics = Metrics::of(&stack.endpoints.gateway_admin()?[GATEWAY]).await?;
    let count = |name| metrics.get(name).with_context(|| format!("there is no {name}"));
    Ok([count("gateway_log_pages_total")? as u64, count("gateway_log_pages_shared_total")? as u64])
}

async fn read_all(client: &mut Client, first: i64, last: i64) -> Result<()> {
    let resumed = client.event("RESUMED").await?.json()["data"].clone();
    ensure!(resumed["tier"] == "log" && resumed["recovered"] == true, "{resumed}");
    for seq in first..=last {
        let frame = client.message().await?;
        ensure!(frame.number("seq") == Some(seq), "expected {seq}: {frame:?}");
    }
    Ok(())
}

#[tokio::test]
async fn clients_that_come_back_at_once_share_what_is_read_for_them() -> Result<()> {
    const CLIENTS: u64 = 80;
    const MESSAGES: i64 = 500;
    let stack = Stack::get()?;
    let [alice, bob] = stack.people(["alice", "bob"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let mut sender = stack.connect(&alice, 0).await?;
    for number in 1..=MESSAGES {
        let send = Frame::new("SEND")
            .with("destination", format_args!("/app/conversations/{conversation}/messages"))
            .with("receipt", number)
            .with_body(json!({ "body": format!("message {number}") }).to_string());
        sender.write(&send).await?;
    }
    sender.receipt(&MESSAGES.to_string()).await?;

    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let person = if number % 2 == 0 { &alice } else { &bob };
        clients.push(Client::connect(&stack.gateway(GATEWAY), &person.token).await?);
    }
    let before = pages(&stack).await?;
    let destination = format!("/topic/conversations/{conversation}");
    for client in &mut clients {
        let subscribe =
            Frame::new("SUBSCRIBE").with("id", "back").with("destination", &destination).with("after-seq", 1);
        client.write(&subscribe).await?;
    }
    try_join_all(clients.iter_mut().map(|client| read_all(client, 2, MESSAGES + 1))).await?;
    let after = pages(&stack).await?;
    let [read, shared] = [after[0] - before[0], after[1] - before[1]];
    println!("{CLIENTS} clients, {MESSAGES} events each: {read} pages were read and used {shared} times more");
    // Each for itself would read three. Other tests read some meanwhile.
    ensure!(read < CLIENTS && shared > CLIENTS, "{read} pages, used {shared} times more");
    Ok(())
}
