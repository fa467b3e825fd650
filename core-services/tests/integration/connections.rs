//! The registry of connections: there while the gateway's lease is.

use proto::{
    GatewayRef,
    rpc::v1::{
        Connection, GetConnectionsByUserRequest, GetOnlineUsersRequest, RegisterConnectionRequest,
        RegisterConnectionsRequest, UnregisterConnectionsRequest, UpdateLastPingRequest,
        connection_manager_client::ConnectionManagerClient, gateway_service_client::GatewayServiceClient,
    },
};
use redis::AsyncCommands as _;
use tonic::{Code, transport::Channel};

use crate::harness::{Core, User, code};

fn connection(id: &str, user: &User, gateway: &GatewayRef) -> Connection {
    Connection {
        connection_id: id.to_owned(),
        user_id: user.id,
        gateway_id: gateway.gateway.clone(),
        incarnation: gateway.incarnation.clone(),
        ..Connection::default()
    }
}

async fn ids_of(client: &mut ConnectionManagerClient<Channel>, service: &User, user: &User) -> Vec<String> {
    let asked = service.request(GetConnectionsByUserRequest { user_id: user.id });
    let found = client.get_connections_by_user(asked).await.unwrap().into_inner().connections;
    found.into_iter().map(|connection| connection.connection_id).collect()
}

/// A life of a gateway that has its lease.
async fn live(core: &Core, gateway: &str) -> GatewayRef {
    let gateway: GatewayRef = gateway.parse().unwrap();
    let _: () = core.redis().await.set(core.keys.lease(&gateway), "1").await.unwrap();
    gateway
}

#[tokio::test]
async fn connections_are_found_until_they_go_or_their_gateway_loses_its_lease() {
    let core = Core::start().await;
    let (alice, bob, service) = (core.register("alice").await, core.register("bob").await, core.service().await);
    let channel = core.channel(&alice).await;
    let mut manager = ConnectionManagerClient::new(core.grpc.clone());
    let mut gateways = GatewayServiceClient::new(core.grpc.clone());
    let (first, second) = (live(&core, "g:1").await, live(&core, "g:2").await);

    let asked = RegisterConnectionRequest { connection: Some(connection("a-1", &alice, &first)) };
    let answer = manager.register_connection(service.request(asked)).await.unwrap().into_inner();
    assert_eq!((answer.user_seq, answer.memberships[0].conversation_id), (1, channel));
    let nobody = RegisterConnectionRequest {
        connection: Some(connection("x-1", &User { id: 7, token: String::new() }, &first)),
    };
    let refused = manager.register_connection(service.request(nobody)).await.unwrap_err();
    assert_eq!((refused.code(), code(&refused)), (Code::NotFound, "not_found"));
    let connections = vec![connection("a-2", &alice, &first), connection("b-1", &bob, &first)];
    gateways.register_connections(service.request(RegisterConnectionsRequest { connections })).await.unwrap();
    assert_eq!(ids_of(&mut manager, &service, &alice).await, ["a-1", "a-2"]);
    let foreign = alice.request(GetConnectionsByUserRequest { user_id: bob.id });
    assert_eq!(manager.get_connections_by_user(foreign).await.unwrap_err().code(), Code::PermissionDenied);

    let ping = |gateway: &GatewayRef, ids: &[&str]| {
        service.request(UpdateLastPingRequest {
            gateway_id: gateway.gateway.clone(),
            incarnation: gateway.incarnation.clone(),
            connection_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        })
    };
    let answer = manager.update_last_ping(ping(&first, &["a-1", "b-1", "c-1"])).await.unwrap().into_inner();
    assert_eq!(answer.unknown_connection_ids, ["c-1"]);

    // The gateway took a new incarnation; the old one's goodbye comes late.
    let connections = vec![connection("a-1", &alice, &second)];
    gateways.register_connections(service.request(RegisterConnectionsRequest { connections })).await.unwrap();
    let late = UnregisterConnectionsRequest {
        gateway_id: first.gateway.clone(),
        incarnation: first.incarnation.clone(),
        connection_ids: vec!["a-1".into(), "a-2".into()],
    };
    gateways.unregister_connections(service.request(late)).await.unwrap();
    assert_eq!(ids_of(&mut manager, &service, &alice).await, ["a-1"]);
    let answer = manager.update_last_ping(ping(&first, &["a-1"])).await.unwrap().into_inner();
    assert_eq!(answer.unknown_connection_ids, ["a-1"], "it is no longer this incarnation's");

    let _: () = core.redis().await.del(core.keys.lease(&second)).await.unwrap();
    assert!(ids_of(&mut manager, &service, &alice).await.is_empty());
    assert_eq!(ids_of(&mut manager, &service, &bob).await, ["b-1"]);
    core.finish().await;
}

#[tokio::test]
async fn people_online_come_in_pages_and_one_above_the_limit_keeps_nobody_out() {
    let core = Core::start_with(&[("CONNECTIONS__MAX_PER_USER", "1")]).await;
    let service = core.service().await;
    let mut users = Vec::new();
    for name in ["alice", "bob", "carol"] {
        users.push(core.register(name).await);
    }
    let mut manager = ConnectionManagerClient::new(core.grpc.clone());
    let mut gateways = GatewayServiceClient::new(core.grpc.clone());
    let gateway = live(&core, "g:1").await;
    // Twice: a connection that is there takes no further place.
    for _ in 0..2 {
        let mut connections = vec![connection("a-1", &users[0], &gateway), connection("a-2", &users[0], &gateway)];
        connections.extend(users[1..].iter().map(|user| connection(&format!("c-{}", user.id), user, &gateway)));
        gateways.register_connections(service.request(RegisterConnectionsRequest { connections })).await.unwrap();
    }
    assert_eq!(ids_of(&mut manager, &service, &users[0]).await, ["a-1"]);
    let asked = RegisterConnectionRequest { connection: Some(connection("a-3", &users[0], &gateway)) };
    let refused = manager.register_connection(service.request(asked)).await.unwrap_err();
    assert_eq!((refused.code(), code(&refused)), (Code::ResourceExhausted, "too_many_connections"));

    let (mut online, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let asked = GetOnlineUsersRequest { workspace_id: 1, page_size: 2, page_token };
        let page = manager.get_online_users(users[0].request(asked)).await.unwrap().into_inner();
        online.extend(page.users.iter().map(|user| (user.user_id, user.connections)));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    online.sort_unstable();
    assert_eq!(online, users.iter().map(|user| (user.id, 1)).collect::<Vec<_>>());
    assert_eq!(pages, 2);
    core.finish().await;
}

#[tokio::test]
async fn a_connection_of_a_life_that_redis_has_forgotten_is_in_the_sweepers_sight() {
    let core = Core::start().await;
    let (alice, service) = (core.register("alice").await, core.service().await);
    // Redis was emptied while the registration was on its way: no lease, and not among the gateways.
    let forgotten: GatewayRef = "g:1".parse().unwrap();
    let mut gateways = GatewayServiceClient::new(core.grpc.clone());
    let connections = vec![connection("a-1", &alice, &forgotten)];
    gateways.register_connections(service.request(RegisterConnectionsRequest { connections })).await.unwrap();
    let known: Vec<String> = core.redis().await.smembers(core.keys.gateways()).await.unwrap();
    assert_eq!(known, ["g:1"]);
    core.finish().await;
}
