//! The latest time stamps of messages' ways, in memory, served as `GET /hops`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Json, Router, extract::Query, routing::get};
use proto::hops::{CommitHop, DeliveryHop, Hops};
use serde::{Deserialize, Serialize};

/// A stamp that belongs to a conversation.
pub trait OfConversation {
    fn conversation_id(&self) -> i64;
}

impl OfConversation for CommitHop {
    fn conversation_id(&self) -> i64 {
        self.conversation_id
    }
}

impl OfConversation for DeliveryHop {
    fn conversation_id(&self) -> i64 {
        self.conversation_id
    }
}

/// The last `capacity` stamps; the oldest goes when a new one comes. Capacity 0 keeps none.
#[derive(Clone, Debug)]
pub struct HopRing<T> {
    items: Arc<Mutex<VecDeque<T>>>,
    capacity: usize,
}

#[derive(Deserialize)]
struct Filter {
    conversation: Option<i64>,
}

impl<T: Copy + Serialize + OfConversation + Send + 'static> HopRing<T> {
    pub fn new(capacity: usize) -> Self {
        Self { items: Arc::new(Mutex::new(VecDeque::with_capacity(capacity))), capacity }
    }

    pub fn push(&self, item: T) {
        if self.capacity == 0 {
            return;
        }
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() == self.capacity {
            items.pop_front();
        }
        items.push_back(item);
    }

    /// `GET /hops[?conversation=ID]`.
    pub fn router(&self) -> Router {
        let ring = self.clone();
        Router::new().route(
            "/hops",
            get(|Query(filter): Query<Filter>| async move { Json(Hops { items: ring.items(filter.conversation) }) }),
        )
    }

    fn items(&self, conversation: Option<i64>) -> Vec<T> {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.iter().filter(|item| conversation.is_none_or(|id| item.conversation_id() == id)).copied().collect()
    }
}
