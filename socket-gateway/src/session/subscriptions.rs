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
mod tests {
    use super::*;

    /// Of attaching reads, below where anybody joins again.
    const HEAD: i64 = 11;

    fn member(conversation: i64, joined_seq: i64, joined_user_seq: i64) -> Membership {
        Membership { conversation, joined_seq, joined_user_seq }
    }

    fn state(user_seq: i64, memberships: &[Membership]) -> Arc<UserState> {
        state_with(user_seq, memberships, &[])
    }

    fn state_with(user_seq: i64, memberships: &[Membership], ended: &[Membership]) -> Arc<UserState> {
        Arc::new(UserState { user_seq, memberships: memberships.to_vec(), ended: ended.to_vec() })
    }

    fn starts(plans: &[Plan]) -> Vec<(i64, Start, i64)> {
        plans.iter().map(|plan| (plan.conversation, plan.start, plan.user_seq)).collect()
    }

    #[test]
    fn the_first_state_starts_at_the_heads_and_later_ones_at_the_joins() {
        let mut queue = UserQueue::default();
        let plans = queue.state_changed(state(2, &[member(7, 1, 1), member(8, 3, 2)]), &Resumed::default());
        assert_eq!(starts(&plans), [(7, Start::Head, 2), (8, Start::Head, 2)]);
        assert!(!queue.is_settled());
        assert_eq!((queue.attached(7, HEAD), queue.attached(8, HEAD), queue.is_settled()), (None, None, true));
        let more = state(3, &[member(7, 1, 1), member(8, 3, 2), member(9, 4, 3)]);
        assert_eq!(starts(&queue.state_changed(more, &Resumed::default())), [(9, Start::Join { seq: 4 }, 3)]);
    }

    #[test]
    fn a_resume_names_cursors_and_what_was_joined_since_starts_at_its_join_in_order() {
        let mut resumed = Resumed::default();
        let at = Position { seq: 12, epoch: Some(1) };
        let conversations: HashMap<_, _> = [(ConversationId(7), at), (ConversationId(6), at)].into();
        assert!(resumed.add(Resume { conversations: conversations.clone(), user_seq: Some(2) }, 2));
        let more = Resume { conversations: [(ConversationId(8), at)].into(), user_seq: None };
        assert!(!resumed.add(more, 2));
        let mut queue = UserQueue::default();
        let all = [member(5, 1, 2), member(7, 1, 1), member(8, 9, 4), member(9, 4, 3)];
        let plans = queue.state_changed(state(4, &all), &resumed);
        let after = Start::After { seq: 12, epoch: Some(1) };
        let expected = [(5, Start::Head, 2), (7, after, 2), (6, after, 2), (9, Start::Join { seq: 4 }, 3)];
        assert_eq!(starts(&plans), expected);
        // The second join is told of only when the first was.
        assert_eq!(queue.attached(9, HEAD).map(|plan| (plan.conversation, plan.user_seq)), Some((8, 4)));
    }

    #[test]
    fn who_left_and_joined_again_goes_on_at_the_new_join() {
        let mut queue = UserQueue::default();
        queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
        queue.attached(7, HEAD);
        assert_eq!(queue.state_changed(state(3, &[member(7, 20, 3)]), &Resumed::default()), []);
        let plan = queue.ended(7, 15).unwrap();
        assert_eq!((plan.conversation, plan.start), (7, Start::Join { seq: 20 }));
        queue.attached(7, HEAD);
        assert_eq!(queue.ended(7, 25), None);
    }

    #[test]
    fn a_state_that_was_read_before_the_end_of_a_membership_does_not_begin_it_again() {
        let mut queue = UserQueue::default();
        queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
        queue.attached(7, HEAD);
        assert_eq!(queue.ended(7, 15), None);
        let before = state(2, &[member(7, 1, 1), member(9, 4, 2)]);
        let plans = queue.state_changed(before, &Resumed::default());
        assert_eq!(starts(&plans), [(9, Start::Join { seq: 4 }, 2)]);
        queue.attached(9, HEAD);
        assert_eq!(queue.state_changed(state(3, &[member(9, 4, 2)]), &Resumed::default()), []);
        let again = state(4, &[member(7, 20, 4), member(9, 4, 2)]);
        assert_eq!(starts(&queue.state_changed(again, &Resumed::default())), [(7, Start::Join { seq: 20 }, 4)]);
    }

    #[test]
    fn a_join_that_was_told_before_the_end_of_an_older_attempt_is_attached() {
        let mut resumed = Resumed::default();
        let conversations = [(ConversationId(7), Position { seq: 12, epoch: None })].into();
        assert!(resumed.add(Resume { conversations, user_seq: Some(2) }, 10));
        let mut queue = UserQueue::default();
        assert_eq!(queue.state_changed(state(2, &[]), &resumed).len(), 1);
        assert_eq!(queue.state_changed(state(3, &[member(7, 20, 3)]), &resumed), []);
        // The attaching read had been made before the join.
        let plan = queue.ended(7, 0).unwrap();
        assert_eq!((plan.conversation, plan.start), (7, Start::Join { seq: 20 }));
        // The same membership is not tried over and over.
        assert_eq!(queue.ended(7, 0), None);
        assert!(queue.is_settled());
    }

    #[test]
    fn a_membership_that_came_and_went_unseen_is_attached_in_its_turn() {
        let mut queue = UserQueue::default();
        queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
        queue.attached(7, HEAD);
        assert_eq!(queue.known(&Resumed::default()), Some(1));
        let ended = [member(8, 5, 2), member(8, 9, 4), member(7, 1, 1)];
        let plans =
            queue.state_changed(state_with(6, &[member(7, 1, 1), member(9, 3, 6)], &ended), &Resumed::default());
        assert_eq!(starts(&plans), [(8, Start::Join { seq: 5 }, 2)]);
        assert_eq!(queue.attached(8, HEAD).map(|plan| (plan.conversation, plan.user_seq)), Some((9, 6)));
        // All of it is delivered by then, and an older state does not begin it again.
        assert_eq!((queue.ended(8, 12), queue.attached(9, HEAD), queue.is_settled()), (None, None, true));
        let again = state_with(6, &[member(7, 1, 1), member(9, 3, 6)], &ended);
        assert_eq!(queue.state_changed(again, &Resumed::default()), []);
    }

    #[test]
    fn who_resumes_is_told_of_what_came_and_went_while_they_were_away() {
        let mut resumed = Resumed::default();
        let conversations = [(ConversationId(6), Position { seq: 12, epoch: None })].into();
        assert!(resumed.add(Resume { conversations, user_seq: Some(2) }, 10));
        let mut queue = UserQueue::default();
        assert_eq!(queue.known(&resumed), Some(2));
        // Of 5 the client knew; 6 goes on where it says; 8 was joined again since.
        let ended = [member(5, 1, 1), member(6, 20, 3), member(7, 4, 5), member(8, 2, 7)];
        let plans = queue.state_changed(state_with(9, &[member(8, 30, 9)], &ended), &resumed);
        let after = Start::After { seq: 12, epoch: None };
        assert_eq!(starts(&plans), [(6, after, 4), (7, Start::Join { seq: 4 }, 5)]);
        let plan = queue.attached(7, HEAD).unwrap();
        assert_eq!((plan.conversation, plan.start, plan.user_seq), (8, Start::Join { seq: 2 }, 9));
        // Who says nothing of what they know has missed nothing.
        let plans = UserQueue::default().state_changed(state_with(9, &[], &ended), &Resumed::default());
        assert_eq!(plans, []);
    }

    #[test]
    fn a_short_membership_behind_one_that_is_still_delivered_waits_for_its_end() {
        let mut queue = UserQueue::default();
        queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
        queue.attached(7, HEAD);
        assert_eq!(queue.state_changed(state_with(4, &[], &[member(7, 20, 3)]), &Resumed::default()), []);
        assert_eq!(queue.state_changed(state(4, &[]), &Resumed::default()), []);
        let plan = queue.ended(7, 15).unwrap();
        assert_eq!((plan.conversation, plan.start), (7, Start::Join { seq: 20 }));
        queue.attached(7, HEAD);
        assert_eq!(queue.ended(7, 22), None);
        // One that the attaching read has shown already is not begun again.
        queue.state_changed(state(5, &[member(7, 30, 5)]), &Resumed::default());
        queue.attached(7, HEAD);
        queue.state_changed(state_with(8, &[], &[member(7, 40, 7)]), &Resumed::default());
        assert_eq!((queue.ended(7, 45), queue.is_settled()), (None, true));
    }

    #[test]
    fn who_joins_again_is_attached_though_a_state_names_what_ended_before() {
        // Another device of the user has resumed from further back, and both are told the same.
        let ended = [member(7, 1, 1)];
        let mut queue = UserQueue::default();
        queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
        queue.attached(7, HEAD);
        assert_eq!(queue.ended(7, 15), None);
        let plans = queue.state_changed(state_with(3, &[member(7, 20, 3)], &ended), &Resumed::default());
        assert_eq!(starts(&plans), [(7, Start::Join { seq: 20 }, 3)]);
        queue.attached(7, HEAD);
        assert_eq!(queue.ended(7, 25), None);
        // It has come and gone in one read.
        let plans = queue.state_changed(state_with(6, &[], &[member(7, 1, 1), member(7, 30, 5)]), &Resumed::default());
        assert_eq!(starts(&plans), [(7, Start::Join { seq: 30 }, 6)]);
    }

    #[test]
    fn what_was_delivered_in_one_go_is_not_begun_again_by_states_that_were_read_before() {
        let mut resumed = Resumed::default();
        let conversations = [(ConversationId(7), Position { seq: 5, epoch: None })].into();
        assert!(resumed.add(Resume { conversations, user_seq: Some(1) }, 10));
        let mut queue = UserQueue::default();
        queue.state_changed(state(1, &[member(7, 1, 1)]), &resumed);
        queue.attached(7, HEAD);
        // The attaching read shows two memberships, both over; a state is on its way that knows the end of one.
        assert_eq!(queue.ended(7, 20), None);
        assert_eq!(queue.state_changed(state(2, &[]), &resumed), []);
        let plans = queue.state_changed(state_with(4, &[], &[member(7, 12, 3)]), &resumed);
        assert_eq!(starts(&plans), []);
        // Whoever reads later knows of all that ended by then.
        assert_eq!(queue.ended_at.len(), 0);
    }

    /// 7 was joined again, at `user_seq` 7; 9 behind that.
    fn joined_again(head: Option<i64>) -> UserQueue {
        let mut resumed = Resumed::default();
        let conversations = [(ConversationId(7), Position { seq: 12, epoch: None })].into();
        assert!(resumed.add(Resume { conversations, user_seq: Some(6) }, 10));
        let mut queue = UserQueue::default();
        assert_eq!(starts(&queue.state_changed(state(6, &[]), &resumed)).len(), 1);
        if let Some(head) = head {
            assert_eq!(queue.attached(7, head), None);
        }
        let plans = queue.state_changed(state(8, &[member(7, 16, 7), member(9, 1, 8)]), &resumed);
        assert_eq!(starts(&plans), [], "its RESUMED would say 8, and 7 was not told");
        queue
    }

    #[test]
    fn no_join_is_told_before_an_earlier_one_whose_conversation_has_not_ended_yet() {
        let mut queue = joined_again(Some(15));
        let plan = queue.ended(7, 15).unwrap();
        assert_eq!((plan.conversation, plan.start, plan.user_seq), (7, Start::Join { seq: 16 }, 7));
        let plan = queue.attached(7, 16).unwrap();
        assert_eq!((plan.conversation, plan.user_seq), (9, 8));
        assert_eq!((queue.attached(9, 1), queue.is_settled()), (None, true));
    }

    #[test]
    fn a_later_join_waits_until_it_is_known_what_the_attaching_read_has_shown() {
        // It has shown the renewed membership, so nothing ends.
        let mut queue = joined_again(None);
        assert_eq!(queue.attached(7, 16).map(|plan| (plan.conversation, plan.user_seq)), Some((9, 8)));
        // It has not: its end comes first.
        let mut queue = joined_again(None);
        assert_eq!(queue.attached(7, 15), None);
        assert_eq!(queue.ended(7, 15).map(|plan| plan.conversation), Some(7));
        assert_eq!(queue.attached(7, 16).map(|plan| plan.conversation), Some(9));
        // It can't be made for now, and is made again with the next state.
        let mut queue = joined_again(None);
        assert_eq!(queue.refused(7, Instant::now()), None);
        let again = state(9, &[member(7, 16, 7), member(9, 1, 8), member(10, 1, 9)]);
        let plans = queue.state_changed(again, &Resumed::default());
        assert_eq!(plans.iter().map(|plan| plan.conversation).collect::<Vec<_>>(), [7]);
        assert_eq!(queue.attached(7, 16).map(|plan| (plan.conversation, plan.user_seq)), Some((9, 8)));
    }

    #[test]
    fn a_renewed_membership_that_is_over_before_its_turn_is_told_all_the_same() {
        for (third, last) in [(None, 4), (Some(member(7, 30, 5)), 5)] {
            let mut queue = UserQueue::default();
            queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
            queue.attached(7, HEAD);
            assert_eq!(queue.state_changed(state(3, &[member(7, 20, 3)]), &Resumed::default()), []);
            let now: Vec<_> = third.into_iter().collect();
            assert_eq!(queue.state_changed(state(last, &now), &Resumed::default()), []);
            let plan = queue.ended(7, 15).unwrap();
            assert_eq!((plan.conversation, plan.start, plan.user_seq), (7, Start::Join { seq: 20 }, last));
        }
    }

    #[test]
    fn no_more_is_said_than_was_read_first() {
        let mut resumed = Resumed::default();
        assert!(resumed.add(Resume { conversations: HashMap::new(), user_seq: Some(5) }, 1));
        let mut queue = UserQueue::default();
        // Joined and left again, 6 and 7, and joined another, while the state was read.
        let plans = queue.state_changed(state(5, &[member(7, 1, 1), member(9, 4, 8)]), &resumed);
        assert_eq!(starts(&plans), [(7, Start::Head, 5), (9, Start::Join { seq: 4 }, 5)]);
    }

    #[test]
    fn what_an_older_epoch_has_told_holds_nothing_up() {
        let mut queue = joined_again(Some(15));
        let plan = queue.attached(7, 12).map(|plan| plan.conversation);
        assert_eq!(plan, Some(9));
    }

    #[test]
    fn a_join_before_a_renewed_one_says_no_more_than_itself() {
        let mut queue = UserQueue::default();
        queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
        queue.attached(7, HEAD);
        let plans = queue.state_changed(state(4, &[member(9, 1, 2), member(7, 20, 4)]), &Resumed::default());
        assert_eq!(starts(&plans), [(9, Start::Join { seq: 1 }, 2)]);
    }

    #[tokio::test]
    async fn what_could_not_be_attached_is_tried_again_with_the_same_start() {
        let mut queue = UserQueue::default();
        let one = state(1, &[member(7, 1, 1)]);
        let plans = queue.state_changed(Arc::clone(&one), &Resumed::default());
        queue.refused(7, Instant::now());
        assert!(!queue.is_settled() && queue.retry_at.is_some());
        assert_eq!(queue.state_changed(one, &Resumed::default()), plans);
        assert!(queue.retry_at.is_none());
    }
}
