//! Followers: subscribers with a cursor of their own.
//!
//! A follower is *behind* while it replays (from the ring, else from pages of the log that it has in common with the
//! others, paced by its session's queue), and *ahead* while its cursor is a head that the conversation has not reached.
//! When cursor and position meet, at its head or above, it becomes a member. RESUMED is the first that a subscriber gets;
//! where the log must be read, it waits for the first page, because only that tells whether the log still holds what was
//! asked for.

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    Code,
    event::{ResumedData, Tier},
};

use super::{
    Attached, Conversation, Member,
    group::{delivered, resumed_frame},
};
use crate::{
    hub::{
        Attach, Scope, Start, SubscriptionKey,
        event::{Event, Kind, Visible},
    },
    refusal::Refusal,
    session::{self, Class, Pushed, Reserved, Waiter},
};

/// What a missed event is taken for, bytes, while nobody knows.
const EXPECTED_EVENT: usize = 512;

#[derive(Debug)]
pub struct Follower {
    pub attach: Attach,
    /// The last seq that it got, or that it may not see.
    pub cursor: i64,
    /// What it would get next is lost, or of another past: it goes on from there.
    pub start_over: Option<i64>,
    visible: Visible,
    /// Up to here `visible` is the truth; memberships that end later end by their USER_LEFT.
    head: i64,
    /// RESUMED was not sent yet.
    opening: bool,
    /// What it will say: nothing was missed.
    recovered: bool,
    /// It waits for a page, which will take some of its session's queue.
    waiting: Option<Reserved>,
    /// The last seq of the page that it reads.
    page_until: i64,
    /// Its session's queue will say when to go on.
    paused: bool,
}

/// Whether a follower stays one.
enum Next {
    Stays,
    Joins,
    Gone,
}

impl Follower {
    /// Something else will move it on.
    pub fn is_busy(&self) -> bool {
        self.waiting.is_some() || self.paused
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// It was told nothing yet, and could still be refused.
    pub fn is_opening(&self) -> bool {
        self.opening && !matches!(self.attach.start, Start::Afresh { .. })
    }

    /// The log no longer holds what it would get next. Behind the head of its attaching read its membership may have
    /// ended, so that is still looked for.
    pub fn has_lost(&mut self, position: i64) {
        let head = self.head.min(position);
        self.start_over = Some(if self.cursor < head { head } else { position });
    }
}

impl Conversation {
    /// Lets a subscription begin, after its locking read.
    pub(super) fn open(&mut self, attach: Attach, attached: Attached) {
        let Attached { head, visible, member, .. } = attached;
        let top = self.position.map_or(head, |position| position.max(head));
        let afresh = matches!(attach.start, Start::Afresh { .. });
        if !member && (afresh || attach.start == Start::Head) {
            if attach.scope == Scope::UserQueue {
                // Left since the user's memberships were read; or never joined, as far as the restored state knows.
                return self.end_at_once(&attach, head, !afresh);
            }
            let message = format!("you are no member of conversation {}", self.id);
            return super::refuse(&attach, &Refusal::new(Code::NotAMember, message));
        }
        let (cursor, recovered) = match attach.start {
            // What came since the read is delivered: the end of the membership may be in it.
            Start::Head => (head, true),
            Start::Join { seq } => ((seq - 1).min(top), true),
            Start::Afresh { seq } => (seq.min(top), false),
            Start::After { seq, epoch } if seq <= top && epoch.is_none_or(|epoch| epoch == self.epoch) => (seq, true),
            Start::After { .. } => (head, false),
        };
        // A session may attach thousands: what each is told is paced like what is replayed.
        let paused = attach.outgoing.wait_for_low_water(self.waiter(&attach));
        let mut follower = Follower {
            attach,
            cursor,
            start_over: None,
            visible,
            head,
            opening: true,
            recovered,
            waiting: None,
            page_until: 0,
            paused,
        };
        // Where nothing is to be read from the log, what is said first is known now.
        let next = follower.visible.next_after(cursor);
        let tier = match next {
            Some(seq) if seq <= top && self.position.is_some_and(|position| seq <= position) => {
                if self.ring.get(seq).is_some() { Some(Tier::Ring) } else { None }
            }
            Some(seq) if seq <= top => Some(Tier::Ring),
            _ => Some(Tier::Live),
        };
        // Of a new epoch nothing that was asked for can be missing in the log.
        let tier = tier.or(afresh.then_some(Tier::Log));
        if let Some(tier) = tier.filter(|_| !paused) {
            self.say_resumed(&mut follower, tier);
        }
        self.followers.push(follower);
        if !paused {
            self.advance_one(self.followers.len() - 1);
            self.read_page();
        }
    }

    fn waiter(&self, attach: &Attach) -> Waiter {
        Waiter { subscription: attach.key.subscription, conversation: self.id }
    }

    /// For somebody who may see nothing of it at all.
    pub(super) fn end_unseen(&self, attach: &Attach) {
        self.end_at_once(attach, 0, false);
    }

    /// RESUMED is all that is said: no membership that began at `at_seq` or before lasts.
    fn end_at_once(&self, attach: &Attach, at_seq: i64, recovered: bool) {
        let after = self.position.unwrap_or(0).max(at_seq);
        let resumed = self.resumed(after, recovered, true, Tier::Live, Vec::new(), attach.user_seq);
        attach.outgoing.push(Class::Control, self.resumed_frame(attach, &resumed));
        attach.outgoing.notify(ended(attach, at_seq, false));
    }

    /// The session's queue has run low.
    pub fn go_on(&mut self, key: SubscriptionKey) {
        if let Some(follower) = self.followers.iter_mut().find(|follower| follower.attach.key == key) {
            follower.paused = false;
            self.advance_followers(|follower| follower.attach.key == key && !follower.is_busy());
        }
    }

    /// Gives the chosen followers what can be given now.
    pub(super) fn advance_followers(&mut self, chosen: impl Fn(&Follower) -> bool) {
        // From the end: one that leaves is replaced by one that had its turn.
        for index in (0..self.followers.len()).rev() {
            if chosen(&self.followers[index]) {
                self.advance_one(index);
            }
        }
        self.read_page();
    }

    /// There may be thousands of others: they are left where they are.
    fn advance_one(&mut self, index: usize) {
        let mut follower = self.followers.swap_remove(index);
        match self.advance(&mut follower) {
            Next::Stays => {
                self.followers.push(follower);
                let last = self.followers.len() - 1;
                self.followers.swap(index, last);
            }
            Next::Gone => {}
            Next::Joins => {
                let Attach { key, user, scope, head, outgoing, .. } = follower.attach;
                self.groups.add(&head, Member { key, user, scope, outgoing });
            }
        }
    }

    fn advance(&mut self, follower: &mut Follower) -> Next {
        let Some(position) = self.position else { return Next::Stays };
        if let Some(cursor) = follower.start_over.take() {
            follower.waiting = None;
            follower.cursor = cursor;
            // Its head may be of that other past, too.
            follower.head = follower.head.min(position);
            follower.recovered = false;
            self.say_resumed(follower, Tier::Live);
        }
        let waiter = self.waiter(&follower.attach);
        // What waits for a page has its place reserved.
        if follower.opening && follower.waiting.is_none() && follower.attach.outgoing.wait_for_low_water(waiter) {
            follower.paused = true;
            return Next::Stays;
        }
        loop {
            let Some(seq) = follower.visible.next_after(follower.cursor) else {
                return self.end(follower);
            };
            follower.cursor = seq - 1;
            if follower.cursor >= position {
                if follower.opening {
                    self.say_resumed(follower, Tier::Live);
                }
                // Up to its head only a follower can tell a USER_LEFT of the past from one that ends its membership.
                let level = follower.cursor == position && position >= follower.head;
                return if level && follower.visible.is_open_from(seq) { Next::Joins } else { Next::Stays };
            }
            let outgoing = &follower.attach.outgoing;
            let (event, tier) = match self.ring.get(seq) {
                Some(event) => (Some(Arc::clone(event)), Tier::Ring),
                None => (self.pages.get(seq, &mut follower.page_until, &self.metrics), Tier::Log),
            };
            let Some(event) = event else {
                if follower.waiting.is_none() {
                    // A session that asks for many has their pages one after the other.
                    if outgoing.wait_for_low_water(waiter) {
                        follower.paused = true;
                        return Next::Stays;
                    }
                    let missing = usize::try_from(position - follower.cursor).unwrap_or(usize::MAX);
                    let expected = missing.saturating_mul(EXPECTED_EVENT).min(self.page_bytes);
                    follower.waiting = Some(outgoing.reserve(expected));
                }
                return Next::Stays;
            };
            follower.waiting = None;
            if !follower.opening && outgoing.wait_for_low_water(waiter) {
                follower.paused = true;
                return Next::Stays;
            }
            if follower.opening {
                self.say_resumed(follower, tier);
            }
            if follower.send(&event) == Pushed::Closed {
                return Next::Gone;
            }
            self.metrics.replayed_from(tier);
            follower.cursor = seq;
            if event.kind == Kind::UserLeft && event.subject == follower.attach.user && seq > follower.head {
                follower.attach.outgoing.notify(ended(&follower.attach, seq, true));
                return Next::Gone;
            }
        }
    }

    /// A former member has got all that may be seen.
    fn end(&self, follower: &mut Follower) -> Next {
        if follower.opening {
            self.say_resumed(follower, Tier::Live);
        }
        let user_seq = follower.attach.user_seq;
        let resumed = self.resumed(follower.cursor, true, true, Tier::Live, Vec::new(), user_seq);
        follower.attach.outgoing.push(Class::Control, self.resumed_frame(&follower.attach, &resumed));
        // A membership that the attaching read did not show began behind its head.
        follower.attach.outgoing.notify(ended(&follower.attach, follower.head, false));
        Next::Gone
    }

    fn resumed_frame(&self, attach: &Attach, resumed: &ResumedData) -> Bytes {
        resumed_frame(&attach.head, resumed, self.epoch, attach.outgoing.encoding())
    }

    fn say_resumed(&self, follower: &mut Follower, tier: Tier) {
        let attach = &follower.attach;
        let top = self.position.unwrap_or(follower.head).max(follower.head);
        let skipped = follower.visible.skipped(follower.cursor, top);
        let mut resumed = self.resumed(follower.cursor, follower.recovered, false, tier, skipped, attach.user_seq);
        resumed.head = resumed.head.max(top);
        attach.outgoing.push(Class::Control, self.resumed_frame(attach, &resumed));
        if std::mem::take(&mut follower.opening) {
            self.metrics.resumed_from(tier);
            let (subscription, conversation) = (attach.key.subscription, attach.conversation);
            attach.outgoing.notify(session::Event::Attached { subscription, conversation, head: follower.head });
        }
    }
}

impl Follower {
    fn send(&self, event: &Event) -> Pushed {
        let Attach { key, user, conversation, head, joined_user_seq, outgoing, .. } = &self.attach;
        let user_seq = match event.kind {
            Kind::Created => *joined_user_seq,
            _ => (event.subject == *user && event.user_seq > 0).then_some(event.user_seq),
        };
        let encoding = outgoing.encoding();
        let frame = match user_seq {
            Some(user_seq) => event.frame_for_subject(head, user_seq, encoding),
            None => event.frame(head, encoding),
        };
        let note = head.acknowledges().then(|| delivered(*key, *conversation, event.seq));
        outgoing.push_noted(Class::Replay, frame, note)
    }
}

fn ended(attach: &Attach, at_seq: i64, removed: bool) -> session::Event {
    let (subscription, conversation) = (attach.key.subscription, attach.conversation);
    session::Event::Ended { subscription, conversation, at_seq, removed }
}
