//! A gateway: its incarnation in Redis, its interest, the reader of its stream, and what it serves.

pub mod conversation;
pub mod follower;
pub mod user;

use crate::{
    capture::{CONVERSATION, USER},
    client::Frame,
    redis::{Entry, Incarnation},
    setup::{Destination, SeededBug, Setup},
    state::State,
};
use conversation::{Attach, Conversation, HeadRead};
use user::{Session, User};

/// A change of interest that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// `life`: of the conversation or user that asks, to which alone the answer goes.
    Announce {
        topic: u8,
        life: u8,
    },
    Release {
        topic: u8,
    },
}

/// What a conversation says: frames for a client, or something for its session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Said {
    Frame(u8, Frame),
    /// RESUMED of the client's subscription is queued.
    Attached(u8),
    /// Nothing more comes; no membership that began at this seq or before lasts.
    Ended(u8, u8),
    Refused(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    pub up: bool,
    /// Counts the incarnations, also those of earlier processes.
    pub incarnation: u8,
    /// The incarnation that this process gave up last.
    before: Option<u8>,
    pub live: bool,
    /// The connections to Redis work, as far as they were used.
    pub connected: bool,
    /// The incarnation to which all interest was announced; 0: none yet.
    pub announced_as: u8,
    /// Interest that is announced to each new incarnation.
    held: [bool; 2],
    pub interest: Vec<Interest>,
    /// All heads are to be compared.
    pub doubt: bool,
    /// Entries that were read from Redis and wait for the shard.
    pub inbox: Vec<Entry>,
    pub conversation: Option<Conversation>,
    /// Conversations made so far.
    lives: u8,
    pub user: Option<User>,
    /// By client; of those who follow all of their conversations.
    pub sessions: Vec<Option<Session>>,
}

impl Gateway {
    /// One that has just entered Redis and serves nobody.
    pub fn new(clients: usize) -> Self {
        Self { live: true, incarnation: 1, ..Self::stopped(0, clients) }
    }

    fn stopped(incarnation: u8, clients: usize) -> Self {
        Self {
            up: true,
            incarnation,
            before: None,
            live: false,
            connected: true,
            announced_as: 0,
            held: [false; 2],
            interest: Vec::new(),
            doubt: false,
            inbox: Vec::new(),
            conversation: None,
            lives: 0,
            user: None,
            sessions: vec![None; clients],
        }
    }

    pub fn disconnected(&mut self) {
        self.connected = !self.live;
    }

    /// It can use Redis.
    pub fn is_connected(&self) -> bool {
        self.live && self.connected
    }

    pub fn may_change_interest(&self) -> bool {
        self.is_connected() && self.announced_as == self.incarnation && !self.interest.is_empty()
    }

    pub fn may_release(&self) -> bool {
        self.conversation.as_ref().is_some_and(Conversation::is_idle)
    }

    pub fn release(&mut self) {
        self.conversation = None;
        self.interest.push(Interest::Release { topic: CONVERSATION as u8 });
    }

    /// A subscription wants the conversation.
    fn attach(&mut self, client: u8, attach: Attach, setup: &Setup) {
        if self.conversation.is_none() {
            self.lives += 1;
            self.interest.push(Interest::Announce { topic: CONVERSATION as u8, life: self.lives });
        }
        let lives = self.lives;
        let conversation = self.conversation.get_or_insert_with(|| Conversation::new(lives, setup.clients.len()));
        conversation.attach(client, attach, setup.has(SeededBug::ReadBeforeRegister));
    }

    /// Announced to this incarnation as what it is; for the model's first state.
    pub fn holds(&mut self, topic: usize) {
        self.held[topic] = true;
        self.announced_as = self.incarnation;
    }

    fn compare(&mut self, doubt: bool) {
        if let Some(conversation) = self.conversation.as_mut().filter(|conversation| conversation.announced) {
            let then = conversation.position;
            conversation.heads.push(HeadRead { then, doubt, head: None });
        }
        if let Some(user) = self.user.as_mut().filter(|user| user.announced) {
            user.heard(0);
        }
    }

    /// The connection of a client is gone.
    pub fn detach(&mut self, client: u8) {
        if let Some(conversation) = &mut self.conversation {
            conversation.detach(client);
        }
        if let Some(session) = self.sessions.get_mut(usize::from(client)) {
            *session = None;
        }
        if self.sessions.iter().all(Option::is_none) {
            self.user = None;
        }
    }
}

impl State {
    fn incarnation(&self, gateway: u8) -> Incarnation {
        Incarnation { gateway, no: self.gateways[usize::from(gateway)].incarnation }
    }

    /// The lease is not renewed, the stream is not there, or a connection broke.
    pub fn may_doubt(&self, gateway: u8) -> bool {
        let (at, incarnation) = (&self.gateways[usize::from(gateway)], self.incarnation(gateway));
        let lost = !self.redis.leases.contains(&incarnation) || !self.redis.streams.contains_key(&incarnation);
        at.live && (!at.connected || lost)
    }

    pub fn give_up_incarnation(&mut self, gateway: u8) {
        let at = &mut self.gateways[usize::from(gateway)];
        at.live = false;
        at.before = Some(at.incarnation);
    }

    pub fn take_incarnation(&mut self, gateway: u8) {
        let at = &mut self.gateways[usize::from(gateway)];
        at.incarnation += 1;
        (at.live, at.connected) = (true, true);
        let before = at.before.map(|no| Incarnation { gateway, no });
        self.redis.enter(self.incarnation(gateway), before);
    }

    pub fn may_announce_held(&self, gateway: u8) -> bool {
        let at = &self.gateways[usize::from(gateway)];
        at.is_connected() && at.announced_as != at.incarnation
    }

    /// Everything to the new incarnation; then the hub is told to compare.
    pub fn announce_held(&mut self, gateway: u8, setup: &Setup) {
        let incarnation = self.incarnation(gateway);
        let at = &mut self.gateways[usize::from(gateway)];
        for (interest, held) in self.redis.interest.iter_mut().zip(at.held) {
            if held {
                interest.insert(incarnation);
            }
        }
        let first = at.announced_as == 0;
        at.announced_as = incarnation.no;
        at.doubt = !first && !setup.has(SeededBug::HeadsNotCompared);
    }

    /// The next change of interest, and its answer.
    pub fn change_interest(&mut self, gateway: u8, setup: &Setup) {
        let incarnation = self.incarnation(gateway);
        let to_successor = setup.has(SeededBug::AnswerToSuccessor);
        let at = &mut self.gateways[usize::from(gateway)];
        match at.interest.remove(0) {
            Interest::Announce { topic, life } => {
                self.redis.interest[usize::from(topic)].insert(incarnation);
                at.held[usize::from(topic)] = true;
                if usize::from(topic) == CONVERSATION
                    && let Some(conversation) =
                        at.conversation.as_mut().filter(|asked| asked.life == life || to_successor)
                {
                    conversation.announced();
                }
                if usize::from(topic) == USER
                    && let Some(user) = &mut at.user
                {
                    user.announced();
                }
            }
            Interest::Release { topic } => {
                self.redis.interest[usize::from(topic)].remove(&incarnation);
                at.held[usize::from(topic)] = false;
            }
        }
    }

    pub fn compare_all(&mut self, gateway: u8) {
        let at = &mut self.gateways[usize::from(gateway)];
        at.doubt = false;
        at.compare(true);
    }

    /// A periodic round that would find something. Those that find nothing change nothing, and are left out.
    pub fn may_compare_round(&self, gateway: u8) -> bool {
        let (at, incarnation) = (&self.gateways[usize::from(gateway)], self.incarnation(gateway));
        if !at.is_connected() || at.announced_as != at.incarnation {
            return false;
        }
        let unknown = |topic: usize| at.held[topic] && !self.redis.interest[topic].contains(&incarnation);
        let behind = at.conversation.as_ref().is_some_and(|conversation| {
            let comparing = conversation.heads.iter().any(|read| !read.doubt);
            conversation.announced && !comparing && conversation.position.is_some_and(|at| at < self.database.head())
        });
        let stale = at.user.as_ref().is_some_and(|user| user.announced && !user.is_reading() && self.is_stale(user));
        unknown(CONVERSATION) || unknown(USER) || behind || stale
    }

    /// The user's state is another one by now.
    fn is_stale(&self, user: &User) -> bool {
        let of_user = user.of;
        user.last.as_ref().is_some_and(|last| {
            (last.user_seq, last.membership)
                != (self.database.user_seqs[usize::from(of_user)], self.database.membership(of_user))
        })
    }

    pub fn compare_round(&mut self, gateway: u8) {
        let incarnation = self.incarnation(gateway);
        let at = &mut self.gateways[usize::from(gateway)];
        for (interest, held) in self.redis.interest.iter_mut().zip(at.held) {
            if held {
                interest.insert(incarnation);
            }
        }
        at.compare(false);
    }

    pub fn may_read_stream(&self, gateway: u8) -> bool {
        let stream = self.redis.streams.get(&self.incarnation(gateway));
        self.gateways[usize::from(gateway)].is_connected() && stream.is_some_and(|stream| !stream.is_empty())
    }

    /// All that waits; with `inbox` it then waits for the shard.
    pub fn read_stream(&mut self, gateway: u8, setup: &Setup) {
        let incarnation = self.incarnation(gateway);
        let Some(stream) = self.redis.streams.get_mut(&incarnation) else { return };
        if setup.inbox {
            let entries = std::mem::take(stream);
            self.gateways[usize::from(gateway)].inbox.extend(entries);
        } else {
            let entry = stream.remove(0);
            self.arrived(gateway, entry, setup);
        }
    }

    pub fn arrive(&mut self, gateway: u8, setup: &Setup) {
        let entry = self.gateways[usize::from(gateway)].inbox.remove(0);
        self.arrived(gateway, entry, setup);
    }

    fn arrived(&mut self, gateway: u8, entry: Entry, setup: &Setup) {
        if usize::from(entry.topic) == USER {
            if let Some(user) = &mut self.gateways[usize::from(gateway)].user {
                user.heard(entry.number);
            }
            return;
        }
        self.with_conversation(gateway, setup, |conversation, context| conversation.arrived(entry.number, context));
    }

    pub fn may_read_access(&self, gateway: u8, client: u8, setup: &Setup) -> bool {
        let conversation = self.gateways[usize::from(gateway)].conversation.as_ref();
        conversation.is_some_and(|conversation| conversation.is_asked(client)) && self.may_read_row(setup)
    }

    /// A locking read waits for whoever holds the row.
    pub fn may_read_row(&self, setup: &Setup) -> bool {
        self.database.is_unlocked() || setup.has(SeededBug::PlainRead)
    }

    /// Core reads head and membership together.
    pub fn read_access(&mut self, gateway: u8, client: u8, setup: &Setup) {
        let head = self.database.head();
        let visible = self.database.visible(setup.kind, client);
        let member = self.database.membership(client).is_some();
        if let Some(conversation) = &mut self.gateways[usize::from(gateway)].conversation {
            conversation.access_was_read(client, conversation::Access { head, visible, member });
        }
    }

    pub fn read_head(&mut self, gateway: u8, index: usize) {
        let head = self.database.head();
        if let Some(conversation) = &mut self.gateways[usize::from(gateway)].conversation {
            conversation.heads[index].head = Some(head);
        }
    }

    /// Core reads the head under the lock, then the rows up to it.
    pub fn read_log(&mut self, gateway: u8, index: usize) {
        let (head, logged) = (self.database.head(), self.database.logged);
        if let Some(conversation) = &mut self.gateways[usize::from(gateway)].conversation {
            conversation.logs[index].page = Some(conversation::Page { head, logged });
        }
    }

    /// Lets the conversation act, then gives what it says to sessions and clients.
    pub fn with_conversation(
        &mut self,
        gateway: u8,
        setup: &Setup,
        act: impl FnOnce(&mut Conversation, &mut conversation::Context<'_>),
    ) {
        let Some(conversation) = &mut self.gateways[usize::from(gateway)].conversation else { return };
        let mut context = conversation::Context { database: &self.database, setup, said: Vec::new() };
        act(conversation, &mut context);
        let said = context.said;
        for said in said {
            self.say(gateway, said, setup);
        }
    }

    fn say(&mut self, gateway: u8, said: Said, setup: &Setup) {
        let (client, plan) = match said {
            Said::Frame(client, frame) => return self.write_frame(client, frame, setup),
            Said::Attached(client) => (client, self.session(gateway, client, Session::attached)),
            Said::Ended(client, at_seq) => (client, self.session(gateway, client, |session| session.ended(at_seq))),
            Said::Refused(client) => (client, None),
        };
        match said {
            Said::Ended(..) | Said::Refused(_)
                if setup.clients[usize::from(client)].destination == Destination::Topic =>
            {
                self.clients[usize::from(client)].over = true;
            }
            _ => {}
        }
        if let Some(attach) = plan {
            self.gateways[usize::from(gateway)].attach(client, attach, setup);
        }
    }

    fn session(&mut self, gateway: u8, client: u8, act: impl FnOnce(&mut Session) -> Option<Attach>) -> Option<Attach> {
        self.gateways[usize::from(gateway)].sessions[usize::from(client)].as_mut().and_then(act)
    }

    /// A SUBSCRIBE.
    pub fn attach(&mut self, gateway: u8, client: u8, attach: Attach, setup: &Setup) {
        self.gateways[usize::from(gateway)].attach(client, attach, setup);
    }

    /// A SUBSCRIBE to all conversations of the user.
    pub fn watch_user(&mut self, gateway: u8, client: u8, session: Session) {
        let at = &mut self.gateways[usize::from(gateway)];
        let known = session.known();
        at.sessions[usize::from(client)] = Some(session);
        match &mut at.user {
            Some(user) => user.watch(known),
            None => {
                at.user = Some(User::new(client, known));
                at.interest.push(Interest::Announce { topic: USER as u8, life: 0 });
            }
        }
    }

    /// The lock of the user's row is held by who changes a membership of the user.
    pub fn may_read_user(&self, user: u8) -> bool {
        !self.database.transaction.as_ref().is_some_and(|transaction| transaction.changes_user(user))
    }

    /// The first statement of a user's state: `user_seq`, under a lock of its own.
    pub fn read_user_seq(&mut self, gateway: u8) {
        if let Some(user) = &mut self.gateways[usize::from(gateway)].user {
            user.user_seq_was_read(self.database.user_seqs[usize::from(user.of)]);
        }
    }

    /// The second: the memberships, with those that have come and gone since what the session knows. The state goes to
    /// it.
    pub fn read_memberships(&mut self, gateway: u8, setup: &Setup) {
        let at = &mut self.gateways[usize::from(gateway)];
        let Some(user) = &mut at.user else { return };
        let client = user.of;
        let known = user.told_up_to.filter(|_| !setup.has(SeededBug::EndedNotTold));
        let ended = known.map_or(Vec::new(), |known| self.database.ended_since(client, known));
        let Some(state) = user.memberships_were_read(self.database.membership(client), ended) else { return };
        let session = at.sessions[usize::from(client)].as_mut();
        if let Some(attach) = session.and_then(|session| session.state_changed(state, setup)) {
            at.attach(client, attach, setup);
        }
    }

    /// Killed: what is in Redis stays until its lease has run out.
    pub fn crash_gateway(&mut self, gateway: u8) {
        let at = &mut self.gateways[usize::from(gateway)];
        *at = Gateway { up: false, ..Gateway::stopped(at.incarnation, at.sessions.len()) };
        for client in 0..self.clients.len() as u8 {
            if self.clients[usize::from(client)].at == Some(gateway) {
                self.disconnected(client);
            }
        }
    }

    pub fn start_gateway(&mut self, gateway: u8) {
        self.gateways[usize::from(gateway)].up = true;
    }
}
