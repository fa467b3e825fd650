//! What goes where, in which order, with which fields.

use proto::{
    Scope,
    topics::header::{EPOCH, EVENT_TYPE, ID, SUBJECT_ID, USER_SEQ},
};
use redis::AsyncCommands as _;

use crate::{
    bed::{Bed, Worker, eventually},
    gateway::Gateway,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_event_reaches_the_gateways_that_are_interested_in_order_and_no_other() {
    let bed = Bed::new().await;
    let (both, second) = (Gateway::start(&bed, "both").await, Gateway::start(&bed, "second").await);
    for conversation in [1, 2] {
        both.serve_conversation(conversation).await;
    }
    second.serve_conversation(2).await;
    let worker = Worker::start(bed.settings());
    worker.is_ready().await;

    for seq in 1..=100 {
        for conversation in [1, 2, 3] {
            bed.message(conversation, seq).await;
        }
    }
    for conversation in [1, 2] {
        assert_eq!(both.has_all(conversation, 100).await, 0, "nothing is repeated when nothing fails");
    }
    second.has_all(2, 100).await;
    assert!(second.seqs(1).await.is_empty());
    assert!(both.seqs(3).await.is_empty());

    let entry = both.entries().await.into_iter().find(|entry| entry.key == 1).unwrap();
    assert_eq!((entry.scope, &entry.payload[..]), (Scope::Conversation, &b"{\"seq\":1}"[..]));
    assert!(entry.kafka_ms > 0 && entry.worker_us >= entry.kafka_ms * 1000);
    worker.stop().await;
    assert_eq!(bed.committed("messages").await, 300);
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_person_and_ephemeral_events_carry_their_scope() {
    let bed = Bed::new().await;
    let gateway = Gateway::start(&bed, "gateway").await;
    gateway.serve_user(7).await;
    gateway.serve_conversation(9).await;
    let worker = Worker::start(bed.settings());
    worker.is_ready().await;

    let membership = [(ID, "m"), (EVENT_TYPE, "MEMBERSHIP_STARTED"), (EPOCH, "1"), (SUBJECT_ID, "7"), (USER_SEQ, "3")];
    bed.produce("users", Some("7"), &membership, Some(b"{}")).await;
    bed.produce("ephemeral", Some("9"), &[(ID, "t"), (EVENT_TYPE, "TYPING"), (EPOCH, "1")], Some(b"{}")).await;
    let mut entries = eventually("both entries came", || async {
        let entries = gateway.entries().await;
        (entries.len() == 2).then_some(entries)
    })
    .await;
    entries.sort_by_key(|entry| entry.key);
    assert_eq!((entries[0].scope, entries[0].key, entries[0].routing.user_seq), (Scope::User, 7, Some(3)));
    assert_eq!((entries[1].scope, entries[1].key, entries[1].routing.seq), (Scope::Ephemeral, 9, None));
    worker.stop().await;
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interest_of_a_gateway_that_is_gone_is_removed_and_nothing_is_written_for_it() {
    let bed = Bed::new().await;
    let (alive, gone) = (Gateway::start(&bed, "alive").await, Gateway::start(&bed, "gone").await);
    for gateway in [&alive, &gone] {
        gateway.serve_conversation(5).await;
    }
    let mut redis = bed.redis.clone();
    let _: u64 = redis.del(gone.stream()).await.unwrap();
    let worker = Worker::start(bed.settings());

    bed.message(5, 1).await;
    alive.has_all(5, 1).await;
    let key = bed.keys.conversation_interest(5);
    eventually("only the living gateway is interested", || async {
        let members: Vec<String> = bed.redis.clone().smembers(&key).await.unwrap();
        (members == [alive.id.to_string()]).then_some(())
    })
    .await;
    assert!(!redis.exists::<_, bool>(gone.stream()).await.unwrap());
    worker.stop().await;
    bed.remove().await;
}
