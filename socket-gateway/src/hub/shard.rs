//! The task of one shard: it owns conversations and users, and runs what they ask for.

mod rounds;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use proto::stream_entry;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::rounds::{Asked, SHORTEST_TICK, TICKS};
use super::{
    Arrival, Budget, Input, SubscriptionKey, UserState,
    conversation::{self, Attached, Conversation, LogRead, Page, Reader},
    event::Event,
    user::{self, User},
};
use crate::{
    config,
    metrics::{Dropped, Metrics},
    refusal::Refusal,
    registration::{Interest, Key},
    session::Unflushed,
    upstream::{Core, Heads, Lane},
};

/// Retries of a failed read: the first delay, and the longest.
const RETRY_BASE: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// After so many bytes of events the sessions have a turn.
const YIELD_BYTES: usize = 64 * 1024;
/// So many inputs are taken before answers and ticks have their turn, and before what they deliver is written.
const INPUTS_TURN: usize = 64;
/// So many queues are flushed in one turn.
const FLUSH_TURN: usize = 128;

/// What a shard asks elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Backend {
    pub interest: Interest,
    pub core: Core,
    pub budget: Budget,
}

/// Times of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub linger: Duration,
    pub compare_interval: Duration,
    pub attach_timeout: Duration,
}

impl From<&config::Hub> for Timing {
    fn from(hub: &config::Hub) -> Self {
        Self { linger: hub.linger, compare_interval: hub.compare_interval, attach_timeout: hub.attach_timeout }
    }
}

/// An answer to what a conversation or user asked for, in that life of it. One that was released and is served again
/// is another: it may not be announced yet where the one before was.
enum Answer {
    Announced {
        conversation: i64,
        life: u64,
        result: Result<(), Refusal>,
    },
    Attached {
        conversation: i64,
        life: u64,
        key: SubscriptionKey,
        position: Option<i64>,
        result: Result<Attached, Refusal>,
    },
    LogRead {
        conversation: i64,
        life: u64,
        read: LogRead,
        result: Result<Page, Refusal>,
    },
    Heads {
        asked: Vec<Asked>,
        doubt: bool,
        /// How often they were locked before.
        tries: u32,
        result: Result<Heads, Refusal>,
    },
    UserAnnounced {
        user: i64,
        life: u64,
        result: Result<(), Refusal>,
    },
    UserRead {
        user: i64,
        life: u64,
        read: user::Read,
        result: Result<Arc<UserState>, Refusal>,
    },
    Nothing,
}

pub struct Shard {
    limits: conversation::Limits,
    timing: Timing,
    backend: Backend,
    metrics: Arc<Metrics>,
    conversations: HashMap<i64, Conversation>,
    users: HashMap<i64, User>,
    /// How many conversations and users there have been.
    lives: u64,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Conversations and users that this round of comparison has still to look at.
    round: Vec<Key>,
    ticks: usize,
    /// Queues of sessions that were delivered to.
    unflushed: Unflushed,
    /// Bytes of events that came since the last flush.
    unflushed_bytes: usize,
    /// Parts of the round that are not answered yet: while there is one, no other begins.
    comparing: usize,
}

impl Shard {
    pub fn new(limits: conversation::Limits, timing: Timing, backend: Backend, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            timing,
            backend,
            metrics,
            conversations: HashMap::new(),
            users: HashMap::new(),
            lives: 0,
            answers: FuturesUnordered::new(),
            round: Vec::new(),
            ticks: 0,
            unflushed: Unflushed::new(),
            unflushed_bytes: 0,
            comparing: 0,
        }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>, stop: CancellationToken) {
        let every = |time: Duration| {
            let mut ticks = tokio::time::interval(time.max(SHORTEST_TICK));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        };
        let mut lingering = every(self.timing.linger / TICKS as u32);
        let mut comparing = every(self.timing.compare_interval / TICKS as u32);
        loop {
            tokio::select! {
                // Answers first: they are few, and what they let go on was asked for before the inputs that wait.
                biased;
                () = stop.cancelled() => return,
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => self.answered(answer),
                // Rare, and under load the inputs never end.
                now = lingering.tick() => self.let_go(now),
                _ = comparing.tick() => self.compare_a_part(),
                input = inputs.recv() => match input {
                    Some(input) => self.inputs(input, &mut inputs).await,
                    None => return,
                },
            }
            self.flush().await;
        }
    }

    /// What waits is taken together before anything is written: the more there is to do, the more frames go out in one
    /// write.
    async fn inputs(&mut self, first: Input, inputs: &mut mpsc::Receiver<Input>) {
        let waiting = std::iter::from_fn(|| inputs.try_recv().ok());
        for input in std::iter::once(first).chain(waiting).take(INPUTS_TURN) {
            match input {
                Input::Arrived(arrivals) => self.all_arrived(arrivals).await,
                input => self.input(input),
            }
        }
    }

    /// Writes to all that were delivered to. In between the sessions have a turn: there may be thousands.
    async fn flush(&mut self) {
        self.unflushed_bytes = 0;
        if self.unflushed.is_empty() {
            return;
        }
        let mut unflushed = std::mem::take(&mut self.unflushed);
        let mut now = Instant::now();
        for (index, queue) in unflushed.drain(..).enumerate() {
            if index % FLUSH_TURN == FLUSH_TURN - 1 {
                tokio::task::yield_now().await;
                now = Instant::now();
            }
            queue.flush(now);
        }
        // The room is kept.
        self.unflushed = unflushed;
    }

    fn input(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Arrived(arrivals) => arrivals.into_iter().for_each(|arrival| self.arrived(arrival)),
            Input::Attach(attach) => {
                let id = attach.conversation;
                let conversation = self.conversations.entry(id).or_insert_with(|| {
                    self.metrics.conversations.inc();
                    self.lives += 1;
                    let mut new = Conversation::new(id, self.limits, Arc::clone(&self.metrics), now);
                    new.life = self.lives;
                    new
                });
                conversation.attach(attach);
                self.run_conversation(id);
            }
            Input::Detach { key, conversations, outgoing } => {
                for id in conversations {
                    if let Some(conversation) = self.conversations.get_mut(&id) {
                        conversation.detach(key, now);
                    }
                }
                outgoing.notify(crate::session::Event::Detached { subscription: key.subscription });
            }
            Input::Continue { key, conversation: id } => {
                if let Some(conversation) = self.conversations.get_mut(&id) {
                    conversation.go_on(key);
                }
                self.run_conversation(id);
            }
            Input::WatchUser { key, user: id, known, outgoing } => {
                let user = self.users.entry(id).or_insert_with(|| {
                    self.metrics.users.inc();
                    self.lives += 1;
                    let mut new = User::new();
                    new.life = self.lives;
                    new
                });
                user.watch(key, known, outgoing);
                self.run_user(id);
            }
            Input::UnwatchUser { key, user: id } => {
                if let Some(user) = self.users.get_mut(&id) {
                    user.unwatch(key, now);
                }
            }
            Input::Doubt => {
                let all = self.served();
                self.compare(all, true);
            }
        }
    }

    /// Lets the sessions write now and then: a burst must not fill the queues of those who read fast enough.
    async fn all_arrived(&mut self, arrivals: Vec<Arrival>) {
        for arrival in arrivals {
            self.unflushed_bytes += arrival.entry.payload.len();
            self.arrived(arrival);
            if self.unflushed_bytes >= YIELD_BYTES {
                self.flush().await;
                tokio::task::yield_now().await;
            }
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        let id = arrival.entry.key;
        match arrival.entry.scope {
            stream_entry::Scope::User => {
                if let (Some(user), Some(user_seq)) = (self.users.get_mut(&id), arrival.entry.routing.user_seq) {
                    user.heard(user_seq);
                }
                self.run_user(id);
            }
            stream_entry::Scope::Ephemeral => {
                if let Some(conversation) = self.conversations.get_mut(&id) {
                    conversation.arrived_unsequenced(&arrival);
                }
                self.run_conversation(id);
            }
            stream_entry::Scope::Conversation => {
                let Some(conversation) = self.conversations.get_mut(&id) else {
                    return self.metrics.dropped(Dropped::NotServed);
                };
                let Some(seq) = arrival.entry.routing.seq else { return self.metrics.dropped(Dropped::Malformed) };
                match Event::live(id, seq, &arrival.entry) {
                    Ok(event) => conversation.arrived(Arc::new(event), arrival.stamp),
                    Err(error) => {
                        warn!(%error, "an event can't be delivered");
                        self.metrics.dropped(Dropped::Malformed);
                    }
                }
                self.run_conversation(id);
            }
        }
    }

    fn answered(&mut self, answer: Answer) {
        let now = Instant::now();
        match answer {
            Answer::Announced { conversation: id, life, result } => {
                if let Some(conversation) = self.conversation(id, life) {
                    conversation.announced(result, now);
                }
                self.run_conversation(id);
            }
            Answer::Attached { conversation: id, life, key, position, result } => {
                if let Some(conversation) = self.conversation(id, life) {
                    conversation.attached(key, result, position, now);
                }
                self.run_conversation(id);
            }
            Answer::LogRead { conversation: id, life, read, result } => {
                if let Some(conversation) = self.conversation(id, life) {
                    conversation.log_was_read(read, result, now);
                }
                self.run_conversation(id);
            }
            Answer::Heads { asked, doubt, tries, result } => {
                if !doubt && tries == 0 {
                    self.comparing -= 1;
                }
                let Ok(heads) = result else {
                    // A doubt stays one until it was looked at; the periodic round comes again by itself.
                    if doubt {
                        let ids = asked.into_iter().map(|asked| asked.conversation).collect();
                        self.compare_again(ids, doubt, tries, RETRY_MAX);
                    }
                    return;
                };
                let mut locked = Vec::new();
                for Asked { conversation: id, life, position } in asked {
                    let Some(conversation) = self.conversation(id, life) else { continue };
                    match heads.of.get(&id) {
                        Some(head) => conversation.head_was_read(*head, heads.epoch, position, doubt),
                        None if heads.locked.contains(&id) => locked.push(id),
                        None => conversation.is_unknown(heads.epoch),
                    }
                    self.run_conversation(id);
                }
                // They alone are asked for again; with the round that comes they are in any case.
                if doubt || tries == 0 {
                    self.compare_again(locked, doubt, tries + 1, retry_after(tries + 1));
                }
            }
            Answer::UserAnnounced { user: id, life, result } => {
                if let Some(user) = self.user(id, life) {
                    user.announced(result, now);
                }
                self.run_user(id);
            }
            Answer::UserRead { user: id, life, read, result } => {
                if let Some(user) = self.user(id, life) {
                    user.was_read(result, read, now);
                }
                self.run_user(id);
            }
            Answer::Nothing => {}
        }
    }

    fn conversation(&mut self, id: i64, life: u64) -> Option<&mut Conversation> {
        self.conversations.get_mut(&id).filter(|conversation| conversation.life == life)
    }

    fn user(&mut self, id: i64, life: u64) -> Option<&mut User> {
        self.users.get_mut(&id).filter(|user| user.life == life)
    }

    fn run_conversation(&mut self, id: i64) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        self.unflushed.append(&mut conversation.unflushed);
        let life = conversation.life;
        for effect in std::mem::take(&mut conversation.effects) {
            let Backend { interest, core, budget } = self.backend.clone();
            let timeout = self.timing.attach_timeout;
            self.answers.push(match effect {
                conversation::Effect::Announce => Box::pin(async move {
                    let result = announce(&interest, Key::Conversation(id), timeout).await;
                    Answer::Announced { conversation: id, life, result }
                }),
                conversation::Effect::Attach { key, user, position } => Box::pin(async move {
                    let result = attach(&core, user, id, timeout).await;
                    Answer::Attached { conversation: id, life, key, position, result }
                }),
                conversation::Effect::ReadLog(read) => Box::pin(async move {
                    wait_before(read.tries).await;
                    let result = match read.reader {
                        Reader::Fill => core.read_gap(id, read.after, read.up_to, read.epoch).await,
                        Reader::Followers => {
                            let room = budget.room().await;
                            let page = core.read_page(id, read.after, read.up_to, read.epoch).await;
                            page.map(|page| page.within(room))
                        }
                    };
                    Answer::LogRead { conversation: id, life, read, result }
                }),
            });
        }
    }

    fn run_user(&mut self, id: i64) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let life = user.life;
        for effect in std::mem::take(&mut user.effects) {
            let Backend { interest, core, .. } = self.backend.clone();
            let timeout = self.timing.attach_timeout;
            self.answers.push(match effect {
                user::Effect::Announce => Box::pin(async move {
                    Answer::UserAnnounced { user: id, life, result: announce(&interest, Key::User(id), timeout).await }
                }),
                user::Effect::Read(read) => Box::pin(async move {
                    wait_before(read.tries).await;
                    let state = core.user_state(id, read.known, lane(read.tries)).await;
                    let locked = || Refusal::unavailable("the user's memberships are being changed");
                    let result = state.and_then(|state| state.ok_or_else(locked));
                    Answer::UserRead { user: id, life, read, result }
                }),
            });
        }
    }
}

async fn announce(interest: &Interest, key: Key, timeout: Duration) -> Result<(), Refusal> {
    tokio::time::timeout(timeout, interest.announce(key))
        .await
        .map_err(|_| Refusal::unavailable("the routing table is away; subscribe again later"))
}

/// Asks again while the row is locked, until the time for a SUBSCRIBE is over.
async fn attach(core: &Core, user: i64, conversation: i64, timeout: Duration) -> Result<Attached, Refusal> {
    let until = Instant::now() + timeout;
    let mut tries = 0;
    loop {
        if let Some(attached) = core.attach(user, conversation, lane(tries)).await? {
            return Ok(attached);
        }
        // At once after the first time: nothing was waited for then.
        let delay = retry_after(tries);
        if Instant::now() + delay >= until {
            return Err(Refusal::unavailable("the conversation is being changed; subscribe again later"));
        }
        tokio::time::sleep(delay).await;
        tries += 1;
    }
}

/// Where something is asked for that was locked, or could not be read, so often.
fn lane(tries: u32) -> Lane {
    if tries == 0 { Lane::First } else { Lane::Again }
}

fn retry_after(tries: u32) -> Duration {
    match tries {
        0 => Duration::ZERO,
        tries => RETRY_BASE.saturating_mul(1 << (tries - 1).min(10)).min(RETRY_MAX),
    }
}

async fn wait_before(tries: u32) {
    if tries > 0 {
        tokio::time::sleep(retry_after(tries)).await;
    }
}

#[cfg(test)]
mod tests;
