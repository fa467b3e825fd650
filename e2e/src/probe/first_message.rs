//! The first message: from alice on one gateway to bob on another, with the time of each hop.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, interval, timeout};

use crate::{
    demo,
    endpoints::{Endpoints, websocket},
    hops::{self, Stamps},
    rest::Rest,
    stomp::{Client, Frame, Incoming, Reader, Receipt},
    table,
};

/// From SEND to MESSAGE; the first one of a cold stack included.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);
/// The processes write down their stamps right after the deed.
const STAMPS_DEADLINE: Duration = Duration::from_secs(3);
const STAMPS_POLL: Duration = Duration::from_millis(50);

pub async fn run(endpoints: &Endpoints) -> Result<()> {
    let rest = Rest::new(&endpoints.core);
    let (alice, bob) = tokio::try_join!(demo::session(&rest, "alice"), demo::session(&rest, "bob"))?;
    let channel = demo::channel(&rest, &alice, &bob).await?;
    demo::remember(endpoints, channel, &[alice.clone(), bob.clone()])?;

    let second = 1 % endpoints.gateways.len();
    let mut sender = Client::connect(&websocket(&endpoints.gateways[0]), &alice.token).await?;
    let mut receiver = Client::connect(&websocket(&endpoints.gateways[second]), &bob.token).await?;
    sender.subscribe("/user/queue/errors").await?;
    receiver.subscribe(&format!("/topic/conversations/{channel}")).await?;
    let (_open, mut reader, _) = receiver.split();

    let text = "Hello, bob!";
    let body = serde_json::json!({ "body": text, "client_message_id": uuid::Uuid::now_v7().to_string() });
    let sent_us = now_us();
    let (receipt, read_us) = tokio::try_join!(sender.send_message(channel, &body), arrival(&mut reader, &body))?;

    println!("alice said {text:?} on {}, bob read it on {}", endpoints.gateways[0], endpoints.gateways[second]);
    match way(endpoints, &receipt, second, sent_us, read_us).await? {
        Some(way) => print!("{}", way_table(&way)),
        None => println!("  in {} ms; the processes no longer know the hops", ms(read_us - sent_us)),
    }
    let people = [alice, bob].map(|person| vec![person.username, person.user_id.to_string(), person.token]);
    print!("\n{}", table::render(&["user", "id", "access token"], &people));
    println!("  (also in {}, with the password)", endpoints.folder.join("demo.json").display());
    sender.disconnect().await
}

/// When the MESSAGE with the body's client message id was read, in microseconds since the Unix epoch.
async fn arrival(reader: &mut Reader, body: &serde_json::Value) -> Result<i64> {
    let wanted = |frame: &Frame| frame.json()["data"]["client_message_id"] == body["client_message_id"];
    let read = async {
        loop {
            match reader.next().await? {
                Incoming::Frame { frame, read_at } if wanted(&frame) => return Ok(now_us() - micros(read_at.elapsed())),
                Incoming::Frame { .. } => {}
                Incoming::Closed(closed) => bail!("bob's gateway closed: {:?} {}", closed.code, closed.reason),
            }
        }
    };
    timeout(DELIVERY_DEADLINE, read).await.context("the message did not reach bob in time")?
}

async fn way(
    endpoints: &Endpoints,
    receipt: &Receipt,
    gateway: usize,
    sent_us: i64,
    read_us: i64,
) -> Result<Option<[i64; 5]>> {
    let (cores, gateways) = (endpoints.core_admin()?, endpoints.gateway_admin()?);
    let deadline = Instant::now() + STAMPS_DEADLINE;
    let mut ticks = interval(STAMPS_POLL);
    while Instant::now() < deadline {
        ticks.tick().await;
        let stamps = Stamps::read(&cores, &gateways, Some(receipt.conversation_id)).await?;
        if let Some(way) = stamps.way(receipt.conversation_id, receipt.seq, gateway, sent_us, read_us) {
            return Ok(Some(way));
        }
    }
    Ok(None)
}

fn way_table(way: &[i64; 5]) -> String {
    let hops = hops::NAMES.into_iter().zip(hops::MEANINGS).zip(way);
    let mut rows: Vec<Vec<String>> =
        hops.map(|((name, meaning), took)| vec![name.to_owned(), meaning.to_owned(), ms(*took)]).collect();
    rows.push(vec!["total".to_owned(), "SEND written -> MESSAGE read".to_owned(), ms(way.iter().sum())]);
    table::render(&["hop", "from -> to", "ms"], &rows)
}

#[expect(clippy::cast_precision_loss, reason = "a span of microseconds is far below 2^52")]
fn ms(us: i64) -> String {
    format!("{:.1}", us as f64 / 1000.0)
}

fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
