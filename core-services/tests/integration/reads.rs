//! What gateways read: heads that miss no commit, attachments, states of users, the log, and positions.

use proto::rpc::v1::{
    AckKind, AckOffset, AttachSubscription, AttachSubscriptionsRequest, EndedMembership, KnownUser, ReadEventsRequest,
    ReadHeadsRequest, ReadUserStatesRequest, SeqRange, gateway_service_client::GatewayServiceClient,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{Core, code, run_on};

#[tokio::test]
async fn a_head_is_read_after_the_commit_that_is_in_flight() {
    let core = Core::start().await;
    let (alice, service) = (core.register("alice").await, core.service().await);
    let (channel, other) = (core.channel(&alice).await, core.channel(&alice).await);
    let mut writer = core.db.acquire().await.unwrap();
    run_on(&mut writer, "START TRANSACTION").await;
    run_on(&mut writer, &format!("UPDATE conversations SET last_seq = 41 WHERE id = {channel}")).await;

    let mut gateway = GatewayServiceClient::new(core.grpc.clone());
    let commit = async {
        core.session_running("FOR SHARE").await;
        run_on(&mut writer, "COMMIT").await;
    };
    let asked = ReadHeadsRequest { conversation_ids: vec![channel, other, 7], ..Default::default() };
    let (heads, ()) = tokio::join!(gateway.read_heads(service.request(asked)), commit);
    let heads = heads.unwrap().into_inner();
    let head = |id: i64| heads.heads.iter().find(|head| head.conversation_id == id).map(|head| head.head_seq);
    assert_eq!((head(channel), head(other), head(7), heads.epoch), (Some(41), Some(1), None, 1));
    drop(writer);
    core.finish().await;
}

#[tokio::test]
async fn a_gateway_reads_who_may_see_what_and_the_log() {
    let core = Core::start().await;
    let (alice, bob, service) = (core.register("alice").await, core.register("bob").await, core.service().await);
    let channel = core.channel(&alice).await;
    let path = format!("/api/v1/conversations/{channel}");
    core.post(&format!("{path}/join"), Some(&bob), &Value::Null).await;
    core.post(&format!("{path}/leave"), Some(&bob), &Value::Null).await;
    core.send(&alice, channel, "m-1", "hello").await.unwrap();
    let mut gateway = GatewayServiceClient::new(core.grpc.clone());

    let refused = gateway.read_heads(alice.request(ReadHeadsRequest::default())).await.unwrap_err();
    assert_eq!((refused.code(), code(&refused)), (Code::PermissionDenied, "forbidden"));

    let carol = core.register("carol").await;
    let pairs = [(alice.id, channel), (bob.id, channel), (carol.id, channel), (alice.id, 7)];
    let subscriptions =
        pairs.map(|(user_id, conversation_id)| AttachSubscription { user_id, conversation_id }).to_vec();
    let asked = service.request(AttachSubscriptionsRequest { subscriptions, ..Default::default() });
    let attached = gateway.attach_subscriptions(asked).await.unwrap().into_inner().subscriptions;
    let summary = |n: usize| {
        let failure = attached[n].failure.as_ref().map_or("", |failure| &failure.code);
        (failure, attached[n].head_seq, attached[n].member, attached[n].visible.clone())
    };
    assert_eq!(summary(0), ("", 4, true, vec![SeqRange { from: 1, to: 0 }]));
    assert_eq!(summary(1), ("", 4, false, vec![SeqRange { from: 1, to: 3 }]));
    assert_eq!((summary(2).0, summary(3).0), ("not_a_member", "not_found"));

    let user_ids = vec![alice.id, bob.id, 7];
    let asked = service.request(ReadUserStatesRequest { user_ids, ..Default::default() });
    let users = gateway.read_user_states(asked).await.unwrap().into_inner().users;
    let state = |id: i64| users.iter().find(|user| user.user_id == id).unwrap();
    assert_eq!(users.len(), 2, "nobody has the id 7");
    let own = &state(alice.id).memberships;
    assert_eq!((state(alice.id).user_seq, own.len(), own[0].joined_seq, own[0].head_seq), (1, 1, 1, 4));
    assert_eq!((state(bob.id).user_seq, state(bob.id).memberships.len()), (2, 0));
    assert!(users.iter().all(|user| user.ended.is_empty()), "nobody has said what they know");

    let read_bytes = |after_seq: i64, limit: u32, max_bytes: u32| {
        let asked = ReadEventsRequest { conversation_id: channel, after_seq, up_to_seq: 0, limit, max_bytes };
        let (mut gateway, asked) = (gateway.clone(), service.request(asked));
        async move { gateway.read_events(asked).await.unwrap().into_inner() }
    };
    let read = |after_seq: i64, limit: u32| read_bytes(after_seq, limit, 0);
    let log = read(0, 0).await;
    let types: Vec<&str> = log.events.iter().map(|event| event.r#type.as_str()).collect();
    assert_eq!(types, ["CONVERSATION_CREATED", "USER_JOINED", "USER_LEFT", "MESSAGE"]);
    assert_eq!((log.events[1].subject_id, log.events[1].user_seq, log.events[2].user_seq), (bob.id, 1, 2));
    assert_eq!((log.head_seq, log.complete), (4, true));
    let page = read(1, 2).await;
    assert_eq!(page.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
    assert!(page.complete && read(4, 0).await.complete && read(i64::MAX, 0).await.events.is_empty());

    let sizes: Vec<usize> = log.events.iter().map(|event| event.payload.len()).collect();
    for (bytes, events) in [(1, 1), (sizes[0] + sizes[1], 2), (sizes[0] + sizes[1] + sizes[2] - 1, 2)] {
        assert_eq!(read_bytes(0, 0, bytes as u32).await.events.len(), events, "{bytes} of {sizes:?}");
    }

    // What the log no longer holds is said, not passed over.
    sqlx::query("DELETE FROM message_producer_outbox WHERE conversation_id = ? AND seq < 3")
        .bind(channel)
        .execute(&core.db)
        .await
        .unwrap();
    assert!(!read(1, 0).await.complete && read(2, 0).await.complete);
    core.finish().await;
}

#[tokio::test]
async fn who_knows_an_earlier_state_is_told_of_memberships_that_came_and_went_since() {
    let core = Core::start().await;
    let (alice, bob, service) = (core.register("alice").await, core.register("bob").await, core.service().await);
    let (visited, kept) = (core.channel(&alice).await, core.channel(&alice).await);
    for (channel, step) in
        [(visited, "join"), (visited, "leave"), (kept, "join"), (visited, "join"), (visited, "leave")]
    {
        core.post(&format!("/api/v1/conversations/{channel}/{step}"), Some(&bob), &Value::Null).await;
    }
    let visit = |joined_seq: i64, joined_user_seq: i64| EndedMembership {
        conversation_id: visited,
        joined_seq,
        joined_user_seq,
        left_seq: joined_seq + 1,
        left_user_seq: joined_user_seq + 1,
    };
    let mut gateway = GatewayServiceClient::new(core.grpc.clone());
    for (user_seq, ended) in [(0, vec![visit(2, 1), visit(4, 4)]), (1, vec![visit(4, 4)]), (4, vec![]), (5, vec![])] {
        let known = [(alice.id, 0), (bob.id, user_seq)];
        let known = known.map(|(user_id, user_seq)| KnownUser { user_id, user_seq }).to_vec();
        let user_ids = vec![alice.id, bob.id];
        let asked = service.request(ReadUserStatesRequest { user_ids, known, ..Default::default() });
        let mut users = gateway.read_user_states(asked).await.unwrap().into_inner().users;
        users.sort_by_key(|user| user.user_id);
        let [of_alice, of_bob] = &users[..] else { panic!("{users:?}") };
        assert_eq!((of_alice.memberships.len(), of_alice.ended.len()), (2, 0));
        assert_eq!((of_bob.user_seq, of_bob.memberships.len(), &of_bob.ended), (5, 1, &ended), "behind {user_seq}");
    }
    core.finish().await;
}

#[tokio::test]
async fn a_position_never_moves_backwards_nor_above_the_head() {
    let core = Core::start().await;
    let (alice, bob) = (core.register("alice").await, core.register("bob").await);
    let channel = core.channel(&alice).await;
    core.post(&format!("/api/v1/conversations/{channel}/join"), Some(&bob), &Value::Null).await;
    for n in 0..8 {
        core.send(&alice, channel, &format!("m-{n}"), "hello").await.unwrap();
    }
    let ack = |request_no: u64, seq: i64, kind: AckKind, epoch: i64, user_id: i64| AckOffset {
        conversation_id: channel,
        kind: kind.into(),
        user_id,
        seq,
        request_no,
        epoch,
        ..AckOffset::default()
    };
    let acks = vec![
        ack(1, 7, AckKind::Read, 1, 0),
        ack(2, 3, AckKind::Read, 0, bob.id),
        ack(3, 9, AckKind::Delivered, 0, 0),
        ack(4, 11, AckKind::Read, 0, 0),
        ack(5, 8, AckKind::Read, 2, 0),
        ack(6, 8, AckKind::Unspecified, 0, 0),
        ack(7, 8, AckKind::Read, 0, alice.id),
    ];
    let asked = bob.request(tokio_stream::iter(acks));
    let mut answers = core.messages().stream_ack_offsets(asked).await.unwrap().into_inner();
    let mut codes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        codes.push((answer.request_no, answer.failure.map_or(String::new(), |failure| failure.code)));
    }
    let codes: Vec<(u64, &str)> = codes.iter().map(|(no, code)| (*no, code.as_str())).collect();
    let refused = [(4, "invalid_body"), (5, "conflict"), (6, "invalid_body"), (7, "spoofed_sender")];
    assert_eq!(codes, [&[(1, ""), (2, ""), (3, "")], &refused[..]].concat());
    let stored = || async {
        sqlx::query_as::<_, (i64, i64)>(
            "SELECT delivered_seq, read_seq FROM message_acks WHERE user_id = ? AND conversation_id = ?",
        )
        .bind(bob.id)
        .bind(channel)
        .fetch_one(&core.db)
        .await
        .unwrap()
    };
    assert_eq!(stored().await, (9, 7));

    // The same by REST: unread counts the messages behind the position.
    let path = format!("/api/v1/conversations/{channel}/read");
    assert_eq!(core.call("PUT", &path, Some(&bob), json!({ "seq": 5 })).await.0, 200);
    assert_eq!(stored().await, (9, 7));
    let (_, mine) = core.call("GET", "/api/v1/conversations", Some(&bob), Value::Null).await;
    assert_eq!(mine["items"][0]["unread_count"], 3, "{mine}");
    assert_eq!(mine["items"][0]["last_message"]["seq"], 10);
    core.finish().await;
}
