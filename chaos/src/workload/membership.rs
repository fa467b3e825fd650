//! People who join and leave, through REST, each in turn with the answers that they got written down.
//!
//! A mover has some pairs of a person and a conversation for itself, so changes of one membership never overlap. A
//! request that was not answered is made again until it is known what became of it.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use e2e::rest::{Rest, RestRefusal};
use http::StatusCode;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Crowd, Member, People, Person, Phase, Told};
use crate::{
    history::{Change, Clock, Outcome, RunRecord},
    run::RunLog,
};

/// How many movers there are; each waits for one answer at a time.
pub const MOVERS: usize = 4;
/// A request that is not answered by then counts as unanswered.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Before a request is made again.
const BACK_OFF: Duration = Duration::from_millis(300);
/// So many change their minds at once: a gateway may see both changes in one look.
const AT_ONCE: f64 = 0.2;
/// Of each conversation: members who leave and come back, and others who come and leave.
const PEOPLE_OF_EACH: usize = 2;

#[derive(Debug)]
struct Pair {
    conversation: i64,
    kind: &'static str,
    owner: i64,
    user: i64,
    is_member: bool,
}

#[derive(Debug)]
pub struct Mover {
    rest: Rest,
    log: RunLog,
    clock: Clock,
    rng: StdRng,
    /// By user, each client.
    members: HashMap<i64, Vec<Member>>,
    pairs: Vec<Pair>,
    /// Before a change, or two at once, on average.
    pause: Duration,
}

impl Mover {
    /// All movers of a run.
    pub fn all(
        people: &People,
        crowd: &Crowd,
        rest: &Rest,
        log: &RunLog,
        clock: Clock,
        changes: f64,
        seed: u64,
    ) -> Vec<Self> {
        let mut members: HashMap<i64, Vec<Member>> = HashMap::new();
        for member in &crowd.members {
            members.entry(member.person.user).or_default().push(member.clone());
        }
        let mover = |number: usize| Self {
            rest: rest.clone(),
            log: log.clone(),
            clock,
            rng: StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64)),
            members: members.clone(),
            pairs: Vec::new(),
            pause: Duration::from_secs_f64(MOVERS as f64 * (1.0 + AT_ONCE) / changes),
        };
        let mut movers: Vec<Self> = (0..MOVERS).map(mover).collect();
        let everybody: Vec<i64> = people.everybody.iter().map(|person| person.user).collect();
        let mut rng = StdRng::seed_from_u64(seed);
        let movable = people.conversations.iter().filter(|conversation| conversation.kind != "dm");
        for (number, conversation) in movable.enumerate() {
            let owner = conversation.members[0];
            let insiders = conversation.members[1..].choose_multiple(&mut rng, PEOPLE_OF_EACH);
            let strangers: Vec<i64> =
                everybody.iter().copied().filter(|user| !conversation.members.contains(user)).collect();
            let strangers = strangers.choose_multiple(&mut rng, PEOPLE_OF_EACH);
            let pair = |user: i64, is_member| Pair {
                conversation: conversation.id,
                kind: conversation.kind,
                owner,
                user,
                is_member,
            };
            let pairs = insiders.map(|user| pair(*user, true)).chain(strangers.map(|user| pair(*user, false)));
            movers[number % MOVERS].pairs.extend(pairs);
        }
        movers
    }

    /// While people use the stack; what was begun is brought to an end.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) -> Result<()> {
        while !self.pairs.is_empty() {
            let pause = self.pause.mul_f64(self.rng.random_range(0.2..1.8));
            tokio::select! {
                _ = phase.wait_for(|phase| *phase > Phase::Use) => break,
                () = sleep(pause) => {}
            }
            let pick = self.rng.random_range(0..self.pairs.len());
            let changes = if self.rng.random_bool(AT_ONCE) { 2 } else { 1 };
            for _ in 0..changes {
                self.change(pick, &phase).await?;
            }
        }
        Ok(())
    }

    async fn change(&mut self, pick: usize, phase: &watch::Receiver<Phase>) -> Result<()> {
        let change = if self.pairs[pick].is_member { Change::Left } else { Change::Joined };
        // Either may ask for it where both may.
        let by_owner = self.rng.random_bool(0.5);
        while !self.ask(pick, change, by_owner).await? && *phase.borrow() < Phase::Again {
            sleep(BACK_OFF).await;
        }
        Ok(())
    }

    /// Whether it is known what became of it.
    async fn ask(&mut self, pick: usize, change: Change, by_owner: bool) -> Result<bool> {
        let Pair { conversation, kind, owner, user, .. } = self.pairs[pick];
        // Nobody joins a group by themselves, and channels are joined by whoever likes.
        let by_owner = match (kind, change) {
            ("group", Change::Joined) => true,
            (_, Change::Joined) => false,
            (_, Change::Left) => by_owner,
        };
        let by = if by_owner { owner } else { user };
        let Person { token, .. } = &self.members[&by][0].person;
        let asked = self.clock.now();
        let request = async {
            match (change, by_owner) {
                (Change::Joined, false) => self.rest.join(token, conversation).await,
                (Change::Joined, true) => self.rest.add_members(token, conversation, &[user]).await,
                (Change::Left, true) => self.rest.remove_member(token, conversation, user).await,
                (Change::Left, false) => {
                    let path = format!("/api/v1/conversations/{conversation}/leave");
                    self.rest.post(&path, token, &serde_json::json!({})).await
                }
            }
        };
        let outcome = match timeout(ANSWER_LIMIT, request).await {
            Ok(Ok(_)) => Outcome::Acknowledged,
            Ok(Err(error)) => match error.downcast_ref::<RestRefusal>() {
                Some(refusal) if refusal.status < StatusCode::INTERNAL_SERVER_ERROR => {
                    Outcome::Refused(refusal.code.clone())
                }
                _ => Outcome::Unanswered,
            },
            Err(_) => Outcome::Unanswered,
        };
        self.log.record(&RunRecord::Membership { conversation, user, change, by, asked, outcome: outcome.clone() })?;
        let news = match (outcome, change) {
            (Outcome::Unanswered, _) => return Ok(false),
            (Outcome::Acknowledged, Change::Joined) => Told::Joined(conversation),
            // A refusal says that it is so already: a request that was not answered was done.
            (Outcome::Acknowledged | Outcome::Refused(_), Change::Left) => Told::Left(conversation),
            (Outcome::Refused(_), Change::Joined) => return Ok(true),
        };
        self.pairs[pick].is_member = change == Change::Joined;
        for member in &self.members[&user] {
            // A client that has left for good hears nothing any more.
            let _ = member.tell.send(news).await;
        }
        Ok(true)
    }
}
