//! Memberships that come and go faster than anybody looks, as their user's `/user/queue/events` tells them.

use anyhow::Result;
use e2e::{
    stomp::{Client, Frame},
    testing::{Person, Stack},
};
use serde_json::json;

const QUEUE: &str = "/user/queue/events";

/// A group of others that `visitor` is added to and removed from, with a message before, meanwhile and after.
async fn visit(stack: &Stack, owner: &Person, other: &Person, visitor: &Person) -> Result<i64> {
    let members = [other.user_id];
    let group = stack.rest.create_conversation(&owner.token, "group", "visited", &members).await?;
    let mut client = stack.connect(owner, 0).await?;
    client.say(group, "before").await?;
    stack.rest.add_members(&owner.token, group, &[visitor.user_id]).await?;
    client.say(group, "meanwhile").await?;
    stack.rest.remove_member(&owner.token, group, visitor.user_id).await?;
    client.say(group, "after").await?;
    Ok(group)
}

/// What comes of one conversation up to the visitor's own USER_LEFT: types, seqs, and the RESUMED in front of them.
async fn visited(client: &mut Client, group: i64) -> Result<(Vec<String>, Vec<i64>, serde_json::Value)> {
    let of_group = |frame: &Frame| frame.number("conversation-id") == Some(group);
    let mut frames = Vec::new();
    while frames.last().is_none_or(|last: &Frame| last.header("event-type") != Some("USER_LEFT")) {
        frames.push(client.message_where("an event of the visit", of_group).await?);
    }
    let types = frames.iter().map(|frame| frame.header("event-type").unwrap_or_default().to_owned()).collect();
    let seqs = frames.iter().filter_map(|frame| frame.number("seq")).collect();
    Ok((types, seqs, frames[0].json()["data"].clone()))
}

const OF_A_VISIT: [&str; 4] = ["RESUMED", "USER_JOINED", "MESSAGE", "USER_LEFT"];

#[tokio::test]
async fn who_was_a_member_for_a_moment_while_away_gets_that_moment_when_they_resume() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob, carol] = stack.people(["alice", "bob", "carol"]).await?;
    let kept = stack.channel(&[&alice, &carol]).await?;
    let mut client = stack.connect(&carol, 0).await?;
    client.subscribe(QUEUE).await?;
    let known = client.event("RESUMED").await?.json()["data"].clone();
    client.disconnect().await?;

    let first = visit(&stack, &alice, &bob, &carol).await?;
    let second = visit(&stack, &alice, &bob, &carol).await?;
    let mut client = stack.connect(&carol, 1).await?;
    let resume = json!({
        "conversations": { kept.to_string(): { "seq": known["after_seq"], "epoch": known["epoch"] } },
        "user_seq": known["user_seq"],
    });
    client.request(Frame::new("SEND").with("destination", "/app/resume").with_body(resume.to_string())).await?;
    client.subscribe(QUEUE).await?;
    for group in [first, second] {
        let (types, seqs, resumed) = visited(&mut client, group).await?;
        assert_eq!(types, OF_A_VISIT);
        assert_eq!(seqs, [3, 4, 5]);
        assert_eq!((&resumed["after_seq"], &resumed["recovered"]), (&json!(2), &json!(true)), "{resumed}");
        let of_group = |frame: &Frame| frame.number("conversation-id") == Some(group);
        let ended = client.message_where("the end of the visit", of_group).await?;
        assert_eq!((ended.header("event-type"), &ended.json()["data"]["ended"]), (Some("RESUMED"), &json!(true)));
    }
    // And the conversation that lasts goes on.
    let receipt = stack.connect(&alice, 0).await?.say(kept, "still here").await?;
    assert_eq!(client.event("MESSAGE").await?.number("seq"), Some(receipt.seq));
    Ok(())
}

#[tokio::test]
async fn who_is_a_member_for_a_moment_gets_that_moment_live() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, bob, carol] = stack.people(["alice", "bob", "carol"]).await?;
    let mut client = stack.connect(&carol, 1).await?;
    client.subscribe(QUEUE).await?;
    // One behind the other, each over within milliseconds: some are over before they are read, some are not.
    let mut groups = Vec::new();
    for _ in 0..10 {
        groups.push(visit(&stack, &alice, &bob, &carol).await?);
    }
    for group in groups {
        let (types, seqs, _) = visited(&mut client, group).await?;
        assert_eq!((types, seqs), (OF_A_VISIT.map(str::to_owned).to_vec(), vec![3, 4, 5]));
    }
    Ok(())
}
