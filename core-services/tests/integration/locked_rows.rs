//! Rows that a transaction holds for long: they cost only those who ask for them.

use std::time::{Duration, Instant};

use proto::rpc::v1::{
    AttachSubscription, AttachSubscriptionsRequest, AttachedSubscription, Connection, LockedRows, ReadHeadsRequest,
    ReadHeadsResponse, ReadUserStatesRequest, ReadUserStatesResponse, RegisterConnectionRequest,
    connection_manager_client::ConnectionManagerClient, gateway_service_client::GatewayServiceClient,
};
use redis::AsyncCommands as _;
use sqlx::{Connection as _, MySqlConnection};
use tonic::{Code, Status};

use crate::harness::{Core, User, run_on};

/// Well below `core.request_timeout` of gateways (5 s), with 2 s of waiting at most: a call that waits has answered.
const BOUND: Duration = Duration::from_secs(3);
/// More rows than a call waits for at once.
const HELD: usize = 10;

/// A session that holds the row of a conversation or a user.
async fn hold(core: &Core, table: &str, id: i64) -> MySqlConnection {
    let mut holder = core.db.acquire().await.unwrap().detach();
    run_on(&mut holder, "START TRANSACTION").await;
    run_on(&mut holder, &format!("SELECT id FROM {table} WHERE id = {id} FOR UPDATE")).await;
    holder
}

/// What a call answered, which did not wait for longer than it may.
async fn in_time<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    let began = Instant::now();
    let answer = call.await;
    assert!(began.elapsed() < BOUND, "it took {:?}", began.elapsed());
    answer.map(tonic::Response::into_inner)
}

async fn attach(core: &Core, service: &User, asked: &[(i64, i64)], locked: LockedRows) -> Vec<AttachedSubscription> {
    let subscriptions = asked
        .iter()
        .map(|(user_id, conversation_id)| AttachSubscription { user_id: *user_id, conversation_id: *conversation_id });
    let asked = AttachSubscriptionsRequest { subscriptions: subscriptions.collect(), locked: locked.into() };
    let mut gateway = GatewayServiceClient::new(core.grpc.clone());
    let answer = in_time(gateway.attach_subscriptions(service.request(asked))).await;
    answer.expect("a held row fails its own item only").subscriptions
}

fn outcome(attached: &AttachedSubscription) -> (&str, i64) {
    (attached.failure.as_ref().map_or("", |failure| &failure.code), attached.head_seq)
}

async fn read_heads(core: &Core, service: &User, ids: &[i64], locked: LockedRows) -> Result<ReadHeadsResponse, Status> {
    let asked = ReadHeadsRequest { conversation_ids: ids.to_vec(), locked: locked.into() };
    let mut gateway = GatewayServiceClient::new(core.grpc.clone());
    in_time(gateway.read_heads(service.request(asked))).await
}

async fn read_states(
    core: &Core,
    service: &User,
    ids: &[i64],
    locked: LockedRows,
) -> Result<ReadUserStatesResponse, Status> {
    let asked = ReadUserStatesRequest { user_ids: ids.to_vec(), known: Vec::new(), locked: locked.into() };
    let mut gateway = GatewayServiceClient::new(core.grpc.clone());
    in_time(gateway.read_user_states(service.request(asked))).await
}

#[tokio::test]
async fn who_attaches_to_held_rows_does_not_keep_the_others_of_the_call_waiting() {
    let core = Core::start().await;
    let (alice, service) = (core.register("alice").await, core.service().await);
    let mut asked = Vec::new();
    for _ in 0..HELD + 1 {
        asked.push((alice.id, core.channel(&alice).await));
    }
    let mut holders = Vec::new();
    for (_, held) in &asked[1..] {
        holders.push(hold(&core, "conversations", *held).await);
    }
    asked.push((alice.id, 7));
    let outcomes = async |locked| {
        let attached = attach(&core, &service, &asked, locked).await;
        attached.iter().map(|one| (outcome(one).0.to_owned(), outcome(one).1)).collect::<Vec<_>>()
    };
    let expected = |held: (&str, i64), unknown: &str| {
        let held = (0..HELD).map(|_| (held.0.to_owned(), held.1));
        [("".to_owned(), 1)].into_iter().chain(held).chain([(unknown.to_owned(), 0)]).collect::<Vec<_>>()
    };
    let unavailable = ("unavailable", 0);
    // Who does not wait can't know what is not there.
    assert_eq!(outcomes(LockedRows::Skip).await, expected(unavailable, "unavailable"));
    // As asked by those who know of no locked rows, too.
    assert_eq!(outcomes(LockedRows::Unspecified).await, expected(unavailable, "not_found"));
    assert_eq!(outcomes(LockedRows::Wait).await, expected(unavailable, "not_found"));
    for holder in holders {
        holder.close().await.unwrap();
    }
    assert_eq!(outcomes(LockedRows::Wait).await, expected(("", 1), "not_found"));
    assert_eq!(outcomes(LockedRows::Skip).await, expected(("", 1), "unavailable"));
    core.finish().await;
}

#[tokio::test]
async fn a_row_that_is_only_busy_does_not_wait_behind_those_that_are_stuck() {
    let core = Core::start().await;
    let (alice, service) = (core.register("alice").await, core.service().await);
    let mut holders = Vec::new();
    for _ in 0..HELD {
        let stuck = core.channel(&alice).await;
        holders.push((stuck, hold(&core, "conversations", stuck).await));
    }
    let busy = core.channel(&alice).await;
    let mut ids: Vec<i64> = holders.iter().map(|(stuck, _)| *stuck).collect();
    // Ids are asked for in their order, so it is behind all the others.
    assert!(ids.iter().all(|stuck| *stuck < busy));
    ids.push(busy);
    let of_busy = hold(&core, "conversations", busy).await;
    let released = async {
        // Rows are waited for only when each was asked for without waiting, and found to be held.
        core.session_running("MAX_EXECUTION_TIME(").await;
        of_busy.close().await.unwrap();
    };
    let (answer, ()) = tokio::join!(read_heads(&core, &service, &ids, LockedRows::Wait), released);
    let answer = answer.unwrap();
    let read: Vec<i64> = answer.heads.iter().map(|head| head.conversation_id).collect();
    assert_eq!((read, answer.locked_conversation_ids.len()), (vec![busy], HELD));
    for (_, holder) in holders {
        holder.close().await.unwrap();
    }
    core.finish().await;
}

#[tokio::test]
async fn heads_that_are_held_are_named_and_the_others_are_read() {
    let core = Core::start().await;
    let (alice, service) = (core.register("alice").await, core.service().await);
    let (free, held) = (core.channel(&alice).await, core.channel(&alice).await);
    let holder = hold(&core, "conversations", held).await;
    let ids = [free, held, 7];
    let summary = async |locked| {
        let answer = read_heads(&core, &service, &ids, locked).await.unwrap();
        let mut named = answer.locked_conversation_ids;
        named.sort_unstable();
        let mut read: Vec<i64> = answer.heads.iter().map(|head| head.conversation_id).collect();
        read.sort_unstable();
        (read, named)
    };
    assert_eq!(summary(LockedRows::Skip).await, (vec![free], vec![7, held]));
    assert_eq!(summary(LockedRows::Wait).await, (vec![free], vec![held]));
    // Who knows of no locked rows would take what is left out for unknown.
    let refused = read_heads(&core, &service, &ids, LockedRows::Unspecified).await.unwrap_err();
    assert_eq!((refused.code(), crate::harness::code(&refused)), (Code::Unavailable, "unavailable"));
    assert_eq!(read_heads(&core, &service, &[free, 7], LockedRows::Unspecified).await.unwrap().heads.len(), 1);
    holder.close().await.unwrap();
    assert_eq!(summary(LockedRows::Wait).await, (vec![free, held], vec![]));
    core.finish().await;
}

#[tokio::test]
async fn users_that_are_held_are_named_and_heads_that_are_held_keep_no_state_back() {
    let core = Core::start().await;
    let (alice, bob, service) = (core.register("alice").await, core.register("bob").await, core.service().await);
    let (free, held) = (core.channel(&alice).await, core.channel(&alice).await);
    let of_user = hold(&core, "users", bob.id).await;
    let of_conversation = hold(&core, "conversations", held).await;
    let ids = [alice.id, bob.id, 7];
    for (locked, named) in [(LockedRows::Skip, vec![7, bob.id]), (LockedRows::Wait, vec![bob.id])] {
        let mut answer = read_states(&core, &service, &ids, locked).await.unwrap();
        answer.locked_user_ids.sort_unstable();
        assert_eq!(answer.locked_user_ids, named, "{locked:?}");
        let [of_alice] = &answer.users[..] else { panic!("{:?}", answer.users) };
        let mut heads: Vec<_> =
            of_alice.memberships.iter().map(|m| (m.conversation_id, m.head_seq, m.head_locked)).collect();
        heads.sort_unstable();
        assert_eq!(heads, [(free, 1, false), (held, 0, true)], "{locked:?}");
    }
    for user in [alice.id, bob.id] {
        let refused = read_states(&core, &service, &[user], LockedRows::Unspecified).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
    }
    of_user.close().await.unwrap();
    let states = read_states(&core, &service, &ids, LockedRows::Wait).await.unwrap();
    assert_eq!((states.users.len(), states.locked_user_ids.len()), (2, 0));

    // What a registered connection is told has no place for heads that are not known.
    let connection = Connection {
        connection_id: "c-1".to_owned(),
        user_id: alice.id,
        gateway_id: "g".to_owned(),
        incarnation: "i".to_owned(),
        ..Default::default()
    };
    let mut connections = ConnectionManagerClient::new(core.grpc.clone());
    let mut register = async || {
        let asked = RegisterConnectionRequest { connection: Some(connection.clone()) };
        in_time(connections.register_connection(service.request(asked))).await
    };
    let registered = async || -> usize { core.redis().await.hlen(core.keys.user_connections(alice.id)).await.unwrap() };
    assert_eq!(register().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(registered().await, 0, "who is refused is not connected");
    of_conversation.close().await.unwrap();
    let heads: Vec<i64> = register().await.unwrap().memberships.iter().map(|membership| membership.head_seq).collect();
    assert_eq!((heads, registered().await), (vec![1, 1], 1));
    core.finish().await;
}
