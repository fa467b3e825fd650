//! Who takes part in a run, and where: accounts, conversations and gateways.

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Plan;
use crate::{
    endpoints::{Endpoints, websocket},
    people::People,
    rest::{Rest, Session},
};

/// Conversations that are made at the same time.
const CONCURRENTLY: usize = 4;
/// Members that one call takes.
const MEMBERS_PER_CALL: usize = 100;

/// The people of a run with their conversations.
#[derive(Debug)]
pub struct Crowd {
    pub sessions: Vec<Session>,
    pub rooms: Vec<Room>,
    /// WebSocket addresses.
    pub gateways: Vec<String>,
    /// Tells this run's messages from those of another.
    pub run: String,
}

/// A conversation.
#[derive(Clone, Debug)]
pub struct Room {
    pub id: i64,
    /// Users by number.
    pub members: Vec<usize>,
}

impl Crowd {
    /// Finds or makes the accounts and conversations that the plan needs.
    pub async fn gather(endpoints: &Endpoints, rest: &Rest, plan: &Plan) -> Result<Self> {
        let mut people = People::of(endpoints, rest).await;
        let sessions = people.sessions(rest, plan.users, plan.time + plan.drain).await?;
        let members: Vec<_> = (0..plan.rooms).map(|room| plan.members_of(room)).collect();
        let shape = format!("{}x{}x{}", plan.users, plan.rooms, plan.rooms_per_user);
        let ids = match people.rooms(&shape) {
            Some(ids) => ids,
            None => {
                let ids: Vec<i64> = stream::iter(members.iter().enumerate())
                    .map(|(number, members)| make_room(rest, number, members, &sessions))
                    .buffered(CONCURRENTLY)
                    .try_collect()
                    .await?;
                people.remember_rooms(&shape, &ids)?;
                ids
            }
        };
        let rooms = ids.into_iter().zip(members).map(|(id, members)| Room { id, members }).collect();
        let gateways = endpoints.gateways.iter().take(plan.gateways).map(|url| websocket(url)).collect();
        Ok(Self { sessions, rooms, gateways, run: uuid::Uuid::now_v7().simple().to_string() })
    }

    /// Which gateway a user connects to, by number.
    pub fn gateway_of(&self, user: usize) -> usize {
        user % self.gateways.len()
    }

    /// The room and the sender of message `k`: rooms in turn, in each its members in turn.
    pub fn turn(&self, k: usize) -> (usize, usize) {
        let room = k % self.rooms.len();
        let members = &self.rooms[room].members;
        (room, members[(k / self.rooms.len()) % members.len()])
    }

    /// The client message id of message `k`.
    pub fn tag(&self, k: usize) -> String {
        format!("{}-{k}", self.run)
    }

    /// The number in a client message id of this run.
    pub fn number(&self, tag: &str) -> Option<usize> {
        tag.strip_prefix(&self.run)?.strip_prefix('-')?.parse().ok()
    }
}

async fn make_room(rest: &Rest, number: usize, members: &[usize], sessions: &[Session]) -> Result<i64> {
    let owner = &sessions[members[0]];
    let others: Vec<i64> = members[1..].iter().map(|user| sessions[*user].user_id).collect();
    // The owner is a member too.
    let (first, rest_of_them) = others.split_at(others.len().min(MEMBERS_PER_CALL - 1));
    let name = format!("load-{:03}", number + 1);
    let id = rest.create_conversation(&owner.token, "channel", &name, first).await?;
    for more in rest_of_them.chunks(MEMBERS_PER_CALL) {
        rest.add_members(&owner.token, id, more).await?;
    }
    Ok(id)
}
