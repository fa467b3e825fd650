//! The ticks of a shard: what nobody follows is let go, and what is served is compared with core's heads, a part each
//! tick.

use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Backend, Conversation, Shard, lane};
use crate::{registration::Key, upstream::Heads};

/// Ticks of a comparison interval, over which the heads are spread, and of the linger.
pub(super) const TICKS: usize = 10;
/// However short the linger is.
pub(super) const SHORTEST_TICK: Duration = Duration::from_millis(10);
/// Heads, or users, of one read.
const COMPARE_BATCH: usize = 500;

/// Whose head is read, and where it stood when that began.
pub(super) struct Asked {
    pub conversation: i64,
    pub life: u64,
    pub position: Option<i64>,
}

impl Asked {
    fn now(id: i64, conversation: &Conversation) -> Self {
        Self { conversation: id, life: conversation.life, position: conversation.position() }
    }
}

impl Shard {
    /// Forgets what nobody follows any more.
    pub(super) fn let_go(&mut self, now: Instant) {
        let linger = self.timing.linger;
        let over = |since: Option<Instant>| since.is_some_and(|since| now.duration_since(since) >= linger);
        let mut released: Vec<Key> = Vec::new();
        self.conversations.retain(|id, conversation| {
            conversation.tick(now);
            let keep = !over(conversation.idle_since());
            if !keep {
                released.push(Key::Conversation(*id));
            }
            keep
        });
        self.users.retain(|id, user| {
            let keep = !over(user.idle_since());
            if !keep {
                released.push(Key::User(*id));
            }
            keep
        });
        self.metrics
            .conversations
            .dec_by(released.iter().filter(|key| matches!(key, Key::Conversation(_))).count() as i64);
        self.metrics.users.dec_by(released.iter().filter(|key| matches!(key, Key::User(_))).count() as i64);
        for key in released {
            let interest = self.backend.interest.clone();
            self.answers.push(Box::pin(async move {
                interest.release(key).await;
                Answer::Nothing
            }));
        }
    }

    /// Compares the next part of what is served.
    pub(super) fn compare_a_part(&mut self) {
        // While Redis or core is away one part waits for them, and not one more each tick.
        if self.comparing > 0 {
            return;
        }
        if self.ticks == 0 {
            self.round = self.served();
        }
        let part = self.round.len().div_ceil(TICKS - self.ticks);
        let keys = self.round.split_off(self.round.len() - part);
        self.ticks = (self.ticks + 1) % TICKS;
        self.compare(keys, false);
    }

    pub(super) fn served(&self) -> Vec<Key> {
        let conversations = self.conversations.iter().filter(|(_, c)| c.is_announced()).map(|(id, _)| *id);
        let users = self.users.iter().filter(|(_, user)| user.is_announced()).map(|(id, _)| *id);
        conversations.map(Key::Conversation).chain(users.map(Key::User)).collect()
    }

    fn serves(&self, key: Key) -> bool {
        match key {
            Key::Conversation(id) => self.conversations.contains_key(&id),
            Key::User(id) => self.users.contains_key(&id),
        }
    }

    /// Announces again, and compares heads and users' states with core's.
    pub(super) fn compare(&mut self, keys: Vec<Key>, doubt: bool) {
        // A round takes a while: what was released since must not be announced for ever.
        let keys: Vec<Key> = keys.into_iter().filter(|key| self.serves(*key)).collect();
        for keys in keys.chunks(COMPARE_BATCH) {
            if !doubt {
                self.comparing += 1;
            }
            let mut asked = Vec::new();
            for key in keys {
                match *key {
                    Key::Conversation(id) => {
                        if let Some(conversation) = self.conversations.get(&id) {
                            asked.push(Asked::now(id, conversation));
                        }
                    }
                    Key::User(id) => {
                        if let Some(user) = self.users.get_mut(&id) {
                            user.heard(0);
                        }
                        self.run_user(id);
                    }
                }
            }
            let Backend { interest, core, .. } = self.backend.clone();
            let keys = keys.to_vec();
            self.answers.push(Box::pin(async move {
                if !doubt {
                    interest.announce_again(keys).await;
                }
                let ids: Vec<i64> = asked.iter().map(|asked| asked.conversation).collect();
                let result = if ids.is_empty() { Ok(Heads::default()) } else { core.read_heads(ids, lane(0)).await };
                Answer::Heads { asked, doubt, tries: 0, result }
            }));
        }
    }

    /// For those whose heads could not be read, or were locked.
    pub(super) fn compare_again(&mut self, ids: Vec<i64>, doubt: bool, tries: u32, delay: Duration) {
        let asked = ids.into_iter().filter_map(|id| Some(Asked::now(id, self.conversations.get(&id)?)));
        let asked: Vec<Asked> = asked.collect();
        if asked.is_empty() {
            return;
        }
        let core = self.backend.core.clone();
        self.answers.push(Box::pin(async move {
            tokio::time::sleep(delay).await;
            let ids = asked.iter().map(|asked| asked.conversation).collect();
            Answer::Heads { asked, doubt, tries, result: core.read_heads(ids, lane(tries)).await }
        }));
    }
}
