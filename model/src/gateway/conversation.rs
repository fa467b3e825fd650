//! One conversation as a gateway delivers it: the position, what waits for a gap to be filled, and who follows.
//!
//! Written line by line after the real one, without epochs, bytes and time.

use super::{
    Said,
    follower::{Follower, Sub},
};
use crate::{
    client::Frame,
    database::{Database, What, bit},
    setup::{SeededBug, Setup},
};

/// Where delivery starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    Head,
    After(u8),
    Join(u8),
}

/// A subscription's wish for the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attach {
    pub start: Start,
    /// It is a topic's; else it is of somebody who follows all of their conversations.
    pub topic: bool,
    /// What RESUMED says of the user's state.
    pub user_seq: u8,
}

/// Head and membership, read together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    pub head: u8,
    pub visible: Vec<(u8, u8)>,
    pub member: bool,
}

/// A comparison of the head; `then` is where the conversation stood when it began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeadRead {
    pub then: Option<u8>,
    pub doubt: bool,
    pub head: Option<u8>,
}

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    Fill,
    Follower(u8),
}

/// A read of the log, with what was known when it began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogRead {
    pub reader: Reader,
    pub after: u8,
    /// 0: to the head.
    pub up_to: u8,
    position: u8,
    wanted: u8,
    generation: u8,
    pub page: Option<Page>,
}

/// The answer: the head, and which seqs have a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    pub head: u8,
    pub logged: u16,
}

impl LogRead {
    fn end(&self, page: Page) -> u8 {
        if self.up_to == 0 { page.head } else { page.head.min(self.up_to) }
    }

    /// The rows of the answer.
    pub fn events(&self, page: Page) -> Vec<u8> {
        (self.after + 1..=self.end(page)).filter(|seq| page.logged & bit(*seq) != 0).collect()
    }
}

/// What a conversation sees, and what it says.
pub struct Context<'a> {
    pub database: &'a Database,
    pub setup: &'a Setup,
    pub said: Vec<Said>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conversation {
    /// Which one of this gateway: what an earlier one asked for is not answered to this one.
    pub life: u8,
    pub announced: bool,
    /// The last seq that was applied; unknown until the first read.
    pub position: Option<u8>,
    wanted: u8,
    pending: u16,
    generation: u8,
    filling: bool,
    /// The first seq that is kept; all from it to the position are.
    pub(super) ring_first: u8,
    noted_head: Option<u8>,
    /// By client.
    pub subs: Vec<Sub>,
    pub heads: Vec<HeadRead>,
    pub logs: Vec<LogRead>,
}

impl Conversation {
    pub fn new(life: u8, clients: usize) -> Self {
        Self {
            life,
            announced: false,
            position: None,
            wanted: 0,
            pending: 0,
            generation: 0,
            filling: false,
            ring_first: 0,
            noted_head: None,
            subs: vec![Sub::None; clients],
            heads: Vec::new(),
            logs: Vec::new(),
        }
    }

    /// One that stands at `position`, for the model's first state.
    pub fn at(position: u8, clients: usize) -> Self {
        let new = Self::new(0, clients);
        Self { announced: true, position: Some(position), wanted: position, ring_first: position + 1, ..new }
    }

    pub fn is_idle(&self) -> bool {
        self.subs.iter().all(|sub| *sub == Sub::None)
    }

    /// Announce, read, attach: in this order, but for the seeded bug.
    pub fn attach(&mut self, client: u8, attach: Attach, read_first: bool) {
        let asked = self.announced || read_first;
        let then = asked.then_some(self.position);
        self.subs[usize::from(client)] = Sub::Waiting { attach, then, access: None };
    }

    pub fn announced(&mut self) {
        self.announced = true;
        let position = self.position;
        for sub in &mut self.subs {
            if let Sub::Waiting { then: then @ None, .. } = sub {
                *then = Some(position);
            }
        }
    }

    pub fn is_asked(&self, client: u8) -> bool {
        matches!(self.subs[usize::from(client)], Sub::Waiting { then: Some(_), access: None, .. })
    }

    pub fn access_was_read(&mut self, client: u8, read: Access) {
        if let Sub::Waiting { access, .. } = &mut self.subs[usize::from(client)] {
            *access = Some(read);
        }
    }

    pub fn may_attach(&self, client: u8) -> bool {
        self.announced && matches!(self.subs[usize::from(client)], Sub::Waiting { access: Some(_), .. })
    }

    /// The answer to the read for a waiting subscription.
    pub fn attached(&mut self, client: u8, context: &mut Context<'_>) {
        let sub = std::mem::replace(&mut self.subs[usize::from(client)], Sub::None);
        let Sub::Waiting { attach, then: Some(then), access: Some(access) } = sub else { return };
        if access.visible.is_empty() {
            if attach.topic {
                return context.said.push(Said::Refused(client));
            }
            return self.end_at_once(client, &attach, 0, false, context);
        }
        self.compare(access.head, then, context);
        self.open(client, attach, access, context);
    }

    pub fn detach(&mut self, client: u8) {
        self.subs[usize::from(client)] = Sub::None;
        self.logs.retain(|read| read.reader != Reader::Follower(client));
    }

    /// A sequenced event of the stream.
    pub fn arrived(&mut self, seq: u8, context: &mut Context<'_>) {
        let Some(position) = self.position else {
            self.wanted = self.wanted.max(seq);
            self.pending |= bit(seq);
            return;
        };
        if seq <= position {
            if context.setup.has(SeededBug::DuplicateCheckOff) {
                self.push(seq, context);
            }
        } else if seq == position + 1 || context.setup.has(SeededBug::GapCheckOff) {
            self.apply(seq, context);
            self.apply_pending(context);
        } else {
            self.wanted = self.wanted.max(seq);
            self.pending |= bit(seq);
            self.fill();
        }
    }

    /// `doubt`: what is missing is filled at once, else when it is missing for two rounds.
    pub fn head_was_read(&mut self, index: usize, context: &mut Context<'_>) {
        let HeadRead { then, doubt, head: Some(head) } = self.heads.remove(index) else { return };
        self.compare(head, then, context);
        let Some(position) = self.position else { return };
        let missing = self.noted_head.filter(|noted| position < *noted);
        if head > position && (doubt || missing.is_some()) {
            self.wanted = self.wanted.max(head);
        }
        self.noted_head = (head > position).then_some(head);
        self.fill();
    }

    pub fn log_was_read(&mut self, index: usize, context: &mut Context<'_>) {
        let read = self.logs.remove(index);
        let Some(page) = read.page else { return };
        match read.reader {
            Reader::Fill => self.filled(&read, page, context),
            Reader::Follower(client) => {
                let fresh = read.generation == self.generation;
                self.follower_read(client, fresh.then(|| read.events(page)), context);
            }
        }
    }

    fn filled(&mut self, read: &LogRead, page: Page, context: &mut Context<'_>) {
        self.filling = false;
        if read.generation == self.generation {
            self.compare(page.head, Some(read.position), context);
        }
        if read.generation != self.generation {
            return self.fill();
        }
        self.drop_phantoms(page.head, read.wanted);
        let events = read.events(page);
        for seq in &events {
            let Some(position) = self.position else { return };
            if *seq <= position {
                continue;
            }
            if *seq > position + 1 {
                self.skip_to(*seq - 1, context);
            }
            self.apply(*seq, context);
        }
        let end = read.end(page);
        if events.is_empty() && self.position == Some(read.after) && read.after < end {
            self.skip_to(end, context);
        }
        self.apply_pending(context);
        self.fill();
    }

    /// Records above a head that was read after they had come.
    fn drop_phantoms(&mut self, head: u8, wanted: u8) {
        if head >= wanted {
            return;
        }
        self.pending &= !(head + 1..=wanted).fold(0, |seqs, seq| seqs | bit(seq));
        if self.wanted <= wanted {
            self.wanted = self.last_pending().unwrap_or(head).max(head);
        }
    }

    /// The first head sets the position; one below where the conversation stood is a reset.
    fn compare(&mut self, head: u8, then: Option<u8>, context: &mut Context<'_>) {
        match (self.position, then) {
            (None, _) => {
                self.position = Some(head);
                self.ring_first = head + 1;
                self.wanted = self.wanted.max(head);
                let early = std::mem::take(&mut self.pending);
                for seq in (1..16).filter(|seq| early & bit(*seq) != 0) {
                    self.arrived(seq, context);
                }
                self.fill();
            }
            (Some(now), Some(then)) if head < then.min(now) => self.reset(head, context),
            _ => {}
        }
    }

    fn first_pending(&self) -> Option<u8> {
        (self.pending != 0).then(|| self.pending.trailing_zeros() as u8)
    }

    fn last_pending(&self) -> Option<u8> {
        (self.pending != 0).then(|| 15 - self.pending.leading_zeros() as u8)
    }

    fn apply_pending(&mut self, context: &mut Context<'_>) {
        while let (Some(first), Some(position)) = (self.first_pending(), self.position) {
            if first > position + 1 {
                break;
            }
            self.pending &= !bit(first);
            if first == position + 1 {
                self.apply(first, context);
            }
        }
    }

    /// Starts to read what is missing, if it is not being read already.
    fn fill(&mut self) {
        let Some(position) = self.position else { return };
        let first = self.first_pending();
        if self.filling || self.wanted <= position || first.is_some_and(|seq| seq <= position + 1) {
            return;
        }
        self.filling = true;
        self.read_log(Reader::Fill, position, first.map_or(0, |seq| seq - 1), position);
    }

    pub(super) fn read_log(&mut self, reader: Reader, after: u8, up_to: u8, position: u8) {
        let (wanted, generation) = (self.wanted, self.generation);
        self.logs.push(LogRead { reader, after, up_to, position, wanted, generation, page: None });
    }

    /// The next event: to the ring, to all members, and on with the followers that it concerns.
    fn apply(&mut self, seq: u8, context: &mut Context<'_>) {
        let follows = self.position == Some(seq - 1);
        self.position = Some(seq);
        self.wanted = self.wanted.max(seq);
        let kept = if follows { self.ring_first } else { seq };
        self.ring_first = kept.max((seq + 1).saturating_sub(context.setup.ring));
        self.push(seq, context);
        self.advance_followers(|_, follower| follower.cursor <= seq && !follower.reading, context);
    }

    fn push(&mut self, seq: u8, context: &mut Context<'_>) {
        let what = context.database.what(seq);
        for (client, sub) in (0..).zip(&mut self.subs) {
            if *sub != Sub::Member {
                continue;
            }
            context.said.push(Said::Frame(client, Frame::event(seq, what, client)));
            if matches!(what, What::Left { user, .. } if user == client) {
                *sub = Sub::None;
                context.said.push(Said::Ended(client, seq));
            }
        }
    }

    /// Events up to `seq` are lost to this gateway: members are told.
    fn skip_to(&mut self, seq: u8, context: &mut Context<'_>) {
        self.position = Some(seq);
        self.ring_first = seq + 1;
        for (client, _) in (0..).zip(&self.subs).filter(|(_, sub)| **sub == Sub::Member) {
            context.said.push(Said::Frame(client, Frame::lost(seq)));
        }
    }

    /// What was known is of another past.
    fn reset(&mut self, position: u8, context: &mut Context<'_>) {
        self.wanted = position;
        self.pending = 0;
        self.noted_head = None;
        self.generation += 1;
        self.skip_to(position, context);
        for sub in &mut self.subs {
            if let Sub::Follower(follower) = sub {
                follower.page.clear();
                follower.start_over = true;
            }
        }
        self.advance_followers(|_, _| true, context);
    }

    /// Gives the chosen followers what can be given now.
    pub(super) fn advance_followers(&mut self, chosen: impl Fn(u8, &Follower) -> bool, context: &mut Context<'_>) {
        for client in 0..self.subs.len() as u8 {
            let Sub::Follower(follower) = &self.subs[usize::from(client)] else { continue };
            if chosen(client, follower) {
                let Sub::Follower(follower) = std::mem::replace(&mut self.subs[usize::from(client)], Sub::None) else {
                    continue;
                };
                self.subs[usize::from(client)] = self.advance(client, follower, context);
            }
        }
    }
}
