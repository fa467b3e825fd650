//! Interest in conversations and users: which gateways an event is routed to.
//!
//! All changes go through one task and one connection in the order they were asked for, so that an SADD and an SREM of
//! one key never overtake each other. They are pipelined: what waits goes along. A new incarnation announces
//! everything again before anything else, and then the hub compares all heads.

use std::collections::HashSet;

use chassis::seeded::{self, Bug};
use proto::{GatewayRef, Keys};
use redis::{Pipeline, RedisError, aio::MultiplexedConnection, pipe};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Doubts, Lives};
use crate::hub::Hub;

/// Changes that wait; who has more waits.
const QUEUE: usize = 4096;

/// What interest is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Conversation(i64),
    User(i64),
}

impl Key {
    fn redis_key(self, keys: &Keys) -> String {
        match self {
            Key::Conversation(id) => keys.conversation_interest(id),
            Key::User(id) => keys.user_interest(id),
        }
    }
}

#[derive(Debug)]
enum Change {
    Announce { keys: Vec<Key>, done: oneshot::Sender<()> },
    Release(Key),
}

/// Where interest is changed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Interest(mpsc::Sender<Change>);

impl Interest {
    /// For tests: announcing never ends.
    #[cfg(test)]
    pub fn nowhere() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Returns when the interest is announced, however long Redis is away.
    pub async fn announce(&self, key: Key) {
        self.announce_again(vec![key]).await;
    }

    /// The same for many.
    pub async fn announce_again(&self, keys: Vec<Key>) {
        let (done, announced) = oneshot::channel();
        if self.0.send(Change::Announce { keys, done }).await.is_err() || announced.await.is_err() {
            // The process ends: what waits for this ends with it.
            std::future::pending::<()>().await;
        }
    }

    /// Returns when the change is queued.
    pub async fn release(&self, key: Key) {
        let _ = self.0.send(Change::Release(key)).await;
    }
}

/// The task that owns all interest of this gateway.
pub struct InterestTask {
    changes: mpsc::Receiver<Change>,
    keys: Keys,
    lives: Lives,
    doubts: Doubts,
    hub: Hub,
    batch: usize,
    held: HashSet<Key>,
    /// The incarnation that knows all that is held.
    announced_as: Option<GatewayRef>,
}

impl InterestTask {
    /// The handle, and the task.
    pub fn new(keys: Keys, lives: Lives, doubts: Doubts, hub: Hub, batch: usize) -> (Interest, Self) {
        let (sender, changes) = mpsc::channel(QUEUE);
        let task = Self { changes, keys, lives, doubts, hub, batch, held: HashSet::new(), announced_as: None };
        (Interest(sender), task)
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch: Vec<Change> = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.lives.changed() => if changed.is_err() { return },
                count = self.changes.recv_many(&mut batch, self.batch), if batch.is_empty() => {
                    if count == 0 {
                        return;
                    }
                }
            }
            let live = self.lives.borrow_and_update().clone();
            // Without an incarnation the changes wait.
            let Some(mut live) = live else { continue };
            if let Err(failure) = self.apply(&mut live.redis, &live.gateway, &mut batch).await {
                self.doubts.tell(format!("changing interest: {failure}"));
            }
        }
    }

    /// Runs changes of interest, and behind them makes the incarnation known to the workers' sweepers: what was on its
    /// way while they forgot it must not stay for ever.
    async fn change(
        &self,
        redis: &mut MultiplexedConnection,
        gateway: &GatewayRef,
        mut changes: Pipeline,
    ) -> Result<(), RedisError> {
        changes.sadd(self.keys.gateways(), gateway.to_string()).ignore();
        changes.exec_async(redis).await
    }

    /// Announces everything to a new incarnation, then makes the changes; they are kept if that fails.
    async fn apply(
        &mut self,
        redis: &mut MultiplexedConnection,
        gateway: &GatewayRef,
        batch: &mut Vec<Change>,
    ) -> Result<(), RedisError> {
        if self.announced_as.as_ref() != Some(gateway) {
            let held: Vec<Key> = self.held.iter().copied().collect();
            for keys in held.chunks(self.batch) {
                let mut pipe = pipe();
                for key in keys {
                    pipe.sadd(key.redis_key(&self.keys), gateway.to_string()).ignore();
                }
                self.change(redis, gateway, pipe).await?;
            }
            let first = self.announced_as.replace(gateway.clone()).is_none();
            if !first && !seeded::on(Bug::HeadsNotCompared) {
                self.hub.doubt().await;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut pipe = pipe();
        for change in batch.iter() {
            match change {
                Change::Announce { keys, .. } => {
                    for key in keys {
                        pipe.sadd(key.redis_key(&self.keys), gateway.to_string()).ignore();
                    }
                }
                Change::Release(key) => {
                    pipe.srem(key.redis_key(&self.keys), gateway.to_string()).ignore();
                }
            }
        }
        // Held from here on, whatever comes of it: a new incarnation announces it.
        for change in batch.iter() {
            match change {
                Change::Announce { keys, .. } => self.held.extend(keys),
                Change::Release(key) => {
                    self.held.remove(key);
                }
            }
        }
        self.change(redis, gateway, pipe).await?;
        for change in batch.drain(..) {
            if let Change::Announce { done, .. } = change {
                // Who does not wait any more needs no answer.
                let _ = done.send(());
            }
        }
        Ok(())
    }
}
