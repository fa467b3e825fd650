//! One conversation as this gateway delivers it.
//!
//! Pure: inputs change the state, frames go into subscribers' [`crate::session::Outgoing`] queues (which never wait), and what must be
//! asked elsewhere is left as [`Effect`]s.
//!
//! The conversation has a *position*: every event up to it was applied here. A live event is applied only when it is
//! the next one; a lower one is a duplicate; a higher one waits until the gap is filled from core's log. Subscribers
//! whose cursor is the position are *members* of a group and get each event as it is applied, one encoded frame for all
//! that share the start of their frames. The others are *followers* with a cursor of their own (see [`follower`] and
//! [`paging`]).

mod follower;
mod group;
mod paging;

use std::{sync::Arc, time::Duration};

use chassis::seeded::{self, Bug};
use proto::{
    Code,
    event::{ResumedData, Tier},
};
use tokio::time::Instant;

use self::{
    follower::Follower,
    group::{Groups, Member},
};
use super::{
    Arrival, Attach, Scope, Stamp, Start, SubscriptionKey,
    budget::Room,
    event::{self, Event, Kind, Visible},
    pages::Pages,
    pending::Pending,
    ring::Ring,
};
use crate::{
    config,
    metrics::{Dropped, Metrics},
    refusal::Refusal,
    session::{self, Unflushed},
};

/// What a conversation may hold in memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub ring_events: usize,
    pub ring_bytes: usize,
    pub ring_age: Duration,
    pub pending_bytes: usize,
    /// A page of the log.
    pub page_bytes: usize,
}

impl From<&config::Config> for Limits {
    fn from(config: &config::Config) -> Self {
        let config::Hub { ring_events, ring_bytes, ring_age, pending_bytes, .. } = config.hub;
        Self { ring_events, ring_bytes, ring_age, pending_bytes, page_bytes: config.core.log_page_bytes }
    }
}

/// Core's answer to one attaching subscription: a locking read of head and membership together.
#[derive(Clone, Debug)]
pub struct Attached {
    pub head: i64,
    pub epoch: i64,
    pub visible: Visible,
    /// The user is a member now: what comes is visible.
    pub member: bool,
}

/// A page of the event log; the head was read under a lock, before the rows.
#[derive(Debug, Default)]
pub struct Page {
    pub events: Vec<Arc<Event>>,
    pub head: i64,
    pub epoch: i64,
    /// False: the log no longer holds the first seq that was asked for.
    pub complete: bool,
    /// What it takes in memory, where it is kept.
    pub room: Option<Room>,
}

impl Page {
    /// The same in a room, of which it takes what it needs.
    pub fn within(self, mut room: Room) -> Self {
        room.keep(self.events.iter().map(|event| event.size()).sum());
        Self { room: Some(room), ..self }
    }
}

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The conversation itself, for a gap.
    Fill,
    /// Those who replay.
    Followers,
}

/// A read of the log, with what was known when it began: only that may be compared with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRead {
    pub reader: Reader,
    pub after: i64,
    /// 0: to the head.
    pub up_to: i64,
    pub epoch: i64,
    position: i64,
    wanted: i64,
    generation: u64,
    /// Tries that failed before.
    pub tries: u32,
}

/// What is to be asked elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Announce,
    Attach { key: SubscriptionKey, user: i64, position: Option<i64> },
    ReadLog(LogRead),
}

#[derive(Debug)]
pub struct Conversation {
    id: i64,
    /// Tells it from others that had its id before it: what those asked for is not answered to it.
    pub life: u64,
    announced: bool,
    epoch: i64,
    /// The last seq that was applied; unknown until the first locking read.
    position: Option<i64>,
    /// The highest seq that is said to exist.
    wanted: i64,
    /// Raised when what was read before must not be used.
    generation: u64,
    ring: Ring,
    ring_age: Duration,
    pending: Pending,
    filling: bool,
    /// Of the log, for followers.
    pages: Pages,
    page_bytes: usize,
    /// A page is on its way.
    paging: bool,
    /// The next page is read from here on, if somebody waits there.
    paged_to: i64,
    groups: Groups,
    followers: Vec<Follower>,
    /// Not attached yet: to be announced, or being read.
    waiting: Vec<Attach>,
    /// The head that the last comparison found ahead of the position.
    noted_head: Option<i64>,
    idle_since: Option<Instant>,
    pub effects: Vec<Effect>,
    /// Queues of members that were delivered to: to be flushed when the batch is over.
    pub unflushed: Unflushed,
    metrics: Arc<Metrics>,
}

impl Conversation {
    /// A conversation that is about to be announced.
    pub fn new(id: i64, limits: Limits, metrics: Arc<Metrics>, now: Instant) -> Self {
        Self {
            id,
            life: 0,
            announced: false,
            epoch: 0,
            position: None,
            wanted: 0,
            generation: 0,
            ring: Ring::new(limits.ring_events, limits.ring_bytes),
            ring_age: limits.ring_age,
            pending: Pending::new(limits.pending_bytes),
            filling: false,
            pages: Pages::default(),
            page_bytes: limits.page_bytes,
            paging: false,
            paged_to: 0,
            groups: Groups::default(),
            followers: Vec::new(),
            waiting: Vec::new(),
            noted_head: None,
            idle_since: Some(now),
            effects: vec![Effect::Announce],
            unflushed: Unflushed::new(),
            metrics,
        }
    }

    pub fn position(&self) -> Option<i64> {
        self.position
    }

    pub fn is_announced(&self) -> bool {
        self.announced
    }

    /// Since when nobody is subscribed; `None` while somebody is.
    pub fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    /// Everything that is needed for an attached subscription happens in this order: announce, read, attach.
    pub fn attach(&mut self, attach: Attach) {
        if self.announced || seeded::on(Bug::ReadBeforeRegister) {
            self.effects.push(Effect::Attach { key: attach.key, user: attach.user, position: self.position });
        }
        self.idle_since = None;
        self.waiting.push(attach);
    }

    pub fn announced(&mut self, result: Result<(), Refusal>, now: Instant) {
        match result {
            Ok(()) => {
                self.announced = true;
                if seeded::on(Bug::ReadBeforeRegister) {
                    return;
                }
                let position = self.position;
                let reads =
                    self.waiting.iter().map(|attach| Effect::Attach { key: attach.key, user: attach.user, position });
                self.effects.extend(reads);
            }
            Err(refusal) => {
                for attach in std::mem::take(&mut self.waiting) {
                    refuse(&attach, &refusal);
                }
                self.effects.push(Effect::Announce);
                self.note_idle(now);
            }
        }
    }

    /// The locking read for a waiting subscription; `position` is where the conversation stood when it began.
    pub fn attached(
        &mut self,
        key: SubscriptionKey,
        result: Result<Attached, Refusal>,
        position: Option<i64>,
        now: Instant,
    ) {
        let Some(index) = self.waiting.iter().position(|attach| attach.key == key) else { return };
        let attach = self.waiting.swap_remove(index);
        match result {
            Ok(attached) => {
                self.compare(attached.head, attached.epoch, position);
                self.open(attach, attached);
            }
            // It was subscribed before the epoch began: it is asked for again with the next comparison.
            Err(refusal) if refusal.code.is_retryable() && matches!(attach.start, Start::Afresh { .. }) => {
                self.waiting.push(attach);
            }
            // Never a refusal on the user's queue: there is nothing to be seen, and that is said.
            Err(refusal)
                if attach.scope == Scope::UserQueue
                    && matches!(refusal.code, Code::NotFound | Code::NotAMember | Code::Forbidden) =>
            {
                self.end_unseen(&attach);
            }
            Err(refusal) => refuse(&attach, &refusal),
        }
        self.note_idle(now);
    }

    pub fn detach(&mut self, key: SubscriptionKey, now: Instant) {
        self.waiting.retain(|attach| attach.key != key);
        self.followers.retain(|follower| follower.attach.key != key);
        self.groups.remove(key);
        self.note_idle(now);
    }

    /// A sequenced event of the stream.
    pub fn arrived(&mut self, event: Arc<Event>, stamp: Stamp) {
        let Some(position) = self.position else {
            // What there is no room for is read from the log, once it is known from where.
            self.wanted = self.wanted.max(event.seq);
            self.pending.insert(event, stamp);
            return;
        };
        if event.epoch < self.epoch {
            self.metrics.dropped(Dropped::OldEpoch);
        } else if event.epoch > self.epoch {
            self.begin_epoch(event.seq - 1, event.epoch);
            self.apply(&event, Some(stamp));
        } else if event.seq <= position && !seeded::on(Bug::DuplicateCheckOff) {
            self.metrics.dropped(Dropped::Duplicate);
        } else if event.seq <= position + 1 || seeded::on(Bug::GapCheckOff) {
            self.apply(&event, Some(stamp));
            self.apply_pending();
        } else {
            self.wanted = self.wanted.max(event.seq);
            if self.pending.first_seq().is_none() {
                self.metrics.gaps.inc();
            }
            if !self.pending.insert(event, stamp) {
                self.metrics.dropped(Dropped::PendingFull);
            }
            self.fill();
        }
    }

    /// An unsequenced event: to members only, and it may be dropped.
    pub fn arrived_unsequenced(&mut self, arrival: &Arrival) {
        if let Some(tail) = event::unsequenced_tail(&arrival.entry) {
            self.groups.push_unsequenced(&tail, &self.metrics, &mut self.unflushed);
        }
    }

    /// A head from a comparison; `doubt`: what is missing is filled at once, else when it is missing for two rounds.
    pub fn head_was_read(&mut self, head: i64, epoch: i64, position: Option<i64>, doubt: bool) {
        let afresh = self.waiting.iter().filter(|attach| matches!(attach.start, Start::Afresh { .. }));
        let again = afresh.map(|attach| Effect::Attach { key: attach.key, user: attach.user, position: self.position });
        self.effects.extend(again);
        self.compare(head, epoch, position);
        let Some(position) = self.position else { return };
        let missing = self.noted_head.filter(|noted| position < *noted);
        if head > position && (doubt || missing.is_some()) {
            self.wanted = self.wanted.max(head);
        }
        self.noted_head = (head > position).then_some(head);
        self.fill();
    }

    /// A comparison did not find it: the database that was restored does not know it.
    pub fn is_unknown(&mut self, epoch: i64) {
        if self.position.is_some() && epoch > self.epoch {
            self.begin_epoch(0, epoch);
        }
    }

    /// The answer to a [`LogRead`].
    pub fn log_was_read(&mut self, read: LogRead, result: Result<Page, Refusal>, now: Instant) {
        match read.reader {
            Reader::Fill => self.filled(read, result),
            Reader::Followers => self.page_was_read(read, result),
        }
        self.note_idle(now);
    }

    fn filled(&mut self, read: LogRead, result: Result<Page, Refusal>) {
        let page = match result {
            Ok(page) => page,
            Err(_) => {
                self.effects.push(Effect::ReadLog(LogRead { tries: read.tries + 1, ..read }));
                return;
            }
        };
        self.filling = false;
        if read.generation == self.generation {
            self.compare(page.head, page.epoch, Some(read.position));
        }
        // A reset, here or since the read began, makes it worthless.
        if read.generation != self.generation {
            return self.fill();
        }
        self.drop_phantoms(page.head, read.wanted);
        for event in &page.events {
            let Some(position) = self.position else { return };
            if event.seq <= position {
                continue;
            }
            if event.seq > position + 1 {
                self.skip_to(event.seq - 1);
            }
            self.apply(event, None);
        }
        let end = if read.up_to == 0 { page.head } else { page.head.min(read.up_to) };
        if page.events.is_empty() && self.position == Some(read.after) && read.after < end {
            // The log has nothing there any more.
            self.skip_to(end);
        }
        self.metrics.fills_log.inc();
        self.apply_pending();
        self.fill();
    }

    /// Records above a head that was read after they had come: they were never committed as what they say.
    fn drop_phantoms(&mut self, head: i64, wanted: i64) {
        if head >= wanted {
            return;
        }
        let dropped = self.pending.drop_range(head, wanted);
        self.metrics.phantoms.inc_by(dropped);
        if self.wanted <= wanted {
            self.wanted = self.pending.last_seq().unwrap_or(head).max(head);
        }
    }

    /// Compares a head with what was known when its read began. The first one sets the position; one of a newer epoch,
    /// or below where the conversation stood, is a reset.
    fn compare(&mut self, head: i64, epoch: i64, position: Option<i64>) {
        match (self.position, position) {
            (None, _) => {
                self.position = Some(head);
                self.epoch = epoch;
                self.wanted = self.wanted.max(head);
                self.replay_pending();
                self.fill();
            }
            (Some(_), _) if epoch > self.epoch => self.begin_epoch(head, epoch),
            (Some(now), Some(then)) if epoch == self.epoch && head < then.min(now) => self.reset(head, epoch),
            _ => {}
        }
    }

    /// What came before the position was known is looked at as if it came now.
    fn replay_pending(&mut self) {
        let mut early = Vec::new();
        while let Some(event) = self.pending.pop_first() {
            early.push(event);
        }
        for (event, stamp) in early {
            self.arrived(event, stamp);
        }
    }

    fn apply_pending(&mut self) {
        while let (Some(first), Some(position)) = (self.pending.first_seq(), self.position) {
            if first > position + 1 {
                break;
            }
            if let Some((event, stamp)) = self.pending.pop_first()
                && event.seq == position + 1
            {
                self.apply(&event, Some(stamp));
            }
        }
    }

    /// Starts to read what is missing, if it is not being read already.
    fn fill(&mut self) {
        let Some(position) = self.position else { return };
        let first = self.pending.first_seq();
        if self.filling || self.wanted <= position || first.is_some_and(|seq| seq <= position + 1) {
            return;
        }
        self.filling = true;
        let up_to = first.map_or(0, |seq| seq - 1);
        self.read_log(Reader::Fill, position, up_to, position);
    }

    fn read_log(&mut self, reader: Reader, after: i64, up_to: i64, position: i64) {
        let (epoch, wanted, generation) = (self.epoch, self.wanted, self.generation);
        self.effects.push(Effect::ReadLog(LogRead {
            reader,
            after,
            up_to,
            epoch,
            position,
            wanted,
            generation,
            tries: 0,
        }));
    }

    /// The next event: to the ring, to all members, and on with the followers that it concerns.
    fn apply(&mut self, event: &Arc<Event>, stamp: Option<Stamp>) {
        self.position = Some(event.seq);
        self.wanted = self.wanted.max(event.seq);
        if event.kind == Kind::Deleted {
            // The text must not come out of any memory; pages that are being read may hold it too.
            self.ring.forget(event.target_seq);
            self.generation += 1;
            self.pages.clear();
        }
        self.ring.push(Arc::clone(event));
        let queued = self.groups.push(self.id, event, &self.metrics, &mut self.unflushed);
        if let Some(stamp) = stamp.filter(|_| queued > 0) {
            self.metrics.delivered(self.id, event.seq, stamp);
        }
        if !self.followers.is_empty() {
            self.advance_followers(|follower| follower.cursor <= event.seq && !follower.is_busy());
        }
    }

    /// Events up to `seq` are lost to this gateway: the members are told, and delivery goes on behind it.
    fn skip_to(&mut self, seq: i64) {
        self.position = Some(seq);
        self.ring.clear();
        self.metrics.lost.inc();
        let resumed = self.resumed(seq, false, false, Tier::Live, Vec::new(), None);
        self.groups.push_resumed(&resumed, self.epoch);
    }

    /// What was known is of another past: delivery goes on behind `position`, and everyone is told.
    fn reset(&mut self, position: i64, epoch: i64) {
        self.epoch = epoch;
        self.wanted = position;
        self.pending.clear();
        self.noted_head = None;
        self.generation += 1;
        self.metrics.resets.inc();
        self.skip_to(position);
        self.pages.clear();
        self.followers.iter_mut().for_each(|follower| follower.start_over = Some(position));
        self.advance_followers(|_| true);
    }

    /// A newer epoch: memberships may be of another past too, so everyone is attached again, behind `position`.
    fn begin_epoch(&mut self, position: i64, epoch: i64) {
        let members = self.groups.drain().map(|(head, Member { key, user, scope, outgoing })| {
            let start = Start::Afresh { seq: position };
            let (user_seq, joined_user_seq, conversation) = (None, None, self.id);
            Attach { key, user, conversation, scope, start, head, outgoing, user_seq, joined_user_seq }
        });
        let mut subscribers: Vec<Attach> = members.collect();
        subscribers.extend(std::mem::take(&mut self.followers).into_iter().map(|follower| Attach {
            start: Start::Afresh { seq: position },
            user_seq: None,
            joined_user_seq: None,
            ..follower.attach
        }));
        self.reset(position, epoch);
        subscribers.into_iter().for_each(|attach| self.attach(attach));
    }

    /// Data of a RESUMED.
    fn resumed(
        &self,
        after_seq: i64,
        recovered: bool,
        ended: bool,
        tier: Tier,
        skipped: Vec<[i64; 2]>,
        user_seq: Option<i64>,
    ) -> ResumedData {
        ResumedData {
            conversation_id: proto::ConversationId(self.id),
            after_seq,
            head: self.position.unwrap_or(after_seq).max(after_seq),
            epoch: self.epoch,
            user_seq,
            recovered,
            ended,
            tier,
            skipped,
        }
    }

    /// To be called now and then: the last subscriber may have left by an event, and what is kept gets old.
    pub fn tick(&mut self, now: Instant) {
        self.note_idle(now);
        self.ring.age(now, self.ring_age);
        self.pages.tick();
    }

    /// Looks whether anybody is subscribed.
    pub fn note_idle(&mut self, now: Instant) {
        let idle = self.waiting.is_empty() && self.followers.is_empty() && self.groups.is_empty();
        self.idle_since = if idle { self.idle_since.or(Some(now)) } else { None };
    }
}

fn refuse(attach: &Attach, refusal: &Refusal) {
    attach.outgoing.notify(session::Event::Refused {
        subscription: attach.key.subscription,
        conversation: attach.conversation,
        refusal: refusal.clone(),
    });
}

#[cfg(test)]
pub(super) mod tests;
