//! Several of everything, for a while: the delivery promise under an even load, and the routing view.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    load::{self, Plan, Subscribe},
    rest::{Rest, items},
    testing::{Stack, eventually},
};
use http::Method;

/// How long to send; the full demonstration takes 60 s.
const SECONDS_VARIABLE: &str = "SWITCHBOARD_SPREAD_SECONDS";
const DEFAULT_SECONDS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_users_in_fifty_conversations_over_all_gateways_lose_nothing_and_see_one_order() -> Result<()> {
    let stack = Stack::get()?;
    let seconds = match std::env::var(SECONDS_VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{SECONDS_VARIABLE} is {text:?}, not a number"))?,
        Err(_) => DEFAULT_SECONDS,
    };
    let plan = Plan {
        users: 200,
        rooms: 50,
        rooms_per_user: 2,
        rate: 100.0,
        time: Duration::from_secs(seconds),
        size: 128,
        gateways: usize::MAX,
        subscribe: Subscribe::Topic,
        drain: Duration::from_secs(60),
    };
    let report = load::run(&stack.endpoints, &plan, |line| println!("{line}")).await?;
    println!("{report}");
    ensure!(report.is_clean(), "the promise was broken:\n{report}");
    assert_eq!(report.sent, plan.messages());
    Ok(())
}

#[tokio::test]
async fn the_routing_view_shows_which_gateways_hold_a_conversation() -> Result<()> {
    let stack = Stack::get()?;
    let people = stack.people(["alice", "bob", "carol"]).await?;
    let conversation = stack.channel(&people.iter().collect::<Vec<_>>()).await?;
    let id = conversation.to_string();
    let mut clients = Vec::new();
    for (gateway, person) in people.iter().enumerate() {
        let mut client = stack.connect(person, gateway).await?;
        client.subscribe(&format!("/topic/conversations/{conversation}")).await?;
        clients.push(client);
    }
    let gateways_used = people.len().min(stack.endpoints.gateways.len());
    let expected: BTreeSet<_> = (1..=gateways_used).map(|number| format!("socket-gateway-{number}")).collect();
    // Every worker shows the whole view: it is Redis's.
    for worker in &stack.endpoints.workers {
        let view = Rest::new(std::slice::from_ref(worker));
        let one = view.call(Method::GET, &format!("/routing/{id}"), None, None).await?;
        assert_eq!(gateways(&one), expected, "{worker}");
        let in_list = eventually("the conversation is in the list", || async {
            let mut cursor = "0".to_owned();
            loop {
                let path = format!("/routing?limit=500&cursor={cursor}");
                let page = view.call(Method::GET, &path, None, None).await?;
                let next = page["next_cursor"].as_str().map(str::to_owned);
                let found = items(page).into_iter().find(|item| item["conversation_id"] == id);
                match (found, next) {
                    (Some(item), _) => return Ok(Some(item)),
                    (None, Some(next)) => cursor = next,
                    (None, None) => return Ok(None),
                }
            }
        });
        assert_eq!(gateways(&in_list.await?), expected, "{worker}");
    }
    Ok(())
}

/// The gateways of a routing item, without their incarnations.
fn gateways(item: &serde_json::Value) -> BTreeSet<String> {
    let members = item["gateways"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
    members.map(|member| member.split_once(':').map_or(member, |(gateway, _)| gateway).to_owned()).collect()
}
