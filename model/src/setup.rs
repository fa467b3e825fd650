//! How large a system is, what may go wrong in it, and which seeded bug it has.

use crate::database::Kind;

/// A guard of the real code that is taken out, to see that the checker misses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeededBug {
    /// The worker stores a Kafka offset before the entries are in Redis.
    OffsetBeforeXadd,
    /// A gateway delivers an event that is not above the position.
    DuplicateCheckOff,
    /// A gateway delivers an event that is not the next one.
    GapCheckOff,
    /// A new incarnation announces its interest, but does not compare heads.
    HeadsNotCompared,
    /// The locking read of an attaching subscription begins before its interest is announced.
    ReadBeforeRegister,
    /// Attaching and comparing read the conversation's row without a lock.
    PlainRead,
    /// XADD without NOMKSTREAM.
    XaddMakesStreams,
    /// The outbox row is inserted in a transaction behind the message row's.
    OutboxRowOnItsOwn,
    /// Each try of a SEND has a `client_message_id` of its own.
    FreshMessageId,
    /// A join takes no `user_seq` and writes no event of the user.
    JoinWithoutUserSeq,
    /// What a conversation asked for is answered to its successor, if it was released meanwhile.
    AnswerToSuccessor,
    /// A state of the user does not name the memberships that have come and gone.
    EndedNotTold,
    /// A state of the user that is older than the end of a subscription's conversation attaches it again.
    EndedAttachedAgain,
}

/// How often each thing may go wrong. Everything else happens, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    pub core_crash: u8,
    pub stream_break: u8,
    pub lock_timeout: u8,
    pub mysql_crash: u8,
    pub connector_restart: u8,
    /// Of a worker: killed, or paused until it has lost its partition.
    pub worker: u8,
    pub dead_letter: u8,
    /// Of Redis: emptied, restarted with a loss, a connection lost, a lease run out.
    pub redis: u8,
    pub gateway_crash: u8,
    pub connection_drop: u8,
    /// Not a fault but a choice: a client unsubscribes, and subscribes again.
    pub unsubscribe: u8,
}

/// What a client subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// `/topic/conversations/{id}`.
    Topic,
    /// `/user/queue/events`.
    UserQueue,
}

/// A client; each is of a user of its own.
#[derive(Clone, Copy, Debug)]
pub struct ClientSetup {
    pub destination: Destination,
    /// A member from the conversation's first seq on.
    pub member: bool,
    /// Attached already when the model begins.
    pub attached: bool,
}

impl ClientSetup {
    pub const TOPIC: Self = Self { destination: Destination::Topic, member: true, attached: false };
    pub const ATTACHED: Self = Self { attached: true, ..Self::TOPIC };
    /// Follows all of its conversations, and is in none.
    pub const NEWCOMER: Self = Self { destination: Destination::UserQueue, member: false, attached: true };
}

/// A change of memberships that somebody asks for by REST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Join { user: u8 },
    Leave { user: u8 },
}

#[derive(Clone, Debug)]
pub struct Setup {
    pub name: &'static str,
    pub kind: Kind,
    pub cores: u8,
    pub gateways: u8,
    pub clients: Vec<ClientSetup>,
    /// Messages that the sender sends, in their order.
    pub messages: u8,
    /// The client by whose connection they are sent; else by one that never breaks.
    pub sender: Option<u8>,
    /// Changes of memberships, in their order.
    pub changes: Vec<Change>,
    /// Messages of one transaction, and records of one batch of a worker.
    pub batch: u8,
    /// False: nothing behind the binlog.
    pub pipeline: bool,
    /// False: all messages are in the writer's queue from the start, and answers are heard at once. Nobody behind the
    /// binlog can tell the difference.
    pub lanes: bool,
    /// Entries may wait between Redis and the shard of the conversation.
    pub inbox: bool,
    /// Frames may wait between the gateway and the client, and are lost with the connection.
    pub sockets: bool,
    /// Events that a conversation keeps for those who come back.
    pub ring: u8,
    /// The periodic comparison of heads runs.
    pub periodic: bool,
    /// Interest in a conversation that nobody follows is released.
    pub releases: bool,
    /// A gateway that crashed is started again.
    pub restarts: bool,
    pub faults: Faults,
    pub bug: Option<SeededBug>,
}

impl Setup {
    /// The smallest system: one core, one gateway, one attached client, two messages, no faults.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Channel,
            cores: 1,
            gateways: 1,
            clients: vec![ClientSetup::ATTACHED],
            messages: 2,
            sender: None,
            changes: Vec::new(),
            batch: 1,
            pipeline: true,
            lanes: false,
            inbox: false,
            sockets: false,
            ring: 8,
            periodic: false,
            releases: false,
            restarts: false,
            faults: Faults::default(),
            bug: None,
        }
    }

    /// The same system with a bug.
    pub fn with(mut self, bug: SeededBug) -> Self {
        self.bug = Some(bug);
        self
    }

    pub fn has(&self, bug: SeededBug) -> bool {
        self.bug == Some(bug)
    }
}
