//! The subscriptions of a session, and what `/user/queue/events` follows.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use proto::ConversationId;
use tokio::time::Instant;

use super::{
    acks::Acks,
    destination::Topic,
    request::{Position, Resume},
};
use crate::hub::{Head, Membership, Start, UserState};

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// Unique in the session; ids may be used again by the client.
    pub no: u32,
    pub id: String,
    pub topic: Topic,
    /// Start of its MESSAGE frames.
    pub head: Head,
    /// The receipt that is due when it is attached.
    pub receipt: Option<String>,
    /// Where it is `/user/queue/events`.
    pub queue: Option<Box<UserQueue>>,
    /// Where its messages are acknowledged.
    pub acks: Option<Box<Acks>>,
}

/// Ids of subscriptions that are over: frames that name them may be on their way. The latest ones, so many.
#[derive(Debug)]
pub struct Over {
    ids: VecDeque<(String, bool)>,
    max: usize,
}

impl Over {
    pub fn new(max: usize) -> Self {
        Self { ids: VecDeque::new(), max }
    }

    /// One has ended: by the client's UNSUBSCRIBE, or, refused or taken away, before it.
    pub fn add(&mut self, id: String, unsubscribed: bool) {
        self.remove(&id);
        if self.ids.len() >= self.max {
            self.ids.pop_front();
        }
        self.ids.push_back((id, unsubscribed));
    }

    /// It is there again.
    pub fn remove(&mut self, id: &str) {
        self.ids.retain(|(over, _)| over != id);
    }

    pub fn knows(&self, id: &str) -> bool {
        self.ids.iter().any(|(over, _)| over == id)
    }

    /// The UNSUBSCRIBE of one that had ended before; false if there is none.
    pub fn unsubscribe(&mut self, id: &str) -> bool {
        let found = self.ids.iter_mut().find(|(over, unsubscribed)| over == id && !unsubscribed);
        found.is_some_and(|(_, unsubscribed)| !std::mem::replace(unsubscribed, true))
    }
}

/// Cursors that the client brought along for later subscriptions.
#[derive(Debug, Default)]
pub struct Resumed {
    conversations: HashMap<i64, Position>,
    user_seq: Option<i64>,
}

impl Resumed {
    /// Several add up; the latest of a conversation counts.
    /// False when that would be more conversations than `limit`: nothing is taken then.
    pub fn add(&mut self, resume: Resume, limit: usize) -> bool {
        let new = resume.conversations.keys().filter(|id| !self.conversations.contains_key(&id.0)).count();
        if self.conversations.len() + new > limit {
            return false;
        }
        self.conversations.extend(resume.conversations.into_iter().map(|(ConversationId(id), at)| (id, at)));
        self.user_seq = resume.user_seq.or(self.user_seq);
        true
    }

    pub fn start(&self, conversation: i64) -> Option<Start> {
        self.conversations.get(&conversation).map(|at| Start::After { seq: at.seq, epoch: at.epoch })
    }
}

/// A conversation to be attached to the user's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub conversation: i64,
    pub start: Start,
    pub user_seq: i64,
    /// The membership that it comes of; none where only a resume names the conversation.
    pub membership: Option<Membership>,
}

/// Where delivery of a conversation has ended: all memberships that began up to there were told. It is kept for two
/// states, because the first may have been read before the end and still name them, and all of it would be delivered
/// again. The second was read after the first was told, and what it knows is not told of again.
#[derive(Clone, Copy, Debug)]
struct End {
    at_seq: i64,
    /// A state came since.
    once: bool,
}

/// The conversations of one subscription to `/user/queue/events`.
///
/// States are shared with the user's other sessions here: one may name more that has ended than this one has asked for.
///
/// A client may resume with the highest `user_seq` that it was told. So a RESUMED must not say one before every
/// conversation joined up to it was RESUMED: joins are attached one after the other, in their order, and wait for an
/// earlier one of a conversation that is still followed for the membership before that.
#[derive(Debug, Default)]
pub struct UserQueue {
    state: Option<Arc<UserState>>,
    /// With the head of the attaching read: it has shown every membership that began up to there.
    attached: HashMap<i64, i64>,
    /// On their way to be attached.
    pending: HashMap<i64, Plan>,
    /// In the order of `joined_user_seq`.
    joins: VecDeque<Membership>,
    joining: Option<i64>,
    /// Memberships of now, of conversations that were followed already when they were told of.
    renewed: Vec<Membership>,
    /// Memberships that are over, of conversations whose turn is not over yet: they begin behind its end.
    missed: Vec<Membership>,
    ended_at: HashMap<i64, End>,
    /// Could not be attached for now.
    failed: Vec<Plan>,
    pub retry_at: Option<Instant>,
}

impl UserQueue {
    /// Everything of the first state is attached.
    pub fn is_settled(&self) -> bool {
        self.state.is_some() && self.pending.is_empty() && self.joins.is_empty() && self.failed.is_empty()
    }

    /// Every conversation that the hub may know this subscription by.
    pub fn conversations(&self) -> Vec<i64> {
        self.attached.keys().chain(self.pending.keys()).copied().collect()
    }

    /// The `user_seq` up to which nothing has to be told of any more.
    pub fn known(&self, resumed: &Resumed) -> Option<i64> {
        self.state.as_ref().map(|state| state.user_seq).or(resumed.user_seq)
    }

    fn follows(&self, id: i64) -> bool {
        self.attached.contains_key(&id)
            || self.pending.contains_key(&id)
            || self.joins.iter().any(|join| join.conversation == id)
            || self.failed.iter().any(|plan| plan.conversation == id)
    }

    /// Whether it will be told of only when the conversation has ended, which is still followed for a former membership.
    fn is_behind(&self, membership: &Membership) -> bool {
        let id = membership.conversation;
        if let Some(head) = self.attached.get(&id) {
            return membership.joined_seq > *head;
        }
        // The attaching read may show it, or have been made before.
        let plan = self.pending.get(&id).or_else(|| self.failed.iter().find(|plan| plan.conversation == id));
        plan.is_some_and(|plan| plan.membership != Some(*membership))
    }

    /// The first that waits for the end of a former membership, by its `user_seq`.
    fn first_behind(&self) -> Option<i64> {
        let behind = self.renewed.iter().chain(&self.missed).filter(|membership| self.is_behind(membership));
        behind.map(|membership| membership.joined_user_seq).min()
    }

    /// What the user may see now: says what to attach. What is gone ends by itself, by its USER_LEFT. A membership that
    /// has come and gone unseen is attached like a join, from there on, and ends like that of any former member.
    pub fn state_changed(&mut self, state: Arc<UserState>, resumed: &Resumed) -> Vec<Plan> {
        let first = self.state.is_none();
        let named = |id: i64| first && resumed.start(id).is_some();
        let known = self.known(resumed).unwrap_or(i64::MAX);
        let was_told =
            |m: &Membership| self.ended_at.get(&m.conversation).is_some_and(|end| m.joined_seq <= end.at_seq);
        let unseen = state.ended.iter().filter(|m| m.joined_user_seq > known && !named(m.conversation) && !was_told(m));
        self.missed.extend(unseen);
        let mut starts = Vec::new();
        let mut joins = Vec::new();
        // One that has ended since, unseen, is not in the state any more.
        for renewed in std::mem::take(&mut self.renewed) {
            let is_over = state.membership(renewed.conversation) != Some(&renewed);
            if is_over && self.is_behind(&renewed) && !self.missed.contains(&renewed) {
                self.missed.push(renewed);
            }
        }
        for membership in &state.memberships {
            let id = membership.conversation;
            if self.is_behind(membership) {
                self.renewed.push(*membership);
            }
            if self.follows(id) || was_told(membership) {
                continue;
            }
            let joined_since = resumed.user_seq.is_some_and(|user_seq| membership.joined_user_seq > user_seq)
                || self.missed.iter().any(|missed| missed.conversation == id);
            match resumed.start(id) {
                Some(start) if first => starts.push((id, start)),
                None if first && !joined_since => starts.push((id, Start::Head)),
                _ => joins.push(*membership),
            }
        }
        self.ended_at.retain(|_, end| !std::mem::replace(&mut end.once, true));
        let (later, now) = std::mem::take(&mut self.missed).into_iter().partition(|m| self.follows(m.conversation));
        self.missed = later;
        joins.extend::<Vec<Membership>>(now);
        // Several of one conversation are delivered in one go, from the first on.
        joins.sort_by_key(|join| (join.conversation, join.joined_seq));
        joins.dedup_by_key(|join| join.conversation);
        if first {
            // Resumed, but none of mine any more: it is said where it ended.
            let gone = resumed.conversations.keys().filter(|id| state.membership(**id).is_none());
            starts.extend(gone.filter_map(|id| Some((*id, resumed.start(*id)?))));
        }
        self.joins.extend(joins);
        self.sort_joins();
        let untold = self.joins.front().map(|join| join.joined_user_seq).into_iter().chain(self.first_behind()).min();
        // Memberships are read behind the `user_seq`, so they may be newer.
        let user_seq = untold.map_or(state.user_seq, |untold| (untold - 1).min(state.user_seq));
        self.state = Some(Arc::clone(&state));
        self.retry_at = None;
        let mut plans: Vec<Plan> = std::mem::take(&mut self.failed);
        plans.extend(starts.into_iter().map(|(conversation, start)| {
            let membership = state.membership(conversation).copied();
            Plan { conversation, start, user_seq, membership }
        }));
        self.pending.extend(plans.iter().map(|plan| (plan.conversation, *plan)));
        plans.extend(self.next_join());
        plans
    }

    /// RESUMED of a conversation is queued; `head`: of the attaching read.
    pub fn attached(&mut self, conversation: i64, head: i64) -> Option<Plan> {
        self.pending.remove(&conversation);
        if self.attached.insert(conversation, head).is_some() {
            // Again, because of a new epoch: what was known of it is of another past.
            self.renewed.retain(|membership| membership.conversation != conversation);
            self.missed.retain(|membership| membership.conversation != conversation);
        }
        self.joined(conversation)
    }

    /// A conversation could not be attached; it is tried again with the next state, which is asked for at `retry_at`.
    pub fn refused(&mut self, conversation: i64, retry_at: Instant) -> Option<Plan> {
        self.failed.extend(self.pending.remove(&conversation));
        self.retry_at = Some(retry_at);
        None
    }

    /// Nothing more comes of a conversation; unless the user has joined it since, at a seq above `at_seq`: the state may
    /// have told so already.
    pub fn ended(&mut self, conversation: i64, at_seq: i64) -> Option<Plan> {
        let tried = self.pending.remove(&conversation).and_then(|plan| plan.membership);
        self.attached.remove(&conversation);
        self.ended_at.insert(conversation, End { at_seq, once: false });
        let (of_it, others) =
            std::mem::take(&mut self.missed).into_iter().partition(|m| m.conversation == conversation);
        self.missed = others;
        let of_it: Vec<Membership> = of_it;
        let now = self.state.as_ref().and_then(|state| state.membership(conversation)).copied();
        let later = of_it.into_iter().chain(now).filter(|later| later.joined_seq > at_seq && tried != Some(*later));
        self.joins.extend(later.min_by_key(|later| later.joined_seq));
        self.sort_joins();
        self.joined(conversation)
    }

    fn joined(&mut self, conversation: i64) -> Option<Plan> {
        if self.joining == Some(conversation) {
            self.joining = None;
        }
        self.next_join()
    }

    fn sort_joins(&mut self) {
        self.joins.make_contiguous().sort_by_key(|join| join.joined_user_seq);
    }

    fn next_join(&mut self) -> Option<Plan> {
        if self.joining.is_some() {
            return None;
        }
        let first = self.joins.front()?.joined_user_seq;
        let behind = self.first_behind();
        if behind.is_some_and(|behind| behind < first) {
            return None;
        }
        let membership = self.joins.pop_front()?;
        let Membership { conversation, joined_seq, joined_user_seq } = membership;
        self.joining = Some(conversation);
        let read = self.state.as_ref().map_or(joined_user_seq, |state| state.user_seq);
        let user_seq = if self.joins.is_empty() && behind.is_none() { read } else { joined_user_seq.min(read) };
        let start = Start::Join { seq: joined_seq };
        let plan = Plan { conversation, start, user_seq, membership: Some(membership) };
        self.pending.insert(conversation, plan);
        Some(plan)
    }
}

#[cfg(test)]
mod tests;
