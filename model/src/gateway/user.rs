//! A user whose conversations are followed, and the session that follows them. One conversation here.

use super::conversation::{Attach, Start};
use crate::{
    database::Interval,
    setup::{SeededBug, Setup},
};

/// What a user may see now, and what has come and gone since what their session knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserState {
    pub user_seq: u8,
    pub membership: Option<Interval>,
    pub ended: Vec<Interval>,
}

/// A read of the state on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    No,
    Asked,
    /// The first of its two statements was answered.
    UserSeq(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// The client, and the user.
    pub of: u8,
    pub announced: bool,
    reading: Reading,
    read_again: bool,
    wanted: u8,
    known: u8,
    told: bool,
    /// The `user_seq` that the session knows.
    pub told_up_to: Option<u8>,
    pub last: Option<UserState>,
}

impl User {
    pub fn new(of: u8, told_up_to: Option<u8>) -> Self {
        Self {
            of,
            announced: false,
            reading: Reading::No,
            read_again: false,
            wanted: 0,
            known: 0,
            told: false,
            told_up_to,
            last: None,
        }
    }

    /// One whose state was read and told, for the model's first state.
    pub fn knowing(of: u8, state: UserState) -> Self {
        let known = state.user_seq;
        Self { announced: true, wanted: known, known, told: true, last: Some(state), ..Self::new(of, Some(known)) }
    }

    pub fn watch(&mut self, told_up_to: Option<u8>) {
        (self.told, self.told_up_to) = (false, told_up_to);
        if self.announced {
            self.read();
        }
    }

    pub fn announced(&mut self) {
        self.announced = true;
        self.read();
    }

    /// An event of the user, or a comparison (0: read anyway).
    pub fn heard(&mut self, user_seq: u8) {
        self.wanted = self.wanted.max(user_seq);
        if self.announced && (user_seq == 0 || self.wanted > self.known) {
            self.read();
        }
    }

    fn read(&mut self) {
        if self.reading == Reading::No {
            self.reading = Reading::Asked;
        } else {
            self.read_again = true;
        }
    }

    pub fn is_reading(&self) -> bool {
        self.reading != Reading::No
    }

    pub fn is_asked(&self) -> bool {
        self.reading == Reading::Asked
    }

    pub fn has_user_seq(&self) -> bool {
        matches!(self.reading, Reading::UserSeq(_))
    }

    pub fn user_seq_was_read(&mut self, user_seq: u8) {
        self.reading = Reading::UserSeq(user_seq);
    }

    /// The state, if the session is to be told.
    pub fn memberships_were_read(&mut self, membership: Option<Interval>, ended: Vec<Interval>) -> Option<UserState> {
        let Reading::UserSeq(user_seq) = self.reading else { return None };
        let state = UserState { user_seq, membership, ended };
        self.reading = Reading::No;
        self.known = user_seq;
        self.wanted = self.wanted.min(self.known);
        let changed = self.last.as_ref() != Some(&state) || !self.told;
        (self.told, self.told_up_to) = (true, Some(user_seq));
        self.last = Some(state.clone());
        if std::mem::take(&mut self.read_again) {
            self.read();
        }
        changed.then_some(state)
    }
}

/// A subscription to all conversations of the user, in its session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// What `/app/resume` named: the conversation's cursor, and the user's `user_seq`.
    cursor: Option<u8>,
    user_seq: Option<u8>,
    state: Option<UserState>,
    attached: bool,
    /// On its way to be attached, by that membership.
    pending: Option<Option<Interval>>,
    /// Memberships that are over, while the conversation is attached: they begin behind its end.
    missed: Vec<Interval>,
    /// No membership that began at this seq or before lasts.
    ended_at: u8,
}

impl Session {
    pub fn new(cursor: Option<u8>, user_seq: Option<u8>) -> Self {
        Self { cursor, user_seq, state: None, attached: false, pending: None, missed: Vec::new(), ended_at: 0 }
    }

    /// One that was told a state without a membership, for the model's first state.
    pub fn told(state: UserState) -> Self {
        Self { state: Some(state), ..Self::new(None, None) }
    }

    /// The `user_seq` up to which nothing has to be told.
    pub fn known(&self) -> Option<u8> {
        self.state.as_ref().map(|state| state.user_seq).or(self.user_seq)
    }

    pub fn state_changed(&mut self, state: UserState, setup: &Setup) -> Option<Attach> {
        let first = self.state.is_none();
        let known = self.known().unwrap_or(u8::MAX);
        // The read may have been made before what the stream has told since.
        let again = setup.has(SeededBug::EndedAttachedAgain);
        let over = |membership: &Interval| membership.joined <= self.ended_at && !again;
        let membership = state.membership.filter(|membership| !over(membership));
        let unseen = state.ended.iter().filter(|ended| ended.joined_user_seq > known && !over(ended)).copied();
        if self.cursor.is_none() || !first {
            self.missed.extend(unseen);
        }
        let user_seq = state.user_seq;
        self.state = Some(state);
        if self.attached || self.pending.is_some() {
            return None;
        }
        let start = match self.cursor {
            Some(cursor) if first => {
                self.pending = Some(membership);
                Start::After(cursor)
            }
            _ => {
                let missed = std::mem::take(&mut self.missed).into_iter().min_by_key(|missed| missed.joined);
                let membership = missed.or(membership)?;
                let joined_since = self.user_seq.is_some_and(|user_seq| membership.joined_user_seq > user_seq);
                self.pending = Some(Some(membership));
                if first && !joined_since { Start::Head } else { Start::Join(membership.joined) }
            }
        };
        Some(Attach { start, topic: false, user_seq })
    }

    pub fn attached(&mut self) -> Option<Attach> {
        self.pending = None;
        self.attached = true;
        None
    }

    /// Nothing more comes; unless the user has joined since, at a seq above `at_seq`.
    pub fn ended(&mut self, at_seq: u8) -> Option<Attach> {
        let tried = self.pending.take().flatten();
        self.attached = false;
        self.ended_at = self.ended_at.max(at_seq);
        let state = self.state.as_ref()?;
        let later = std::mem::take(&mut self.missed).into_iter().chain(state.membership);
        let later = later.filter(|later| later.joined > at_seq && tried != Some(*later));
        let membership = later.min_by_key(|later| later.joined)?;
        self.pending = Some(Some(membership));
        Some(Attach { start: Start::Join(membership.joined), topic: false, user_seq: state.user_seq })
    }
}
