//! The systems that are checked. Each is small, and looks at one part closely.

use crate::{
    database::Kind,
    promise,
    setup::{Change, ClientSetup, Faults, SeededBug, Setup},
};

/// Two cores, two messages of one session in flight at once: retries, their order, and what is stored.
pub fn commit() -> Setup {
    let faults = Faults { core_crash: 2, stream_break: 1, lock_timeout: 1, mysql_crash: 1, ..Faults::default() };
    Setup {
        cores: 2,
        clients: Vec::new(),
        gateways: 0,
        pipeline: false,
        lanes: true,
        batch: 2,
        faults,
        ..Setup::new("commit")
    }
}

/// From the sender to an attached client, with a core that is killed.
pub fn whole() -> Setup {
    let faults = Faults { core_crash: 1, stream_break: 1, worker: 1, ..Faults::default() };
    Setup { lanes: true, faults, ..Setup::new("whole") }
}

/// From the binlog to an attached client: everything repeats, nothing is lost.
pub fn route() -> Setup {
    let faults = Faults { connector_restart: 1, worker: 2, ..Faults::default() };
    Setup { batch: 2, faults, ..Setup::new("route") }
}

/// Records that can't be decoded, and the periodic comparison, which finds the last of them.
pub fn poison() -> Setup {
    let faults = Faults { dead_letter: 2, worker: 1, ..Faults::default() };
    Setup { periodic: true, faults, ..Setup::new("poison") }
}

/// Two clients subscribe while messages are committed and routed.
pub fn attach() -> Setup {
    let faults = Faults { connector_restart: 1, worker: 1, ..Faults::default() };
    Setup { clients: vec![ClientSetup::TOPIC, ClientSetup::TOPIC], faults, ..Setup::new("attach") }
}

/// A client leaves and comes back: interest is released and announced again, in order.
pub fn interest() -> Setup {
    let faults = Faults { unsubscribe: 2, worker: 1, ..Faults::default() };
    Setup { releases: true, faults, ..Setup::new("interest") }
}

/// Redis is emptied, loses its tail, loses a connection or a lease.
pub fn redis() -> Setup {
    let faults = Faults { redis: 2, ..Faults::default() };
    Setup { inbox: true, faults, ..Setup::new("redis") }
}

/// A gateway dies; its client, which is the sender, goes on at the other one.
pub fn death() -> Setup {
    let faults = Faults { gateway_crash: 1, connection_drop: 1, ..Faults::default() };
    Setup { gateways: 2, sender: Some(0), lanes: true, sockets: true, ring: 1, faults, ..Setup::new("death") }
}

/// The same while clients subscribe.
pub fn redis_attach() -> Setup {
    let faults = Faults { redis: 2, ..Faults::default() };
    Setup { clients: vec![ClientSetup::TOPIC], messages: 1, faults, ..Setup::new("redis_attach") }
}

/// Redis and a worker at once.
pub fn redis_worker() -> Setup {
    let faults = Faults { redis: 1, worker: 1, ..Faults::default() };
    Setup { inbox: true, faults, ..Setup::new("redis_worker") }
}

/// A client leaves and comes back twice while Redis loses something.
pub fn redis_interest() -> Setup {
    let faults = Faults { redis: 1, unsubscribe: 2, ..Faults::default() };
    Setup { releases: true, messages: 1, faults, ..Setup::new("redis_interest") }
}

/// Two clients subscribe at two gateways, and one of these dies.
pub fn elsewhere() -> Setup {
    let faults = Faults { gateway_crash: 1, ..Faults::default() };
    let clients = vec![ClientSetup::TOPIC, ClientSetup::TOPIC];
    Setup { gateways: 2, clients, messages: 1, faults, ..Setup::new("elsewhere") }
}

/// Somebody who follows all of their conversations joins one.
pub fn join() -> Setup {
    let faults = Faults { connection_drop: 1, ..Faults::default() };
    let changes = vec![Change::Join { user: 0 }];
    Setup { kind: Kind::Group, clients: vec![ClientSetup::NEWCOMER], changes, faults, ..Setup::new("join") }
}

/// The same, and the gateway dies.
pub fn join_death() -> Setup {
    let faults = Faults { gateway_crash: 1, ..Faults::default() };
    let changes = vec![Change::Join { user: 0 }];
    let clients = vec![ClientSetup::NEWCOMER];
    let (kind, name) = (Kind::Group, "join_death");
    Setup { kind, gateways: 2, clients, changes, messages: 1, sockets: true, faults, ..Setup::new(name) }
}

/// Somebody joins a group and leaves it soon.
pub fn visit() -> Setup {
    let faults = Faults { connection_drop: 1, ..Faults::default() };
    let changes = vec![Change::Join { user: 0 }, Change::Leave { user: 0 }];
    let clients = vec![ClientSetup::NEWCOMER];
    Setup { kind: Kind::Group, clients, changes, messages: 0, faults, ..Setup::new("visit") }
}

/// The same, and the gateway dies.
pub fn visit_death() -> Setup {
    let faults = Faults { gateway_crash: 1, ..Faults::default() };
    Setup { name: "visit_death", gateways: 2, sockets: true, faults, ..visit() }
}

/// Somebody joins a group, leaves it, and joins again.
pub fn membership() -> Setup {
    let changes = vec![Change::Join { user: 0 }, Change::Leave { user: 0 }, Change::Join { user: 0 }];
    Setup { kind: Kind::Group, clients: vec![ClientSetup::NEWCOMER], changes, messages: 0, ..Setup::new("membership") }
}

/// The same in a channel, which shows members also what came between.
pub fn channel() -> Setup {
    Setup { name: "channel", kind: Kind::Channel, ..membership() }
}

/// Somebody joins a channel and leaves it soon, and loses the connection.
pub fn channel_visit() -> Setup {
    Setup { name: "channel_visit", kind: Kind::Channel, ..visit() }
}

/// A member who follows the group's topic is removed while messages come.
pub fn removal() -> Setup {
    let faults = Faults { connection_drop: 1, worker: 1, ..Faults::default() };
    let changes = vec![Change::Leave { user: 0 }];
    let clients = vec![ClientSetup::ATTACHED, ClientSetup::ATTACHED];
    Setup { kind: Kind::Group, clients, changes, messages: 1, faults, ..Setup::new("removal") }
}

/// All of them.
pub fn all() -> Vec<Setup> {
    vec![
        commit(),
        whole(),
        route(),
        poison(),
        attach(),
        interest(),
        redis(),
        redis_attach(),
        redis_worker(),
        redis_interest(),
        elsewhere(),
        death(),
        join(),
        join_death(),
        visit(),
        visit_death(),
        membership(),
        channel(),
        channel_visit(),
        removal(),
    ]
}

/// Each seeded bug, with a system that shows it and a promise that it breaks.
pub fn seeded() -> Vec<(SeededBug, Setup, &'static str)> {
    use SeededBug::*;
    vec![
        (OffsetBeforeXadd, route(), promise::ALL_DELIVERED),
        (DuplicateCheckOff, route(), promise::EXACTLY_ONCE_IN_ORDER),
        (GapCheckOff, poison(), promise::EXACTLY_ONCE_IN_ORDER),
        (HeadsNotCompared, redis(), promise::ALL_DELIVERED),
        (ReadBeforeRegister, attach(), promise::ALL_DELIVERED),
        (PlainRead, attach(), promise::ALL_DELIVERED),
        (XaddMakesStreams, redis(), promise::NOTHING_LEFT_BEHIND),
        (OutboxRowOnItsOwn, whole(), promise::ALL_DELIVERED),
        (FreshMessageId, whole(), promise::EXACTLY_ONCE_IN_ORDER),
        (JoinWithoutUserSeq, join(), promise::ALL_DELIVERED),
        (AnswerToSuccessor, interest(), promise::ALL_DELIVERED),
        (EndedAttachedAgain, visit(), promise::EXACTLY_ONCE_IN_ORDER),
        (EndedNotTold, visit(), promise::ALL_DELIVERED),
    ]
}
