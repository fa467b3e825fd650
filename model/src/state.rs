//! The whole system at one moment.

use crate::{
    capture::{CONVERSATION, Kafka, USER},
    client::Client,
    core::Core,
    database::Database,
    gateway::{
        Gateway,
        conversation::Conversation,
        follower::Sub,
        user::{Session, User, UserState},
    },
    lane::Lane,
    redis::{Incarnation, Redis},
    setup::{Destination, Faults, Setup},
    worker::Executor,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What may still go wrong.
    pub faults: Faults,
    pub lane: Lane,
    pub cores: Vec<Core>,
    pub database: Database,
    /// Changes of memberships that are committed.
    pub changes_made: u8,
    pub kafka: Kafka,
    /// Of the conversation's partition, and of the user's.
    pub executors: [Executor; 2],
    pub redis: Redis,
    pub gateways: Vec<Gateway>,
    pub clients: Vec<Client>,
}

impl State {
    /// Gateways are in Redis; who is attached, is at the first of them and has all up to seq 1.
    pub fn first(setup: &Setup) -> Self {
        let mut state = Self {
            faults: setup.faults,
            lane: Lane::new(),
            cores: vec![Core::default(); usize::from(setup.cores)],
            database: Database::new(setup),
            changes_made: 0,
            kafka: Kafka::default(),
            executors: Default::default(),
            redis: Redis::default(),
            gateways: vec![Gateway::new(setup.clients.len()); usize::from(setup.gateways)],
            clients: vec![Client::new(); setup.clients.len()],
        };
        for gateway in 0..setup.gateways {
            state.redis.enter(Incarnation { gateway, no: 1 }, None);
            // It has announced all of nothing: the next incarnation is not its first.
            state.gateways[usize::from(gateway)].announced_as = 1;
        }
        while !setup.lanes && state.lane.sent < setup.messages {
            let item = state.lane.push();
            state.submit(0, item.as_slice());
        }
        for client in 0..setup.clients.len() as u8 {
            if setup.clients[usize::from(client)].attached {
                state.attach_at_first(client, setup);
            }
        }
        state
    }

    fn attach_at_first(&mut self, client: u8, setup: &Setup) {
        let first = Incarnation { gateway: 0, no: 1 };
        let clients = setup.clients.len();
        let state = UserState { user_seq: 1, membership: self.database.membership(client), ended: Vec::new() };
        let gateway = &mut self.gateways[0];
        let of_client = &mut self.clients[usize::from(client)];
        (of_client.at, of_client.subscribed) = (Some(0), true);
        if setup.clients[usize::from(client)].destination == Destination::Topic {
            of_client.cursor = Some(1);
            let conversation = gateway.conversation.get_or_insert_with(|| Conversation::at(1, clients));
            conversation.subs[usize::from(client)] = Sub::Member;
            gateway.holds(CONVERSATION);
            self.redis.interest[CONVERSATION].insert(first);
        } else {
            of_client.user_seq = Some(0);
            gateway.user = Some(User::knowing(client, state.clone()));
            gateway.sessions[usize::from(client)] = Some(Session::told(state));
            gateway.holds(USER);
            self.redis.interest[USER].insert(first);
        }
    }

    /// The client's session is gone: what it had not heard of, it sends again by the next one.
    pub fn lose_sender(&mut self, setup: &Setup) {
        for core in 0..setup.cores {
            self.break_stream(core, setup);
        }
        self.lane.session_lost();
    }
}
