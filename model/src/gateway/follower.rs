//! Subscribers of a conversation: waiting, following with a cursor of their own, or members at the position.

use super::{
    Said,
    conversation::{Access, Attach, Context, Conversation, Reader, Start},
};
use crate::{
    client::Frame,
    database::{What, is_open_from, next_after},
};

/// What one client's subscription is to the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sub {
    None,
    /// Not attached yet; `then`: where the conversation stood when its read was asked for.
    Waiting {
        attach: Attach,
        then: Option<Option<u8>>,
        access: Option<Access>,
    },
    Follower(Follower),
    Member,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Follower {
    pub cursor: u8,
    pub page: Vec<u8>,
    pub start_over: bool,
    pub reading: bool,
    visible: Vec<(u8, u8)>,
    head: u8,
    opening: bool,
    user_seq: u8,
}

impl Conversation {
    fn keeps(&self, seq: u8) -> bool {
        self.position.is_some_and(|position| self.ring_first <= seq && seq <= position)
    }

    /// Lets a subscription begin, after its read.
    pub(super) fn open(&mut self, client: u8, attach: Attach, access: Access, context: &mut Context<'_>) {
        let Access { head, visible, member } = access;
        let top = self.position.map_or(head, |position| position.max(head));
        if !member && attach.start == Start::Head {
            if attach.topic {
                return context.said.push(Said::Refused(client));
            }
            return self.end_at_once(client, &attach, head, true, context);
        }
        let (cursor, recovered) = match attach.start {
            Start::Head if head >= top || self.keeps(head + 1) => (head, true),
            Start::Head => (top, true),
            Start::Join(seq) => ((seq - 1).min(top), true),
            Start::After(seq) if seq <= top => (seq, true),
            Start::After(_) => (top, false),
        };
        let mut follower = Follower {
            cursor,
            page: Vec::new(),
            start_over: false,
            reading: false,
            visible,
            head,
            opening: true,
            user_seq: attach.user_seq,
        };
        let at_hand = match next_after(&follower.visible, cursor) {
            Some(seq) if seq <= top && self.position.is_some_and(|position| seq <= position) => self.keeps(seq),
            _ => true,
        };
        if at_hand {
            say_resumed(client, &mut follower, recovered, context);
        }
        self.subs[usize::from(client)] = Sub::Follower(follower);
        self.advance_followers(|_, follower| !follower.reading, context);
    }

    /// RESUMED is all that is said.
    pub(super) fn end_at_once(
        &self,
        client: u8,
        attach: &Attach,
        at_seq: u8,
        recovered: bool,
        context: &mut Context<'_>,
    ) {
        let after = self.position.unwrap_or(0).max(at_seq);
        let frame = Frame::Resumed { after, recovered, ended: true, user_seq: attach.user_seq };
        context.said.extend([Said::Frame(client, frame), Said::Ended(client, at_seq)]);
    }

    /// A page of the log; none when it is of another past.
    pub(super) fn follower_read(&mut self, client: u8, events: Option<Vec<u8>>, context: &mut Context<'_>) {
        let Sub::Follower(follower) = &mut self.subs[usize::from(client)] else { return };
        follower.reading = false;
        if let Some(events) = events {
            if events.first().is_some_and(|seq| *seq <= follower.cursor + 1) {
                follower.page.extend(events);
            } else {
                follower.start_over = true;
            }
        }
        self.advance_followers(|other, _| other == client, context);
    }

    pub(super) fn advance(&mut self, client: u8, mut follower: Follower, context: &mut Context<'_>) -> Sub {
        let Some(position) = self.position else { return Sub::Follower(follower) };
        if follower.start_over {
            follower.start_over = false;
            follower.page.clear();
            follower.cursor = position;
            say_resumed(client, &mut follower, false, context);
        }
        loop {
            let Some(seq) = next_after(&follower.visible, follower.cursor) else {
                return end(client, &mut follower, context);
            };
            follower.cursor = seq - 1;
            if follower.cursor >= position {
                if follower.opening {
                    say_resumed(client, &mut follower, true, context);
                }
                let level = follower.cursor == position && is_open_from(&follower.visible, seq);
                return if level { Sub::Member } else { Sub::Follower(follower) };
            }
            if !self.keeps(seq) && !follower.next_of_page(seq) {
                if !follower.reading {
                    follower.reading = true;
                    let kept = self.ring_first <= position && self.ring_first > seq;
                    let up_to = if kept { self.ring_first - 1 } else { position };
                    self.read_log(Reader::Follower(client), follower.cursor, up_to, position);
                }
                return Sub::Follower(follower);
            }
            if follower.opening {
                say_resumed(client, &mut follower, true, context);
            }
            let what = context.database.what(seq);
            context.said.push(Said::Frame(client, Frame::event(seq, what, client)));
            follower.cursor = seq;
            if matches!(what, What::Left { user, .. } if user == client) && seq > follower.head {
                context.said.push(Said::Ended(client, seq));
                return Sub::None;
            }
        }
    }
}

/// A former member has got all that may be seen.
fn end(client: u8, follower: &mut Follower, context: &mut Context<'_>) -> Sub {
    if follower.opening {
        say_resumed(client, follower, true, context);
    }
    let frame = Frame::Resumed { after: follower.cursor, recovered: true, ended: true, user_seq: follower.user_seq };
    context.said.extend([Said::Frame(client, frame), Said::Ended(client, follower.head)]);
    Sub::None
}

fn say_resumed(client: u8, follower: &mut Follower, recovered: bool, context: &mut Context<'_>) {
    let Follower { cursor: after, user_seq, .. } = *follower;
    context.said.push(Said::Frame(client, Frame::Resumed { after, recovered, ended: false, user_seq }));
    if std::mem::take(&mut follower.opening) {
        context.said.push(Said::Attached(client));
    }
}

impl Follower {
    /// Whether it is the next of the page; taken out then.
    fn next_of_page(&mut self, seq: u8) -> bool {
        self.page.retain(|other| *other >= seq);
        let next = self.page.first() == Some(&seq);
        if next {
            self.page.remove(0);
        }
        next
    }
}
