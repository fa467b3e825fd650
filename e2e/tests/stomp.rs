//! STOMP over the whole stack: versions, acknowledgements, transactions, errors. What each frame has to be is shown
//! beside the gateway's code; here is what only the stack shows: that it is stored, and arrives.

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    stomp::{Client, Closed, Frame, Incoming, Reader, Writer, connect_as, connect_raw},
    testing::Stack,
};

/// The next so many messages, with their ack ids.
async fn messages(client: &mut Client, count: usize) -> Result<Vec<(i64, String)>> {
    let mut messages = Vec::new();
    for _ in 0..count {
        let frame = client.event("MESSAGE").await?;
        let ack = frame.header("ack").context("no ack header")?.to_owned();
        messages.push((frame.number("seq").context("no seq")?, ack));
    }
    Ok(messages)
}

fn ack(id: &str) -> Frame {
    Frame::new("ACK").with("id", id)
}

async fn next(reader: &mut Reader) -> Result<Frame> {
    match reader.next().await? {
        Incoming::Frame { frame, .. } => Ok(frame),
        Incoming::Closed(closed) => bail!("closed: {closed:?}"),
    }
}

async fn close(reader: &mut Reader) -> Result<Closed> {
    match reader.next().await? {
        Incoming::Closed(closed) => Ok(closed),
        Incoming::Frame { frame, .. } => bail!("another frame: {frame:?}"),
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_stored_as_the_delivered_position() -> Result<()> {
    let stack = Stack::get()?;
    let [nina, noah] = stack.people(["nina", "noah"]).await?;
    let one = stack.channel(&[&nina, &noah]).await?;
    let other = stack.channel(&[&nina, &noah]).await?;
    let mut sender = stack.connect(&nina, 0).await?;
    let mut reader = stack.connect(&noah, 1).await?;
    let individual = [("ack", "client-individual".to_owned())];
    reader.subscribe_with(&format!("/topic/conversations/{one}"), &individual).await?;
    let mut last = 0;
    for text in ["a", "b", "c"] {
        last = sender.say(one, text).await?.seq;
    }
    let got = messages(&mut reader, 3).await?;
    ensure!(got.iter().map(|(seq, _)| *seq).eq(last - 2..=last), "{got:?}");
    // Out of order: the position waits for the first.
    reader.request(ack(&got[2].1)).await?;
    reader.request(ack(&got[0].1)).await?;
    stack.delivered_becomes(&noah, one, last - 2).await?;
    reader.request(ack(&got[1].1)).await?;
    stack.delivered_becomes(&noah, one, last).await?;

    // On the user's queue the last one covers both conversations.
    let mut queue = stack.connect(&noah, 0).await?;
    queue.subscribe_with("/user/queue/events", &[("ack", "client".to_owned())]).await?;
    let first = sender.say(other, "d").await?.seq;
    let (_, id) = messages(&mut queue, 1).await?.remove(0);
    let second = sender.say(one, "e").await?.seq;
    messages(&mut queue, 1).await?;
    queue.request(Frame::new("NACK").with("id", &id)).await?;
    let third = sender.say(other, "f").await?.seq;
    let (_, id) = messages(&mut queue, 1).await?.remove(0);
    ensure!(third == first + 1 && stack.delivered(&noah, other).await?.unwrap_or(0) < first);
    queue.request(ack(&id)).await?;
    // DISCONNECT is receipted when positions are stored.
    queue.disconnect().await?;
    assert_eq!(stack.delivered(&noah, one).await?, Some(second));
    assert_eq!(stack.delivered(&noah, other).await?, Some(third));
    Ok(())
}

#[tokio::test]
async fn a_transaction_is_stored_at_its_commit_and_not_when_it_is_aborted() -> Result<()> {
    let stack = Stack::get()?;
    let [nina, noah] = stack.people(["nina", "noah"]).await?;
    let conversation = stack.channel(&[&nina, &noah]).await?;
    let mut sender = stack.connect(&nina, 0).await?;
    let mut reader = stack.connect(&noah, 1).await?;
    reader.subscribe(&format!("/topic/conversations/{conversation}")).await?;
    let send = |text: &str, transaction: &str| {
        Frame::new("SEND")
            .with("destination", format_args!("/app/conversations/{conversation}/messages"))
            .with("transaction", transaction)
            .with_body(serde_json::json!({ "body": text }).to_string())
    };
    let about = |verb: &str, transaction: &str| Frame::new(verb).with("transaction", transaction);
    for transaction in ["kept", "dropped"] {
        sender.request(about("BEGIN", transaction)).await?;
    }
    sender.write(&send("one", "kept").with("receipt", "one")).await?;
    sender.write(&send("never", "dropped").with("receipt", "never")).await?;
    let between = sender.say(conversation, "between").await?;
    sender.write(&send("two", "kept").with("receipt", "two")).await?;
    sender.request(about("ABORT", "dropped")).await?;
    sender.write(&about("COMMIT", "kept").with("receipt", "commit")).await?;
    let mut seqs = Vec::new();
    for id in ["one", "two"] {
        seqs.push(sender.receipt(id).await?.number("seq").context("no seq")?);
    }
    assert_eq!(seqs, [between.seq + 1, between.seq + 2], "held while another one was stored");
    sender.receipt("commit").await?;
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.push(reader.event("MESSAGE").await?.json()["data"]["body"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(texts, ["between", "one", "two"]);
    // A transaction with a SEND that core refuses: the others stand, and COMMIT has no receipt.
    let [stranger] = stack.people(["stranger"]).await?;
    let foreign = stack.channel(&[&stranger]).await?;
    sender.request(about("BEGIN", "mixed")).await?;
    let mut refused = send("not mine", "mixed");
    refused.headers[0].1 = format!("/app/conversations/{foreign}/messages");
    sender.write(&refused.with("receipt", "foreign")).await?;
    sender.write(&send("mine", "mixed").with("receipt", "mine")).await?;
    let error = sender.request(about("COMMIT", "mixed")).await.unwrap_err();
    assert_eq!(error.downcast_ref::<e2e::stomp::Refusal>().map(|refusal| refusal.code.as_str()), Some("not_a_member"));
    assert!(sender.receipt("foreign").await.is_err());
    assert_eq!(sender.receipt("mine").await?.number("seq"), Some(between.seq + 3));
    sender.disconnect().await
}

#[tokio::test]
async fn an_error_arrives_before_the_close_and_names_the_receipt() -> Result<()> {
    let stack = Stack::get()?;
    let [mallory] = stack.people(["mallory"]).await?;
    let url = stack.gateway(0);
    for (what, bytes) in [
        ("an unknown transaction", "COMMIT\ntransaction:t\nreceipt:r\\c1\n\n\0"),
        ("an ACK of what was never sent", "ACK\nid:1-7-1\nreceipt:r\\c1\n\n\0"),
        ("a body that may not be", "BEGIN\ntransaction:t\nreceipt:r\\c1\n\nbody\0"),
        ("an unknown command", "SHOUT\nreceipt:r\\c1\n\n\0"),
        ("an undefined escape", "SEND\nreceipt:r\\c1\ndestination:\\t\n\n\0"),
        ("a doubled subscription", "SUBSCRIBE\nid:e\ndestination:/user/queue/errors\nreceipt:r\\c1\n\n\0"),
    ] {
        let (mut writer, mut reader) = connect_raw(&url).await?;
        writer.send_raw(&format!("CONNECT\naccept-version:1.2\npasscode:{}\n\n\0", mallory.token)).await?;
        assert_eq!(next(&mut reader).await?.command, "CONNECTED");
        // One message with a frame that is well, the breach, and one that is never looked at.
        let well = "SUBSCRIBE\nid:e\ndestination:/user/queue/errors\nreceipt:well\n\n\0";
        writer.send_raw(&format!("{well}\n{bytes}DISCONNECT\nreceipt:late\n\n\0")).await?;
        assert_eq!(next(&mut reader).await?.header("receipt-id"), Some("well"), "{what}");
        let error = next(&mut reader).await?;
        assert_eq!((&*error.command, error.header("receipt-id")), ("ERROR", Some("r:1")), "{what}: {error:?}");
        assert_eq!(error.number("content-length"), Some(error.body.len() as i64), "{what}");
        assert!(error.header("message").is_some_and(|message| message.len() > 10), "{what}: {error:?}");
        assert_eq!(close(&mut reader).await?.code, Some(4400), "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn ids_come_back_with_every_character_that_they_have() -> Result<()> {
    let stack = Stack::get()?;
    let [nina] = stack.people(["nina"]).await?;
    let conversation = stack.channel(&[&nina]).await?;
    let mut client = stack.connect(&nina, 0).await?;
    for id in ["a:b\\c\nd\re", " padded ", "ü😀", "-", ""] {
        let destination = format!("/topic/conversations/{conversation}");
        let subscribe = Frame::new("SUBSCRIBE").with("id", id).with("destination", &destination);
        client.write(&subscribe.with("ack", "client").with("receipt", format_args!("r{id}"))).await?;
        client.receipt(&format!("r{id}")).await?;
        let receipt = client.say(conversation, "hello").await?;
        let found =
            |frame: &Frame| frame.number("seq") == Some(receipt.seq) && frame.header("subscription") == Some(id);
        let message = client.message_where("the message on that subscription", found).await?;
        client.request(ack(message.header("ack").context("no ack header")?)).await?;
        client.request(Frame::new("UNSUBSCRIBE").with("id", id)).await?;
    }
    client.disconnect().await
}

/// Opens a session and gives the version that is spoken.
async fn open(
    url: &str,
    subprotocol: Option<&'static str>,
    accept: &str,
    token: &str,
) -> Result<(Writer, Reader, Frame)> {
    let (mut writer, mut reader) = connect_as(url, subprotocol).await?;
    writer.send_raw(&format!("CONNECT\n{accept}passcode:{token}\n\n\0")).await?;
    let answer = next(&mut reader).await?;
    Ok((writer, reader, answer))
}

#[tokio::test]
async fn the_version_is_agreed_on_by_header_and_by_subprotocol() -> Result<()> {
    let stack = Stack::get()?;
    let [nina] = stack.people(["nina"]).await?;
    let url = stack.gateway(0);
    for (subprotocol, accept, version) in [
        (None, "", "1.0"),
        (None, "accept-version:1.0,1.1\n", "1.1"),
        (None, "accept-version:1.1,1.2,9.9\n", "1.2"),
        (Some("v10.stomp"), "accept-version:1.0,1.1,1.2\n", "1.2"),
        (Some("v12.stomp"), "accept-version:1.1\n", "1.1"),
        (Some("v11.stomp"), "", "1.1"),
        (Some("v12.stomp"), "accept-version:1.2\n", "1.2"),
    ] {
        let (_writer, _reader, answer) = open(&url, subprotocol, accept, &nina.token).await?;
        let spoken = (&*answer.command, answer.header("version"));
        assert_eq!(spoken, ("CONNECTED", Some(version)), "{subprotocol:?} {accept}");
    }
    for subprotocol in [None, Some("v12.stomp")] {
        let (_writer, mut reader, answer) = open(&url, subprotocol, "accept-version:2.0\n", &nina.token).await?;
        assert_eq!((&*answer.command, answer.header("version")), ("ERROR", Some("1.0,1.1,1.2")), "{subprotocol:?}");
        assert_eq!(close(&mut reader).await?.code, Some(4400));
    }
    Ok(())
}

#[tokio::test]
async fn old_versions_are_spoken_as_they_were_written() -> Result<()> {
    let stack = Stack::get()?;
    let [nina, noah] = stack.people(["nina", "noah"]).await?;
    let conversation = stack.channel(&[&nina, &noah]).await?;
    let mut nina = stack.connect(&nina, 1).await?;
    let (topic, to) =
        (format!("/topic/conversations/{conversation}"), format!("/app/conversations/{conversation}/messages"));

    // 1.0: padding, nothing escaped, no id; acknowledged by message-id, left by destination. As binary messages.
    let (mut writer, reader, _) = open(&stack.gateway(0), None, "", &noah.token).await?;
    let mut reader = reader.without_escapes();
    let subscribe = format!("SUBSCRIBE\ndestination: {topic}\nack: client\nreceipt: a:b\\c\n\n\0");
    writer.send_binary(subscribe.into_bytes()).await?;
    let resumed = next(&mut reader).await?;
    assert_eq!((resumed.header("subscription"), resumed.header("destination")), (None, Some(&*topic)));
    assert_eq!(next(&mut reader).await?.header("receipt-id"), Some("a:b\\c"));
    // A frame over two messages.
    let send = format!("SEND\ndestination:{to}\nreceipt:s\n\n{{\"body\":\"hi\"}}\0");
    let (first, second) = send.split_at(20);
    writer.send_raw(first).await?;
    writer.send_raw(second).await?;
    let mut frames = [next(&mut reader).await?, next(&mut reader).await?];
    frames.sort_by_key(|frame| frame.command.clone());
    let [message, receipt] = frames;
    assert_eq!((&*message.command, receipt.header("receipt-id")), ("MESSAGE", Some("s")));
    let seq = nina.say(conversation, "for the old").await?.seq;
    assert_eq!(next(&mut reader).await?.number("seq"), Some(seq));
    writer.send_raw(&format!("ACK\nmessage-id: {conversation}-{seq}\n\n\0")).await?;
    writer.send_raw(&format!("UNSUBSCRIBE\ndestination:{topic}\nreceipt:u\n\n\0DISCONNECT\nreceipt:d\n\n\0")).await?;
    assert_eq!(next(&mut reader).await?.header("receipt-id"), Some("u"));
    assert_eq!(next(&mut reader).await?.header("receipt-id"), Some("d"));
    assert_eq!(close(&mut reader).await?.code, Some(1000));
    assert_eq!(stack.delivered(&noah, conversation).await?, Some(seq));

    // 1.1: ids escaped, but for the carriage return; acknowledged by message-id and subscription.
    let (mut writer, mut reader, _) = open(&stack.gateway(0), None, "accept-version:1.1\n", &noah.token).await?;
    let subscribe = format!("SUBSCRIBE\nid:a\\cb\ndestination:{topic}\nack:client-individual\nreceipt:r\n\n\0");
    writer.send_raw(&subscribe).await?;
    assert_eq!(next(&mut reader).await?.header("subscription"), Some("a:b"));
    assert_eq!(next(&mut reader).await?.header("receipt-id"), Some("r"));
    writer.send_raw(&format!("SEND\r\ndestination:{to}\r\n\r\n{{\"body\":\"lines end with CRLF\"}}\0")).await?;
    next(&mut reader).await?;
    let seq = nina.say(conversation, "and the less old").await?.seq;
    let message = next(&mut reader).await?;
    let id = message.header("message-id").context("no message-id")?;
    writer.send_raw(&format!("ACK\nmessage-id:{id}\nsubscription:a\\cb\nreceipt:k\n\n\0")).await?;
    // The first one, which noah sent himself, is not acknowledged yet.
    assert_eq!(next(&mut reader).await?.header("receipt-id"), Some("k"));
    writer.send_raw(&format!("ACK\nmessage-id:{conversation}-{}\nsubscription:a\\cb\n\n\0", seq - 1)).await?;
    stack.delivered_becomes(&noah, conversation, seq).await?;
    writer.send_raw("SEND\nreceipt:a\\r\n\n\0").await?;
    assert_eq!(next(&mut reader).await?.command, "ERROR");
    Ok(())
}

#[tokio::test]
async fn a_client_that_never_reads_is_ended_and_its_neighbour_gets_everything() -> Result<()> {
    let stack = Stack::get()?;
    let [nina, noah] = stack.people(["nina", "noah"]).await?;
    let conversation = stack.channel(&[&nina, &noah]).await?;
    let topic = format!("/topic/conversations/{conversation}");
    let mut neighbour = stack.connect(&noah, 0).await?;
    neighbour.subscribe(&topic).await?;
    let mut deaf = stack.connect(&nina, 0).await?;
    deaf.subscribe(&topic).await?;
    // More than limits.outgoing and server.send_buffer together, and what its kernel takes without being asked.
    let text = "x".repeat(30_000);
    let mut said = Vec::new();
    for _ in 0..100 {
        said.push(neighbour.say(conversation, &text).await?.seq);
    }
    for seq in &said {
        assert_eq!(neighbour.event("MESSAGE").await?.number("seq"), Some(*seq));
    }
    // What was on its way to it comes whole and in order, then why there is no more.
    let closed = deaf.closed().await?;
    assert_eq!((closed.code, &*closed.reason), (Some(4008), "slow_consumer"));
    let (_, _, mut frames) = deaf.split();
    let error = frames.pop_back().context("nothing came")?;
    assert_eq!((&*error.command, error.header("code")), ("ERROR", Some("slow_consumer")), "{error:?}");
    let messages = frames.iter().filter(|frame| frame.command == "MESSAGE");
    let seqs: Vec<_> = messages.filter_map(|frame| frame.number("seq")).collect();
    assert!(!seqs.is_empty() && seqs.len() < said.len(), "{} of {} came", seqs.len(), said.len());
    assert_eq!(seqs, said[..seqs.len()]);
    Ok(())
}
