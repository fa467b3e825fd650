//! Clients: they connect, subscribe with the cursor that they have, and watch what they are shown.

use crate::{
    database::{What, next_after},
    gateway::{
        conversation::{Attach, Start},
        user::Session,
    },
    setup::{Destination, Setup},
    state::State,
};

/// A frame for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    Resumed {
        after: u8,
        recovered: bool,
        ended: bool,
        user_seq: u8,
    },
    /// `user_seq`: of an event that changes the client's own memberships; else 0.
    Event {
        seq: u8,
        user_seq: u8,
    },
}

impl Frame {
    pub fn event(seq: u8, what: What, client: u8) -> Self {
        let user_seq = match what {
            What::Joined { user, user_seq } | What::Left { user, user_seq } if user == client => user_seq,
            _ => 0,
        };
        Self::Event { seq, user_seq }
    }

    /// A RESUMED in mid-stream: what was before could not be filled.
    pub fn lost(seq: u8) -> Self {
        Self::Resumed { after: seq, recovered: false, ended: false, user_seq: 0 }
    }
}

/// The first breach of the promise that a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Breach {
    /// A seq that is not above the last one.
    NotAbove,
    /// A seq was left out.
    LeftOut,
    /// A message for the second time, under another seq.
    ShownTwice,
    /// Something of a time when the user was no member.
    NotAMember,
    /// RESUMED says that something is lost, or begins elsewhere than asked.
    GivenUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    pub at: Option<u8>,
    pub subscribed: bool,
    /// The subscription was refused, or has ended.
    pub over: bool,
    /// Frames between the gateway and the client.
    pub frames: Vec<Frame>,
    /// The last seq that it handled.
    pub cursor: Option<u8>,
    /// The highest `user_seq` that it was told; 0: it has subscribed, and was told of no conversation.
    pub user_seq: Option<u8>,
    /// Messages that it was shown, a bit for each.
    pub shown: u16,
    pub breach: Option<Breach>,
}

impl Client {
    pub fn new() -> Self {
        Self {
            at: None,
            subscribed: false,
            over: false,
            frames: Vec::new(),
            cursor: None,
            user_seq: None,
            shown: 0,
            breach: None,
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    pub fn write_frame(&mut self, client: u8, frame: Frame, setup: &Setup) {
        if setup.sockets {
            self.clients[usize::from(client)].frames.push(frame);
        } else {
            self.handle(client, frame, setup);
        }
    }

    pub fn receive(&mut self, client: u8, setup: &Setup) {
        let frame = self.clients[usize::from(client)].frames.remove(0);
        self.handle(client, frame, setup);
    }

    fn handle(&mut self, client: u8, frame: Frame, setup: &Setup) {
        let breach = match frame {
            Frame::Resumed { after, recovered, user_seq, .. } => {
                self.resumed(client, after, recovered, user_seq, setup)
            }
            Frame::Event { seq, user_seq } => self.shown(client, seq, user_seq, setup),
        };
        let client = &mut self.clients[usize::from(client)];
        client.breach = client.breach.or(breach);
    }

    fn resumed(&mut self, client: u8, after: u8, recovered: bool, user_seq: u8, setup: &Setup) -> Option<Breach> {
        let visible = self.database.durably_visible(setup.kind, client);
        let owed = self.database.durably_owed(client);
        let durable = self.database.durable_head();
        let at = &mut self.clients[usize::from(client)];
        let told = at.user_seq;
        let memberships = &self.database.memberships[usize::from(client)];
        let joined = memberships.iter().find(|joined| told.is_some_and(|told| joined.joined_user_seq > told));
        if user_seq > 0 {
            at.user_seq = Some(user_seq.max(told.unwrap_or(0)));
        }
        let begins = match (at.cursor, joined) {
            // Nothing behind the cursor is left out, but for what came while one was no member, which a channel shows or
            // not. Anything below it would be shown twice.
            (Some(cursor), ..) => match (next_after(&visible, after), next_after(&owed, cursor)) {
                (_, None) => true,
                (next, Some(expected)) => next.is_some_and(|next| next <= expected),
            },
            // What it joined since it was told the state begins with the join.
            (None, Some(joined)) => after < joined.joined,
            _ => after <= durable,
        };
        at.cursor = Some(after.max(at.cursor.unwrap_or(0)));
        (!recovered || !begins).then_some(Breach::GivenUp)
    }

    fn shown(&mut self, client: u8, seq: u8, user_seq: u8, setup: &Setup) -> Option<Breach> {
        let visible = self.database.durably_visible(setup.kind, client);
        let what = self.database.what(seq);
        let at = &mut self.clients[usize::from(client)];
        if user_seq > 0 {
            at.user_seq = Some(user_seq.max(at.user_seq.unwrap_or(0)));
        }
        let cursor = at.cursor.unwrap_or(0);
        if seq <= cursor {
            return Some(Breach::NotAbove);
        }
        at.cursor = Some(seq);
        if !visible.iter().any(|(from, to)| *from <= seq && seq <= *to) {
            return Some(Breach::NotAMember);
        }
        if next_after(&visible, cursor) != Some(seq) {
            return Some(Breach::LeftOut);
        }
        if let What::Message(message) = what {
            if at.shown & (1 << message) != 0 {
                return Some(Breach::ShownTwice);
            }
            at.shown |= 1 << message;
        }
        None
    }

    pub fn may_subscribe(&self, client: u8) -> bool {
        let at = &self.clients[usize::from(client)];
        at.at.is_some() && !at.subscribed && !at.over
    }

    /// With the cursor that it has, if it has one.
    pub fn subscribe(&mut self, client: u8, setup: &Setup) {
        let at = &mut self.clients[usize::from(client)];
        let Some(gateway) = at.at else { return };
        at.subscribed = true;
        let (cursor, user_seq) = (at.cursor, at.user_seq);
        match setup.clients[usize::from(client)].destination {
            Destination::Topic => {
                let start = cursor.map_or(Start::Head, Start::After);
                self.attach(gateway, client, Attach { start, topic: true, user_seq: 0 }, setup);
            }
            Destination::UserQueue => self.watch_user(gateway, client, Session::new(cursor, user_seq)),
        }
    }

    pub fn unsubscribe(&mut self, client: u8) {
        let at = &mut self.clients[usize::from(client)];
        at.subscribed = false;
        if let Some(gateway) = at.at {
            self.gateways[usize::from(gateway)].detach(client);
        }
    }

    /// The connection is gone, with all that was on its way.
    pub fn disconnected(&mut self, client: u8) {
        let at = &mut self.clients[usize::from(client)];
        at.frames.clear();
        at.subscribed = false;
        if let Some(gateway) = at.at.take() {
            self.gateways[usize::from(gateway)].detach(client);
        }
    }
}
