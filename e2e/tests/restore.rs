//! A restore, as an operator does it: a backup is made under load, writing goes on, the backup takes the database's
//! place, the epoch is raised. cargo runs no other test file meanwhile.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    kafka::{Start, Topic, header},
    stomp::{Client, Frame},
    testing::{DEADLINE, Stack, processes::alone},
};
use proto::topics::{self, MESSAGE_EVENTS};
use serde_json::{Value, json};
use tokio::{process::Command, sync::watch, time::Instant};

/// A message whose RECEIPT was seen.
struct Sent {
    seq: i64,
    body: Value,
}

/// Calls the tool that started the stack.
async fn xtask(stack: &Stack, arguments: &[&str]) -> Result<()> {
    let tool = std::env::var_os("SWITCHBOARD_XTASK").context("SWITCHBOARD_XTASK is not set: use `cargo xtask test`")?;
    let name = stack.endpoints.folder.file_name().context("the stack's folder has a name")?;
    let mut command = Command::new(PathBuf::from(tool));
    command.arg("--stack").arg(name).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?} failed: {said}");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// Sends until `enough`, and counts.
async fn send(
    client: &mut Client,
    conversation: i64,
    count: &watch::Sender<usize>,
    enough: &watch::Receiver<bool>,
) -> Result<Vec<Sent>> {
    let mut sent = Vec::new();
    while !*enough.borrow() {
        let number = sent.len();
        let body = json!({ "body": format!("message {number}"), "client_message_id": format!("m{number}") });
        let receipt = client.send_message(conversation, &body).await?;
        ensure!(receipt.epoch == 1 || receipt.epoch > 1_700_000_000, "an epoch is a time: {}", receipt.epoch);
        sent.push(Sent { seq: receipt.seq, body });
        count.send_replace(sent.len());
    }
    Ok(sent)
}

fn is_resumed(frame: &Frame, conversation: i64, above: i64) -> bool {
    frame.header("event-type") == Some("RESUMED")
        && frame.number("conversation-id") == Some(conversation)
        && frame.number("epoch") > Some(above)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_clients_are_told_and_nothing_new_is_taken_for_what_was_lost() -> Result<()> {
    alone(restore_under_load()).await
}

async fn restore_under_load() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob, carol] = stack.people(["alice", "bob", "carol"]).await?;
    let conversation = stack.channel(&[&alice, &bob]).await?;
    let other = stack.channel(&[&alice, &carol]).await?;
    let topic = |id: i64| format!("/topic/conversations/{id}");
    let mut sender = stack.connect(&alice, 0).await?;
    let mut reader = stack.connect(&bob, 1).await?;
    reader.subscribe(&topic(conversation)).await?;

    let (count, mut counted) = watch::channel(0);
    let (stop, enough) = watch::channel(false);
    let backup = stack.endpoints.folder.join("data").join(format!("backup-{}", uuid::Uuid::now_v7().simple()));
    let folder = backup.to_str().context("a path in UTF-8")?;
    let disturb = async {
        counted.wait_for(|count| *count >= 30).await?;
        let began = Instant::now();
        xtask(&stack, &["backup", folder]).await?;
        let during = *counted.borrow();
        println!(
            "the backup took {:.1} s; {} messages were sent meanwhile",
            began.elapsed().as_secs_f64(),
            during - 30
        );
        counted.wait_for(|count| *count >= during + 50).await?;
        stop.send_replace(true);
        anyhow::Ok(())
    };
    let (sent, ()) = tokio::try_join!(send(&mut sender, conversation, &count, &enough), disturb)?;
    let epoch = reader.event("MESSAGE").await?.number("epoch").context("an epoch")?;
    // All of this is lost too: a membership, and a whole conversation.
    stack.rest.add_members(&alice.token, other, &[bob.user_id]).await?;
    let late = stack.channel(&[&alice, &bob]).await?;
    let mut everything = stack.connect(&bob, 1).await?;
    everything.subscribe("/user/queue/events").await?;
    let mut of_other = stack.connect(&bob, 0).await?;
    of_other.subscribe(&topic(other)).await?;
    let mut of_late = stack.connect(&bob, 0).await?;
    of_late.subscribe(&topic(late)).await?;

    // One that fails when the database has been replaced leaves nothing that cores may write to.
    let damaged = backup.with_extension("damaged");
    std::fs::create_dir(&damaged)?;
    std::fs::write(damaged.join("mysql.ibd"), "no table space")?;
    let damaged = damaged.to_str().context("a path in UTF-8")?;
    assert!(xtask(&stack, &["restore", damaged]).await.is_err());
    for refused in [&["restart", "core-services-1"][..], &["up", "--detach"]] {
        let refusal = xtask(&stack, refused).await.map_or_else(|error| error.to_string(), |()| "taken".to_owned());
        assert!(refusal.contains("has not ended") && refusal.contains(damaged), "{refusal}");
    }

    let began = Instant::now();
    xtask(&stack, &["restore", folder, "--reason", "a test"]).await?;
    println!("the restore took {:.1} s", began.elapsed().as_secs_f64());
    let restored = stack.rest.get(&format!("/api/v1/conversations/{conversation}"), &alice.token).await?;
    let head = restored["last_seq"].as_i64().context("last_seq")?;
    let (kept, lost): (Vec<&Sent>, Vec<&Sent>) = sent.iter().partition(|sent| sent.seq <= head);
    println!("{} messages were kept, {} are lost", kept.len(), lost.len());
    assert!(!kept.is_empty() && lost.len() >= 50, "{} kept, {} lost", kept.len(), lost.len());

    // Who stayed connected is told.
    for client in [&mut reader, &mut everything] {
        let told =
            client.message_where("RESUMED of the new epoch", |frame| is_resumed(frame, conversation, epoch)).await?;
        let data = &told.json()["data"];
        assert_eq!(
            (&data["recovered"], &data["ended"], &data["after_seq"]),
            (&false.into(), &false.into(), &head.into())
        );
    }
    println!("who stayed connected was told {:.1} s after the beginning", began.elapsed().as_secs_f64());
    for gone in [other, late] {
        let told = everything.message_where("the end of what is lost", |frame| is_resumed(frame, gone, epoch)).await?;
        let data = &told.json()["data"];
        assert_eq!((&data["recovered"], &data["ended"]), (&false.into(), &true.into()), "{told:?}");
    }
    assert_eq!(of_other.refusal().await?.code, "not_a_member");
    assert_eq!(of_late.refusal().await?.code, "not_found");

    // What was lost and is sent again is new, under seqs that were used before.
    let records = Topic::open(&stack.endpoints.kafka, MESSAGE_EVENTS, Start::End).await?;
    let receipt = sender.send_message(conversation, &lost[0].body).await?;
    assert_eq!(receipt.seq, head + 1);
    assert!(receipt.epoch > epoch, "{receipt:?}");
    let path = format!("/api/v1/conversations/{conversation}/messages");
    for sent in &lost[1..] {
        let answer = stack.rest.post(&path, &alice.token, &sent.body).await?;
        assert_eq!(answer["duplicate"], false, "{answer}");
    }
    let first = stack.rest.post(&path, &alice.token, &kept[0].body).await?;
    assert_eq!(
        (&first["duplicate"], &first["seq"], &first["epoch"]),
        (&true.into(), &kept[0].seq.into(), &epoch.into())
    );
    for client in [&mut reader, &mut everything] {
        for (index, sent) in lost.iter().enumerate() {
            let new = |frame: &Frame| {
                frame.number("conversation-id") == Some(conversation) && frame.number("epoch") == Some(receipt.epoch)
            };
            let frame =
                client.message_where("the next message", |frame| new(frame) && frame.number("seq").is_some()).await?;
            assert_eq!(frame.number("seq"), Some(head + 1 + i64::try_from(index)?));
            assert_eq!(frame.json()["data"]["body"], sent.body["body"]);
        }
    }
    let is_new = |record: &_| {
        let number = |name| header(record, name).and_then(|text| text.parse::<i64>().ok());
        number(topics::header::CONVERSATION_ID) == Some(conversation)
            && number(topics::header::EPOCH) == Some(receipt.epoch)
    };
    records.find(Instant::now() + DEADLINE, is_new).await.context("the change stream goes on")?;

    // Who comes back with a place in the lost past is told, wherever that place is.
    let last = head + i64::try_from(lost.len())?;
    for seq in [kept[0].seq, lost[0].seq, lost[lost.len() - 1].seq + 1000] {
        let mut back = stack.connect(&bob, 0).await?;
        let place = [("after-seq", seq.to_string()), ("after-epoch", epoch.to_string())];
        back.subscribe_with(&topic(conversation), &place).await?;
        let resumed = back.event("RESUMED").await?.json()["data"].clone();
        assert_eq!((&resumed["recovered"], &resumed["after_seq"]), (&false.into(), &last.into()), "{seq}: {resumed}");
    }
    std::fs::remove_dir_all(&backup)?;
    Ok(())
}
