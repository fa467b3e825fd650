//! The people of a run and their conversations, made by core's bulk import, and tokens signed with the stack's key.
//!
//! Each run has people of its own, also on a stack that had runs before.

use std::collections::BTreeSet;

use anyhow::Result;
use e2e::{
    bench::{crowd, tokens},
    endpoints::Endpoints,
};
use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;

/// Somebody.
#[derive(Clone, Debug)]
pub struct Person {
    pub name: String,
    pub user: i64,
    pub token: String,
}

#[derive(Clone, Debug)]
pub struct Conversation {
    pub id: i64,
    pub kind: &'static str,
    /// User ids; the first one owns it.
    pub members: Vec<i64>,
}

#[derive(Debug)]
pub struct People {
    pub everybody: Vec<Person>,
    pub conversations: Vec<Conversation>,
}

/// A conversation to be made, of people by number.
struct Wanted {
    kind: &'static str,
    name: String,
    members: Vec<usize>,
}

/// Makes `count` people whose names begin with `prefix`.
pub async fn gather(endpoints: &Endpoints, prefix: &str, count: usize, seed: u64) -> Result<People> {
    let name = |number: usize| format!("{prefix}-{:03}", number + 1);
    let silent = |_: &str| {};
    let users = (0..count).map(|number| {
        let name = name(number);
        json!({"user": {"username": name, "email": format!("{name}@example.com")}})
    });
    let users = crowd::import(endpoints, users, "user_id", &silent).await?;
    let wanted = shape(prefix, count, seed);
    let records = wanted.iter().map(|wanted| {
        let (creator, others) = (name(wanted.members[0]), wanted.members[1..].iter().copied());
        let others: Vec<String> = others.map(name).collect();
        let mut conversation = json!({"kind": wanted.kind, "creator": creator, "members": others});
        if wanted.kind != "dm" {
            conversation["name"] = json!(wanted.name);
        }
        json!({"conversation": conversation})
    });
    let ids = crowd::import(endpoints, records, "conversation_id", &silent).await?;
    let conversations = wanted.into_iter().zip(ids).map(|(wanted, id)| {
        let members = wanted.members.iter().map(|number| users[*number]).collect();
        Conversation { id, kind: wanted.kind, members }
    });
    let tokens = tokens::signed(endpoints, &users, silent).await?;
    let everybody = users.iter().zip(tokens).enumerate();
    let everybody = everybody.map(|(number, (user, token))| Person { name: name(number), user: *user, token });
    Ok(People { everybody: everybody.collect(), conversations: conversations.collect() })
}

/// Channels of about 12, groups of 6, direct messages: everybody is in two or three of them.
fn shape(prefix: &str, count: usize, seed: u64) -> Vec<Wanted> {
    let mut rng = StdRng::seed_from_u64(seed);
    let numbers: Vec<usize> = (0..count).collect();
    let mut wanted = Vec::new();
    // Everybody is in one channel at least.
    for (number, members) in numbers.chunks(10).enumerate() {
        let guests = numbers.choose_multiple(&mut rng, 4).copied();
        let members = distinct(members.iter().copied().chain(guests));
        wanted.push(Wanted { kind: "channel", name: format!("{prefix} channel {number}"), members });
    }
    for number in 0..count / 12 {
        let members = distinct(numbers.choose_multiple(&mut rng, 6).copied());
        wanted.push(Wanted { kind: "group", name: format!("{prefix} group {number}"), members });
    }
    let mut pairs = BTreeSet::new();
    for _ in 0..count / 12 {
        let mut pair: Vec<usize> = numbers.choose_multiple(&mut rng, 2).copied().collect();
        pair.sort_unstable();
        if pair.len() == 2 && pairs.insert(pair.clone()) {
            wanted.push(Wanted { kind: "dm", name: String::new(), members: pair });
        }
    }
    wanted
}

fn distinct(members: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    members.filter(|member| seen.insert(*member)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_in_a_conversation_and_nobody_twice_in_one() {
        let wanted = shape("x", 100, 3);
        for number in 0..100 {
            assert!(wanted.iter().any(|one| one.members.contains(&number)), "{number}");
        }
        for one in &wanted {
            assert_eq!(one.members.len(), one.members.iter().collect::<BTreeSet<_>>().len());
            assert!(one.members.len() >= 2);
        }
        for kind in ["channel", "group", "dm"] {
            assert!(wanted.iter().any(|one| one.kind == kind), "{kind}");
        }
    }
}
