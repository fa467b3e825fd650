//! The conversations and users that this gateway serves, split over shards.
//!
//! Each shard is one task that owns its conversations, so that nothing here is locked: [`conversation`] and [`user`]
//! are pure state machines, [`shard`] runs them. What they need from elsewhere (announcing, reading) runs as futures of
//! the shard's task, and comes back as inputs. Sessions and the stream's reader send inputs through bounded queues and
//! wait when those are full; a shard never waits for a session.

mod budget;
mod conversation;
mod event;
mod head;
mod pages;
mod pending;
mod ring;
mod shard;
mod user;

use std::sync::Arc;

use proto::stream_entry::StreamEntry;
use tokio::sync::mpsc;

pub use budget::Budget;
pub use conversation::{Attached, Limits, Page};
pub use event::{Event, Visible};
pub use head::Head;
pub use shard::{Backend, Shard, Timing};
pub use user::{Membership, UserState};

use crate::session::{Outgoing, Waiter};

/// A subscription of a session, unique in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionKey {
    pub session: u64,
    pub subscription: u32,
}

/// Where delivery starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the head.
    Head,
    /// Behind a seq that the client has; `epoch` is the one it has it of.
    After { seq: i64, epoch: Option<i64> },
    /// At the seq of the user's join.
    Join { seq: i64 },
    /// Behind a seq of a new epoch: what was delivered before is of another past.
    Afresh { seq: i64 },
}

/// Which subscription asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `/topic/conversations/{id}`: refused when one may not see it.
    Topic,
    /// `/user/queue/events`: never refused, only ended.
    UserQueue,
}

/// A subscription's wish for one conversation.
#[derive(Clone, Debug)]
pub struct Attach {
    pub key: SubscriptionKey,
    pub user: i64,
    pub conversation: i64,
    pub scope: Scope,
    pub start: Start,
    pub head: Head,
    pub outgoing: Arc<Outgoing>,
    /// What RESUMED says of the user's state.
    pub user_seq: Option<i64>,
    /// The user's `user_seq` of the join; goes with CONVERSATION_CREATED.
    pub joined_user_seq: Option<i64>,
}

/// Time stamps of a live event, for `GET /hops`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub kafka_ms: i64,
    pub worker_us: i64,
    pub redis_ms: i64,
    pub read_us: i64,
}

/// An entry of this gateway's stream.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub entry: StreamEntry,
    pub stamp: Stamp,
}

/// An input of a shard.
#[derive(Debug)]
pub enum Input {
    Arrived(Vec<Arrival>),
    Attach(Attach),
    /// One subscription leaves these conversations; answered with one `Event::Detached`.
    Detach {
        key: SubscriptionKey,
        conversations: Vec<i64>,
        outgoing: Arc<Outgoing>,
    },
    WatchUser {
        key: SubscriptionKey,
        user: i64,
        /// The `user_seq` that it knows, if it knows one.
        known: Option<i64>,
        outgoing: Arc<Outgoing>,
    },
    UnwatchUser {
        key: SubscriptionKey,
        user: i64,
    },
    /// The session's queue has run low: the replay goes on.
    Continue {
        key: SubscriptionKey,
        conversation: i64,
    },
    /// Something may have been missed: compare everything now.
    Doubt,
}

/// Where the shards are reached. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    shards: Arc<[mpsc::Sender<Input>]>,
}

impl Hub {
    /// The handle, and the receiving end of each shard.
    pub fn new(shards: usize, queue: usize) -> (Self, Vec<mpsc::Receiver<Input>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards.max(1)).map(|_| mpsc::channel(queue)).unzip();
        (Self { shards: senders.into() }, receivers)
    }

    fn shard_of(&self, id: i64) -> usize {
        spread(id, self.shards.len())
    }

    async fn send(&self, id: i64, input: Input) {
        // A closed shard means that the process ends.
        let _ = self.shards[self.shard_of(id)].send(input).await;
    }

    /// Entries of the stream, in their order; waits when a shard is behind.
    pub async fn arrived(&self, arrivals: Vec<Arrival>) {
        let mut split: Vec<Vec<Arrival>> = self.shards.iter().map(|_| Vec::new()).collect();
        for arrival in arrivals {
            split[self.shard_of(arrival.entry.key)].push(arrival);
        }
        for (shard, arrivals) in self.shards.iter().zip(split) {
            if !arrivals.is_empty() {
                let _ = shard.send(Input::Arrived(arrivals)).await;
            }
        }
    }

    pub async fn attach(&self, attach: Attach) {
        self.send(attach.conversation, Input::Attach(attach)).await;
    }

    /// Takes a subscription out of its conversations; says how many `Event::Detached` will come.
    pub async fn detach(&self, key: SubscriptionKey, conversations: &[i64], outgoing: &Arc<Outgoing>) -> usize {
        let mut asked = 0;
        for (index, shard) in self.shards.iter().enumerate() {
            let own: Vec<i64> = conversations.iter().copied().filter(|id| self.shard_of(*id) == index).collect();
            if !own.is_empty() {
                asked += 1;
                let outgoing = Arc::clone(outgoing);
                let _ = shard.send(Input::Detach { key, conversations: own, outgoing }).await;
            }
        }
        asked
    }

    pub async fn watch_user(&self, key: SubscriptionKey, user: i64, known: Option<i64>, outgoing: Arc<Outgoing>) {
        self.send(user, Input::WatchUser { key, user, known, outgoing }).await;
    }

    pub async fn unwatch_user(&self, key: SubscriptionKey, user: i64) {
        self.send(user, Input::UnwatchUser { key, user }).await;
    }

    pub async fn go_on(&self, session: u64, waiter: Waiter) {
        let Waiter { subscription, conversation } = waiter;
        let key = SubscriptionKey { session, subscription };
        self.send(conversation, Input::Continue { key, conversation }).await;
    }

    /// Compares all conversations and users with core, now.
    pub async fn doubt(&self) {
        for shard in self.shards.iter() {
            let _ = shard.send(Input::Doubt).await;
        }
    }
}

/// Spreads ids evenly: snowflakes alone differ too little in their low bits.
pub fn spread(id: i64, buckets: usize) -> usize {
    let hash = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (hash % buckets.max(1) as u64) as usize
}
