//! A gateway whose lease is gone is forgotten; its neighbours are not.

use redis::{AsyncCommands as _, aio::MultiplexedConnection};

use crate::{
    bed::{Bed, Worker, eventually},
    gateway::Gateway,
};

const WORKSPACE: i64 = 1;

/// Registers a connection as core does.
async fn register(bed: &Bed, gateway: &Gateway, user: i64, connection: &str) {
    let mut redis = bed.redis.clone();
    let value = serde_json::json!({
        "user_id": user.to_string(), "gateway_id": gateway.id.gateway, "incarnation": gateway.id.incarnation,
        "device_id": "", "connected_at_ms": 1, "last_ping_at_ms": 1, "workspace_id": WORKSPACE.to_string(),
    });
    let _: u64 = redis.hset(bed.keys.user_connections(user), connection, value.to_string()).await.unwrap();
    let member = format!("{user}:{connection}");
    let _: u64 = redis.sadd(bed.keys.gateway_connections(&gateway.id), member).await.unwrap();
    let _: u64 = redis.zadd(bed.keys.workspace_online(WORKSPACE), user, 1).await.unwrap();
}

async fn gateways(bed: &Bed, redis: &mut MultiplexedConnection) -> Vec<String> {
    redis.smembers(bed.keys.gateways()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_lease_is_gone_is_forgotten_with_its_connections() {
    let bed = Bed::new().await;
    let (dead, alive) = (Gateway::start(&bed, "dead").await, Gateway::start(&bed, "alive").await);
    register(&bed, &dead, 10, "a").await;
    register(&bed, &dead, 10, "b").await;
    register(&bed, &dead, 11, "c").await;
    register(&bed, &alive, 11, "d").await;
    // More keys than one step looks at, and no event for any of them.
    for conversation in 1..=20 {
        dead.serve_conversation(conversation).await;
    }
    dead.serve_user(10).await;
    alive.serve_conversation(20).await;
    let mut settings = bed.settings();
    settings.insert("SWITCHBOARD__SWEEPER__CONNECTIONS_PER_STEP".to_owned(), "2".to_owned());
    settings.insert("SWITCHBOARD__SWEEPER__KEYS_PER_STEP".to_owned(), "5".to_owned());
    let workers = [Worker::start(settings), Worker::start(bed.settings())];
    let mut redis = bed.redis.clone();
    for worker in &workers {
        worker.is_ready().await;
    }
    assert_eq!(gateways(&bed, &mut redis).await.len(), 2, "a gateway with a lease is left alone");

    let _: u64 = redis.del(bed.keys.lease(&dead.id)).await.unwrap();
    eventually("the dead gateway is forgotten", || async {
        let mut redis = bed.redis.clone();
        (gateways(&bed, &mut redis).await == [alive.id.to_string()]).then_some(())
    })
    .await;
    assert!(!redis.exists::<_, bool>(dead.stream()).await.unwrap());
    assert!(!redis.exists::<_, bool>(bed.keys.gateway_connections(&dead.id)).await.unwrap());
    assert!(!redis.exists::<_, bool>(bed.keys.user_connections(10)).await.unwrap());
    let left: Vec<String> = redis.hkeys(bed.keys.user_connections(11)).await.unwrap();
    assert_eq!(left, ["d"], "the connection to the living gateway stays");
    let online: Vec<String> = redis.zrange(bed.keys.workspace_online(WORKSPACE), 0, -1).await.unwrap();
    assert_eq!(online, ["11"], "who has a connection left is online");
    let keys: Vec<String> = redis.keys(bed.keys.interest_pattern()).await.unwrap();
    assert_eq!(keys, [bed.keys.conversation_interest(20)], "nobody is interested in what only the dead one served");
    let interested: Vec<String> = redis.smembers(bed.keys.conversation_interest(20)).await.unwrap();
    assert_eq!(interested, [alive.id.to_string()], "the interest of a living gateway stays");
    for worker in workers {
        worker.stop().await;
    }
    bed.remove().await;
}
