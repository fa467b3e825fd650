//! What the run may know of a client: how far it has got, whether it is back, whether it waits for answers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The name of the subscription to all of a user's conversations.
pub const MINE: &str = "mine";

/// Shared by a client, which writes it, and the run, which reads it.
#[derive(Debug, Default)]
pub struct View {
    inner: Mutex<Now>,
}

/// How a client is now.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The session that is attached with all its subscriptions.
    pub attached: Option<u32>,
    /// SENDs that have no answer yet.
    pub unanswered: usize,
    /// How far each subscription has got in each conversation; conversations that ended are not here.
    pub reached: BTreeMap<(String, i64), i64>,
}

impl View {
    pub fn now(&self) -> Now {
        self.lock().clone()
    }

    pub fn update(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
