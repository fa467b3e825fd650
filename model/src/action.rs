//! The steps of the system. Each is one that nobody else can look into; `docs/model.md` says which function each
//! stands for, and a test holds that table against this list.

use crate::{
    redis::{Incarnation, Loss},
    setup::Setup,
    state::State,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    // The sender, its gateway's lane, and core.
    Send,
    RetryLane,
    WriteBatch { core: u8 },
    ChangeMembership,
    FlushBinlog,
    ShowCommit,
    InsertOutboxRows { core: u8 },
    HearAnswer { core: u8 },
    CrashCore { core: u8 },
    BreakStream { core: u8 },
    TimeOutOnLock { core: u8 },
    CrashMysql,
    // Capture.
    CaptureRecord,
    RestartConnector { stored: u8 },
    // The worker.
    TakeBatch { topic: u8 },
    ReadInterest { topic: u8 },
    AppendEntry { topic: u8 },
    AppendLate { topic: u8 },
    EndLate { topic: u8 },
    BuryRecord { topic: u8 },
    CrashWorker { topic: u8, stored: u8 },
    MovePartition { topic: u8, stored: u8 },
    // Redis.
    ExpireLease { incarnation: Incarnation },
    SweepGateway { incarnation: Incarnation },
    FlushRedis,
    RestartRedis { loss: Loss },
    DisconnectRedis { gateway: u8 },
    LoseLease { gateway: u8 },
    // The gateway.
    DoubtIncarnation { gateway: u8 },
    TakeIncarnation { gateway: u8 },
    AnnounceHeld { gateway: u8 },
    ChangeInterest { gateway: u8 },
    CompareAll { gateway: u8 },
    CompareRound { gateway: u8 },
    ReadStream { gateway: u8 },
    TakeArrival { gateway: u8 },
    ReadAccess { gateway: u8, client: u8 },
    AttachSubscription { gateway: u8, client: u8 },
    ReadHead { gateway: u8, index: u8 },
    CompareHead { gateway: u8, index: u8 },
    ReadLog { gateway: u8, index: u8 },
    DeliverLog { gateway: u8, index: u8 },
    ReadUserSeq { gateway: u8 },
    ReadMemberships { gateway: u8 },
    ReleaseInterest { gateway: u8 },
    CrashGateway { gateway: u8 },
    StartGateway { gateway: u8 },
    // Clients.
    Connect { client: u8, gateway: u8 },
    Subscribe { client: u8 },
    ReceiveFrame { client: u8 },
    Unsubscribe { client: u8 },
    DropConnection { client: u8 },
}

impl Action {
    /// Faults and choices may stay out for ever. Everything else happens at some time.
    pub fn must_happen(&self) -> bool {
        !matches!(
            self,
            Action::CrashCore { .. }
                | Action::BreakStream { .. }
                | Action::TimeOutOnLock { .. }
                | Action::CrashMysql
                | Action::RestartConnector { .. }
                | Action::BuryRecord { .. }
                | Action::CrashWorker { .. }
                | Action::MovePartition { .. }
                | Action::FlushRedis
                | Action::RestartRedis { .. }
                | Action::DisconnectRedis { .. }
                | Action::LoseLease { .. }
                | Action::CrashGateway { .. }
                | Action::Unsubscribe { .. }
                | Action::DropConnection { .. }
        )
    }

    /// Every step that the system can take now.
    pub fn enabled(state: &State, setup: &Setup, actions: &mut Vec<Action>) {
        of_sends(state, setup, actions);
        if setup.pipeline {
            of_capture(state, actions);
            for topic in 0..2 {
                of_worker(state, topic, setup, actions);
            }
            of_redis(state, actions);
            for gateway in 0..setup.gateways {
                of_gateway(state, gateway, setup, actions);
            }
            for client in 0..state.clients.len() as u8 {
                of_client(state, client, actions);
            }
        }
    }

    /// The state after this step.
    pub fn apply(&self, state: &mut State, setup: &Setup) {
        match *self {
            Action::Send => {
                let item = state.lane.push();
                state.submit(state.lane.core, item.as_slice());
            }
            Action::RetryLane => {
                let items = state.lane.retry(setup);
                state.submit(state.lane.core, &items);
            }
            Action::WriteBatch { core } => state.write(core, setup),
            Action::ChangeMembership => state.change_membership(setup.changes[usize::from(state.changes_made)]),
            Action::FlushBinlog => {
                state.database.flush(setup);
                state.capture_at_once(setup);
            }
            Action::ShowCommit => state.show(setup),
            Action::InsertOutboxRows { core } => {
                state.insert_outbox_rows(core);
                state.capture_at_once(setup);
            }
            Action::HearAnswer { core } => state.hear(core, setup),
            Action::CrashCore { core } => {
                state.faults.core_crash -= 1;
                state.crash_core(core, setup);
            }
            Action::BreakStream { core } => {
                state.faults.stream_break -= 1;
                state.break_stream(core, setup);
            }
            Action::TimeOutOnLock { core } => {
                state.faults.lock_timeout -= 1;
                state.time_out(core, setup);
            }
            Action::CrashMysql => {
                state.faults.mysql_crash -= 1;
                state.crash_mysql(setup);
            }
            Action::CaptureRecord => state.capture(),
            Action::RestartConnector { stored } => {
                state.faults.connector_restart -= 1;
                state.restart_connector(stored);
            }
            Action::TakeBatch { topic } => state.take_batch(usize::from(topic), setup),
            Action::ReadInterest { topic } => state.read_interest(usize::from(topic)),
            Action::AppendEntry { topic } => state.append(usize::from(topic), false, setup),
            Action::AppendLate { topic } => state.append(usize::from(topic), true, setup),
            Action::EndLate { topic } => state.executors[usize::from(topic)].late = None,
            Action::BuryRecord { topic } => {
                state.faults.dead_letter -= 1;
                state.executors[usize::from(topic)].bury();
            }
            Action::CrashWorker { topic, stored } => {
                state.faults.worker -= 1;
                state.executors[usize::from(topic)].crash(stored);
            }
            Action::MovePartition { topic, stored } => {
                state.faults.worker -= 1;
                state.executors[usize::from(topic)].moved(stored);
            }
            Action::ExpireLease { incarnation } => drop(state.redis.leases.remove(&incarnation)),
            Action::SweepGateway { incarnation } => state.redis.sweep(incarnation),
            Action::FlushRedis => {
                state.faults.redis -= 1;
                state.flush_redis();
            }
            Action::RestartRedis { loss } => {
                state.faults.redis -= 1;
                state.restart_redis(loss);
            }
            Action::DisconnectRedis { gateway } => {
                state.faults.redis -= 1;
                state.gateways[usize::from(gateway)].disconnected();
            }
            Action::LoseLease { gateway } => {
                state.faults.redis -= 1;
                let no = state.gateways[usize::from(gateway)].incarnation;
                state.redis.leases.remove(&Incarnation { gateway, no });
            }
            Action::DoubtIncarnation { gateway } => state.give_up_incarnation(gateway),
            Action::TakeIncarnation { gateway } => state.take_incarnation(gateway),
            Action::AnnounceHeld { gateway } => state.announce_held(gateway, setup),
            Action::ChangeInterest { gateway } => state.change_interest(gateway, setup),
            Action::CompareAll { gateway } => state.compare_all(gateway),
            Action::CompareRound { gateway } => state.compare_round(gateway),
            Action::ReadStream { gateway } => state.read_stream(gateway, setup),
            Action::TakeArrival { gateway } => state.arrive(gateway, setup),
            Action::ReadAccess { gateway, client } => state.read_access(gateway, client, setup),
            Action::AttachSubscription { gateway, client } => {
                state.with_conversation(gateway, setup, |conversation, context| conversation.attached(client, context));
            }
            Action::ReadHead { gateway, index } => state.read_head(gateway, usize::from(index)),
            Action::CompareHead { gateway, index } => {
                state.with_conversation(gateway, setup, |conversation, context| {
                    conversation.head_was_read(usize::from(index), context);
                })
            }
            Action::ReadLog { gateway, index } => state.read_log(gateway, usize::from(index)),
            Action::DeliverLog { gateway, index } => {
                state.with_conversation(gateway, setup, |conversation, context| {
                    conversation.log_was_read(usize::from(index), context);
                })
            }
            Action::ReadUserSeq { gateway } => state.read_user_seq(gateway),
            Action::ReadMemberships { gateway } => state.read_memberships(gateway, setup),
            Action::ReleaseInterest { gateway } => state.gateways[usize::from(gateway)].release(),
            Action::CrashGateway { gateway } => {
                state.faults.gateway_crash -= 1;
                let sends = setup.sender.is_some_and(|client| state.clients[usize::from(client)].at == Some(gateway));
                state.crash_gateway(gateway);
                if sends {
                    state.lose_sender(setup);
                }
            }
            Action::StartGateway { gateway } => state.start_gateway(gateway),
            Action::Connect { client, gateway } => state.clients[usize::from(client)].at = Some(gateway),
            Action::Subscribe { client } => state.subscribe(client, setup),
            Action::ReceiveFrame { client } => state.receive(client, setup),
            Action::Unsubscribe { client } => {
                state.faults.unsubscribe -= 1;
                state.unsubscribe(client);
            }
            Action::DropConnection { client } => {
                state.faults.connection_drop -= 1;
                state.disconnected(client);
                if setup.sender == Some(client) {
                    state.lose_sender(setup);
                }
            }
        }
    }
}

fn add(actions: &mut Vec<Action>, enabled: bool, action: Action) {
    if enabled {
        actions.push(action);
    }
}

fn of_sends(state: &State, setup: &Setup, actions: &mut Vec<Action>) {
    let (faults, database) = (&state.faults, &state.database);
    let connected = setup.sender.is_none_or(|client| state.clients[usize::from(client)].at.is_some());
    add(actions, state.lane.sent < setup.messages && connected, Action::Send);
    add(actions, state.lane.flow == crate::lane::Flow::BackingOff, Action::RetryLane);
    let changes = usize::from(state.changes_made) < setup.changes.len();
    add(actions, changes && database.is_unlocked(), Action::ChangeMembership);
    if let Some(transaction) = &database.transaction {
        match transaction.phase {
            crate::database::Phase::Locked => actions.push(Action::FlushBinlog),
            crate::database::Phase::InBinlog => actions.push(Action::ShowCommit),
        }
        add(actions, faults.mysql_crash > 0, Action::CrashMysql);
    }
    for core in 0..setup.cores {
        let at = &state.cores[usize::from(core)];
        add(actions, state.may_write(core), Action::WriteBatch { core });
        add(actions, at.unlogged != 0, Action::InsertOutboxRows { core });
        add(actions, at.unlogged == 0 && !at.answers.is_empty(), Action::HearAnswer { core });
        let owner = crate::database::Owner::Writer(core);
        let at_work = *at != crate::core::Core::default()
            || database.transaction.as_ref().is_some_and(|transaction| transaction.owner == owner);
        add(actions, at_work && faults.core_crash > 0, Action::CrashCore { core });
        let in_flight = state.lane.core == core && state.lane.items.iter().any(|item| item.in_flight);
        add(actions, in_flight && faults.stream_break > 0, Action::BreakStream { core });
        add(actions, faults.lock_timeout > 0 && state.may_time_out(core), Action::TimeOutOnLock { core });
    }
}

fn of_capture(state: &State, actions: &mut Vec<Action>) {
    add(actions, state.may_capture(), Action::CaptureRecord);
    if state.faults.connector_restart > 0 {
        let stored = state.kafka.saved..state.kafka.captured;
        actions.extend(stored.map(|stored| Action::RestartConnector { stored }));
    }
}

fn of_worker(state: &State, topic: u8, setup: &Setup, actions: &mut Vec<Action>) {
    let executor = &state.executors[usize::from(topic)];
    let faults = &state.faults;
    add(actions, state.may_take(usize::from(topic)), Action::TakeBatch { topic });
    add(actions, executor.reads_interest(), Action::ReadInterest { topic });
    add(actions, executor.appends(), Action::AppendEntry { topic });
    add(actions, executor.appends_late(), Action::AppendLate { topic });
    add(actions, executor.late.is_some(), Action::EndLate { topic });
    add(actions, faults.dead_letter > 0 && executor.reads_interest(), Action::BuryRecord { topic });
    if faults.worker > 0 {
        let stored = executor.stored..=executor.watermark(setup);
        // With nothing in memory and everything stored a crash changes nothing.
        let crashes = stored.clone().filter(|stored| *stored < executor.next || executor.batch.is_some());
        actions.extend(crashes.map(|stored| Action::CrashWorker { topic, stored }));
        if executor.appends() && executor.late.is_none() {
            actions.extend(stored.map(|stored| Action::MovePartition { topic, stored }));
        }
    }
}

fn of_redis(state: &State, actions: &mut Vec<Action>) {
    actions.extend(state.abandoned_leases().map(|incarnation| Action::ExpireLease { incarnation }));
    let dead = state.redis.gateways.difference(&state.redis.leases);
    actions.extend(dead.map(|incarnation| Action::SweepGateway { incarnation: *incarnation }));
    add(actions, state.faults.redis > 0, Action::FlushRedis);
    if state.faults.redis > 0 {
        actions.extend([Loss::Entries, Loss::Interest].map(|loss| Action::RestartRedis { loss }));
    }
}

fn of_gateway(state: &State, gateway: u8, setup: &Setup, actions: &mut Vec<Action>) {
    let at = &state.gateways[usize::from(gateway)];
    let faults = &state.faults;
    if !at.up {
        add(actions, setup.restarts, Action::StartGateway { gateway });
        return;
    }
    add(actions, state.may_doubt(gateway), Action::DoubtIncarnation { gateway });
    add(actions, !at.live, Action::TakeIncarnation { gateway });
    add(actions, state.may_announce_held(gateway), Action::AnnounceHeld { gateway });
    add(actions, at.may_change_interest(), Action::ChangeInterest { gateway });
    add(actions, at.doubt, Action::CompareAll { gateway });
    add(actions, setup.periodic && state.may_compare_round(gateway), Action::CompareRound { gateway });
    add(actions, state.may_read_stream(gateway), Action::ReadStream { gateway });
    add(actions, !at.inbox.is_empty(), Action::TakeArrival { gateway });
    add(actions, setup.releases && at.may_release(), Action::ReleaseInterest { gateway });
    let held = |leased: &Incarnation| leased.gateway == gateway && leased.no == at.incarnation;
    add(actions, faults.redis > 0 && at.is_connected(), Action::DisconnectRedis { gateway });
    let leased = state.redis.leases.iter().any(held);
    add(actions, faults.redis > 0 && at.live && leased, Action::LoseLease { gateway });
    add(actions, faults.gateway_crash > 0, Action::CrashGateway { gateway });
    if let Some(user) = &at.user {
        add(actions, user.is_asked() && state.may_read_user(user.of), Action::ReadUserSeq { gateway });
        add(actions, user.has_user_seq(), Action::ReadMemberships { gateway });
    }
    let Some(conversation) = &at.conversation else { return };
    for client in 0..state.clients.len() as u8 {
        add(actions, state.may_read_access(gateway, client, setup), Action::ReadAccess { gateway, client });
        add(actions, conversation.may_attach(client), Action::AttachSubscription { gateway, client });
    }
    let readable = state.may_read_row(setup);
    for (index, read) in (0..).zip(&conversation.heads) {
        match read.head {
            None => add(actions, readable, Action::ReadHead { gateway, index }),
            Some(_) => actions.push(Action::CompareHead { gateway, index }),
        }
    }
    for (index, read) in (0..).zip(&conversation.logs) {
        match read.page {
            None => add(actions, readable, Action::ReadLog { gateway, index }),
            Some(_) => actions.push(Action::DeliverLog { gateway, index }),
        }
    }
}

fn of_client(state: &State, client: u8, actions: &mut Vec<Action>) {
    let at = &state.clients[usize::from(client)];
    if at.at.is_none() {
        let up = (0..).zip(&state.gateways).filter(|(_, gateway)| gateway.up);
        actions.extend(up.map(|(gateway, _)| Action::Connect { client, gateway }));
        return;
    }
    add(actions, state.may_subscribe(client), Action::Subscribe { client });
    add(actions, !at.frames.is_empty(), Action::ReceiveFrame { client });
    add(actions, state.faults.unsubscribe > 0 && at.subscribed, Action::Unsubscribe { client });
    add(actions, state.faults.connection_drop > 0, Action::DropConnection { client });
}
