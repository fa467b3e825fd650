//! What one user may see, kept current for the sessions that follow all of their conversations.
//!
//! Pure: inputs change the state and leave [`Effect`]s. The user is announced first and read after; an event with a
//! higher `user_seq` than the one known makes the state be read again, with the memberships that have come and gone
//! since the `user_seq` that all who follow know. Events themselves are never applied.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use super::SubscriptionKey;
use crate::{
    refusal::Refusal,
    session::{Event, Outgoing},
};

/// One of a user's conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub conversation: i64,
    pub joined_seq: i64,
    pub joined_user_seq: i64,
}

/// What a user may see now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserState {
    pub user_seq: i64,
    /// In order of the conversation's id.
    pub memberships: Vec<Membership>,
    /// That began behind a `user_seq` which somebody here knew, and were over when this was read.
    pub ended: Vec<Membership>,
}

impl UserState {
    pub fn membership(&self, conversation: i64) -> Option<&Membership> {
        let index = self.memberships.binary_search_by_key(&conversation, |m| m.conversation).ok()?;
        self.memberships.get(index)
    }
}

/// What is to be done for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Announce,
    Read(Read),
}

/// A read of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The `user_seq` behind which ended memberships are wanted, if they are.
    pub known: Option<i64>,
    /// Tries that failed before.
    pub tries: u32,
}

#[derive(Debug)]
struct Watcher {
    outgoing: Arc<Outgoing>,
    /// It has the latest state.
    told: bool,
    /// The `user_seq` that it knows: of that state, or what it came with.
    known: Option<i64>,
}

impl Watcher {
    /// Whether nothing that it has to be told of is left out of that read.
    fn is_covered_by(&self, read: Read) -> bool {
        self.known.is_none_or(|known| read.known.is_some_and(|from| from <= known))
    }
}

#[derive(Debug)]
pub struct User {
    /// Tells it from others that had its id before it: what those asked for is not answered to it.
    pub life: u64,
    announced: bool,
    reading: bool,
    /// Something happened since the read that is on its way began.
    read_again: bool,
    /// The highest `user_seq` heard of.
    wanted: i64,
    known: i64,
    watchers: HashMap<SubscriptionKey, Watcher>,
    last: Option<Arc<UserState>>,
    /// Since when nobody watches.
    idle_since: Option<Instant>,
    pub effects: Vec<Effect>,
}

impl User {
    pub fn new() -> Self {
        Self {
            life: 0,
            announced: false,
            reading: false,
            read_again: false,
            wanted: 0,
            known: 0,
            watchers: HashMap::new(),
            last: None,
            idle_since: None,
            effects: vec![Effect::Announce],
        }
    }

    /// A session follows (or asks again); it is told the state as it is read from now on, and whenever it changes.
    /// `known`: the `user_seq` behind which it must be told of memberships that are over.
    pub fn watch(&mut self, key: SubscriptionKey, known: Option<i64>, outgoing: Arc<Outgoing>) {
        self.watchers.insert(key, Watcher { outgoing, told: false, known });
        self.idle_since = None;
        if self.announced {
            self.read();
        }
    }

    pub fn unwatch(&mut self, key: SubscriptionKey, now: Instant) {
        self.watchers.remove(&key);
        if self.watchers.is_empty() {
            self.idle_since = Some(now);
        }
    }

    /// Since when nobody follows; `None` while somebody does.
    pub fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    pub fn is_announced(&self) -> bool {
        self.announced
    }

    pub fn announced(&mut self, result: Result<(), Refusal>, now: Instant) {
        match result {
            Ok(()) => {
                self.announced = true;
                self.read();
            }
            Err(refusal) => {
                self.refuse(&refusal, now);
                self.effects.push(Effect::Announce);
            }
        }
    }

    /// A user event of the stream, or the periodic comparison (with `user_seq` 0: read anyway).
    pub fn heard(&mut self, user_seq: i64) {
        self.wanted = self.wanted.max(user_seq);
        if self.announced && (user_seq == 0 || self.wanted > self.known) {
            self.read();
        }
    }

    pub fn was_read(&mut self, result: Result<Arc<UserState>, Refusal>, read: Read, now: Instant) {
        self.reading = false;
        let state = match result {
            Ok(state) => state,
            Err(refusal) if refusal.code.is_retryable() => {
                self.reading = true;
                self.read_now(read.tries + 1);
                return;
            }
            Err(refusal) => return self.refuse(&refusal, now),
        };
        // A lower user_seq is a restore: the state is still what is true now.
        self.known = state.user_seq;
        self.wanted = self.wanted.min(self.known);
        let changed = self.last.as_ref() != Some(&state);
        for (key, watcher) in &mut self.watchers {
            // Who came while it was read may know less than was asked for: it is read again for them.
            if (changed || !watcher.told) && watcher.is_covered_by(read) {
                (watcher.told, watcher.known) = (true, Some(state.user_seq));
                let (subscription, state) = (key.subscription, Arc::clone(&state));
                watcher.outgoing.notify(Event::UserState { subscription, state });
            }
        }
        self.last = Some(state);
        if std::mem::take(&mut self.read_again) {
            self.read();
        }
    }

    fn read(&mut self) {
        if self.reading {
            self.read_again = true;
        } else {
            self.reading = true;
            self.read_now(0);
        }
    }

    fn read_now(&mut self, tries: u32) {
        let known = self.watchers.values().filter_map(|watcher| watcher.known).min();
        self.effects.push(Effect::Read(Read { known, tries }));
    }

    /// Nobody follows any more: who was refused asks again.
    fn refuse(&mut self, refusal: &Refusal, now: Instant) {
        self.idle_since = self.idle_since.or(Some(now));
        for (key, watcher) in self.watchers.drain() {
            watcher.outgoing.notify(Event::UserRefused { subscription: key.subscription, refusal: refusal.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_whose_followers_were_refused_is_let_go() {
        let mut user = User::new();
        let outgoing = crate::session::outgoing_tests::queue(1 << 10, 1);
        user.watch(SubscriptionKey { session: 1, subscription: 1 }, None, outgoing);
        assert_eq!(user.idle_since(), None);
        let now = Instant::now();
        user.announced(Err(Refusal::unavailable("Redis is away")), now);
        assert_eq!(user.idle_since(), Some(now));
    }

    fn read(user: &mut User) -> Read {
        let effects = std::mem::take(&mut user.effects);
        let [Effect::Read(read)] = effects[..] else { panic!("expected one read: {effects:?}") };
        read
    }

    #[tokio::test]
    async fn each_is_told_by_a_read_that_goes_back_to_what_they_know() {
        let now = Instant::now();
        let (mut user, key) = (User::new(), |session| SubscriptionKey { session, subscription: 1 });
        let queues = [1, 2, 3].map(|_| crate::session::outgoing_tests::queue(1 << 10, 1));
        let told = || queues.each_ref().map(|queue| queue.take_events().len());
        let state = |user_seq| Ok(Arc::new(UserState { user_seq, ..UserState::default() }));
        user.watch(key(1), None, Arc::clone(&queues[0]));
        user.effects.clear();
        user.announced(Ok(()), now);
        let first = read(&mut user);
        assert_eq!(first, Read { known: None, tries: 0 });
        // It comes while the state is read, and knows less than that was asked for.
        user.watch(key(2), Some(4), Arc::clone(&queues[1]));
        user.was_read(state(9), first, now);
        assert_eq!(told(), [1, 0, 0]);
        let second = read(&mut user);
        assert_eq!(second, Read { known: Some(4), tries: 0 });
        user.was_read(Err(Refusal::unavailable("core is away")), second, now);
        let again = read(&mut user);
        assert_eq!(again, Read { known: Some(4), tries: 1 });
        user.was_read(state(9), again, now);
        assert_eq!(told(), [0, 1, 0]);
        // Now all know that state.
        user.watch(key(3), None, Arc::clone(&queues[2]));
        assert_eq!(read(&mut user).known, Some(9));
    }
}
