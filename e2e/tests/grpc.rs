//! Consumers of the gRPC interface: generated clients, and grpcurl with nothing but server reflection.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    grpc::{Grpc, code_of, service_token},
    testing::{Stack, eventually},
};
use proto::rpc::v1::{
    Connection, CreateMessageRequest, CreateMessageResult, GetConnectionsByUserRequest, GetOnlineUsersRequest,
    HelloRequest, RegisterConnectionRequest, UnregisterConnectionRequest, UpdateLastPingRequest,
    VerifyAccessTokenRequest, create_message_result::Result as Outcome,
};
use tokio::{process::Command, time::timeout};

/// For one stream of messages.
const STREAM_DEADLINE: Duration = Duration::from_secs(120);

/// Sends all at once and gives the answers in the order in which they came.
async fn stream(core: &Grpc, requests: Vec<CreateMessageRequest>) -> Result<Vec<CreateMessageResult>> {
    let exchange = async {
        let mut answers =
            core.messages().stream_create_messages(futures_util::stream::iter(requests)).await?.into_inner();
        let mut results = Vec::new();
        while let Some(result) = answers.message().await? {
            results.push(result);
        }
        anyhow::Ok(results)
    };
    timeout(STREAM_DEADLINE, exchange).await.context("the stream did not end in time")?
}

fn message(conversation: i64, name: &str, request_no: u64) -> CreateMessageRequest {
    CreateMessageRequest {
        conversation_id: conversation,
        body: format!("body of {name}"),
        client_message_id: name.to_owned(),
        request_no,
        ..CreateMessageRequest::default()
    }
}

#[tokio::test]
async fn a_stream_answers_good_refused_and_repeated_messages_each_by_its_number() -> Result<()> {
    let stack = Stack::get()?;
    let [alice, eve] = stack.people(["alice", "eve"]).await?;
    let mine = stack.channel(&[&alice]).await?;
    let theirs = stack.channel(&[&eve]).await?;
    let core = Grpc::connect(&stack.endpoints.core[0], Some(&alice.token)).await?;

    let conflicting = CreateMessageRequest { body: "something else".into(), ..message(mine, "a", 4) };
    let requests = vec![
        message(mine, "a", 1),
        message(theirs, "b", 2),
        message(mine, "a", 3),
        conflicting,
        CreateMessageRequest { body: String::new(), ..message(mine, "c", 5) },
        message(9_000_000_000_000_000_000, "d", 6),
        CreateMessageRequest { sender_id: eve.user_id, ..message(mine, "e", 7) },
        message(mine, "f", 8),
    ];
    let results = stream(&core, requests).await?;
    assert_eq!(results.len(), 8, "one answer for each");
    let of = |number: u64| {
        let found = results.iter().find(|result| result.request_no == number);
        found.and_then(|result| result.result.clone()).with_context(|| format!("no answer to {number}"))
    };
    let created = |number: u64| match of(number)? {
        Outcome::Created(created) => Ok(created),
        Outcome::Failure(failure) => anyhow::bail!("{number} was refused: {failure:?}"),
    };
    let refused = |number: u64| match of(number)? {
        Outcome::Failure(failure) => Ok(failure.code),
        Outcome::Created(created) => anyhow::bail!("{number} was created: {created:?}"),
    };
    let first = created(1)?;
    assert_eq!((first.seq, first.message_no, first.duplicate), (2, 1, false));
    let repeated = created(3)?;
    assert_eq!((repeated.seq, repeated.message_id, repeated.duplicate), (2, first.message_id, true));
    assert_eq!(refused(2)?, "not_a_member");
    assert_eq!(refused(4)?, "conflict");
    assert_eq!(refused(5)?, "invalid_body");
    assert_eq!(refused(6)?, "not_found");
    assert_eq!(refused(7)?, "spoofed_sender");
    assert_eq!(created(8)?.seq, 3, "refused messages take no seq");
    Ok(())
}

#[tokio::test]
async fn many_streams_at_once_leave_no_gap_and_keep_each_streams_order() -> Result<()> {
    const STREAMS: usize = 4;
    const MESSAGES: usize = 1000;
    let stack = Stack::get()?;
    let people = stack.people(["ann", "ben", "cem", "dee"]).await?;
    let conversation = stack.channel(&people.iter().collect::<Vec<_>>()).await?;
    let streams = people.iter().enumerate().map(|(number, person)| {
        let url = &stack.endpoints.core[number % stack.endpoints.core.len()];
        async move {
            let core = Grpc::connect(url, Some(&person.token)).await?;
            let requests = (0..MESSAGES).map(|n| message(conversation, &format!("{number}-{n}"), n as u64 + 1));
            stream(&core, requests.collect()).await
        }
    });
    let mut seqs = BTreeSet::new();
    for results in futures_util::future::try_join_all(streams).await? {
        assert_eq!(results.len(), MESSAGES);
        let mut before = 0;
        for (at, result) in results.into_iter().enumerate() {
            let Some(Outcome::Created(created)) = result.result else { panic!("refused: {result:?}") };
            assert_eq!(result.request_no, at as u64 + 1, "answers come in commit order");
            assert!(created.seq > before, "{} behind {before}", created.seq);
            before = created.seq;
            assert!(seqs.insert(created.seq), "{} twice", created.seq);
        }
    }
    let expected: BTreeSet<i64> = (2..2 + i64::try_from(STREAMS * MESSAGES)?).collect();
    assert_eq!(seqs, expected, "contiguous behind CONVERSATION_CREATED");
    let log = stack.rest.events(&people[0].token, conversation, 0).await?;
    assert_eq!(log.len(), STREAMS * MESSAGES + 1);
    Ok(())
}

#[tokio::test]
async fn hello_and_token_verification_answer() -> Result<()> {
    let stack = Stack::get()?;
    let alice = stack.person("alice").await?;
    let service = service_token(&stack.endpoints, None).await?;
    let core = Grpc::connect(&stack.endpoints.core[0], Some(&service)).await?;
    let hello = core.auth().hello(HelloRequest { name: "world".into() }).await?.into_inner();
    assert!(hello.message.contains("world") && hello.server_time.is_some(), "{hello:?}");

    let verify = |token: &str| {
        let request = VerifyAccessTokenRequest { access_token: token.to_owned() };
        let mut auth = core.auth();
        async move { anyhow::Ok(auth.verify_access_token(request).await?.into_inner()) }
    };
    let good = verify(&alice.token).await?;
    assert_eq!((good.valid, good.user_id), (true, alice.user_id));
    assert!(good.scopes.contains(&"messages:write".to_owned()), "{good:?}");
    let of_service = verify(&service).await?;
    assert_eq!((of_service.valid, of_service.client_id.as_str(), of_service.user_id), (true, "socket-gateway", 0));
    let bad = verify("no.token.atall").await?;
    assert_eq!((bad.valid, bad.reason.as_str()), (false, "malformed"));
    Ok(())
}

#[tokio::test]
async fn a_connection_is_registered_seen_pinged_and_forgotten() -> Result<()> {
    let stack = Stack::get()?;
    let alice = stack.person("alice").await?;
    let conversation = stack.channel(&[&alice]).await?;
    let mut client = stack.connect(&alice, 0).await?;
    client.subscribe("/user/queue/events").await?;
    let service = service_token(&stack.endpoints, None).await?;
    let core = Grpc::connect(&stack.endpoints.core[0], Some(&service)).await?;
    let connections = || async {
        let request = GetConnectionsByUserRequest { user_id: alice.user_id };
        anyhow::Ok(core.connections().get_connections_by_user(request).await?.into_inner().connections)
    };
    let live =
        eventually("the socket's connection is registered", || async { Ok(connections().await?.into_iter().next()) })
            .await?;
    assert_eq!((live.user_id, live.gateway_id.as_str()), (alice.user_id, "socket-gateway-1"));
    assert!(!live.incarnation.is_empty() && live.connected_at.is_some(), "{live:?}");

    // A second one of the same gateway's life, registered by hand.
    let by_hand = Connection {
        connection_id: uuid::Uuid::now_v7().simple().to_string(),
        device_id: "by-hand".into(),
        ..live.clone()
    };
    let request = RegisterConnectionRequest { connection: Some(by_hand.clone()) };
    let registered = core.connections().register_connection(request).await?.into_inner();
    let membership = registered.memberships.iter().find(|membership| membership.conversation_id == conversation);
    let membership = membership.context("my conversation is missing")?;
    assert_eq!((membership.head_seq, membership.joined_seq, membership.role.as_str()), (1, 1, "owner"));
    assert!(registered.user_seq > 0 && registered.epoch > 0, "{registered:?}");
    assert_eq!(connections().await?.len(), 2);

    let ping = UpdateLastPingRequest {
        gateway_id: live.gateway_id.clone(),
        incarnation: live.incarnation.clone(),
        connection_ids: vec![by_hand.connection_id.clone(), "unheard-of".into()],
    };
    let unknown = core.connections().update_last_ping(ping).await?.into_inner().unknown_connection_ids;
    assert_eq!(unknown, ["unheard-of"]);

    let online = GetOnlineUsersRequest { workspace_id: 1, page_size: 1000, page_token: String::new() };
    let users = core.connections().get_online_users(online).await?.into_inner().users;
    let me = users.iter().find(|user| user.user_id == alice.user_id).context("I am not online")?;
    assert_eq!(me.connections, 2);

    let forget = UnregisterConnectionRequest {
        connection_id: by_hand.connection_id,
        gateway_id: live.gateway_id,
        incarnation: live.incarnation,
    };
    core.connections().unregister_connection(forget).await?;
    assert_eq!(connections().await?.len(), 1);
    client.disconnect().await?;
    eventually("nothing is registered", || async { Ok(connections().await?.is_empty().then_some(())) }).await
}

#[tokio::test]
async fn a_user_may_not_do_what_services_do() -> Result<()> {
    let stack = Stack::get()?;
    let alice = stack.person("alice").await?;
    let core = Grpc::connect(&stack.endpoints.core[0], Some(&alice.token)).await?;
    let request = RegisterConnectionRequest { connection: Some(Connection::default()) };
    let refused = core.connections().register_connection(request).await.unwrap_err();
    assert_eq!((refused.code(), code_of(&refused)), (tonic::Code::PermissionDenied, "forbidden"));
    let request = proto::rpc::v1::ReadHeadsRequest { conversation_ids: vec![1], ..Default::default() };
    let refused = core.gateways().read_heads(request).await.unwrap_err();
    assert_eq!((refused.code(), code_of(&refused)), (tonic::Code::PermissionDenied, "forbidden"));
    Ok(())
}

/// Ids, times, tokens and the like, which differ with every run.
fn normalised(session: &str) -> String {
    let mut out = String::new();
    for line in session.lines() {
        let mut line = line.trim_end().to_owned();
        for name in ["At", "Time", "payload"] {
            if let Some(at) = line.find(&format!("{name}\": \"")) {
                line.truncate(at);
                line += &format!("{name}\": …");
                break;
            }
        }
        let mut words = String::new();
        for word in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            let end = word.chars().last().filter(|c| !c.is_ascii_alphanumeric() && *c != '-');
            let bare = end.map_or(word, |c| &word[..word.len() - c.len_utf8()]);
            let changes = bare.len() >= 12 && bare.chars().filter(char::is_ascii_digit).count() >= 8;
            words += if changes { "…" } else { bare };
            words.extend(end);
        }
        out += &words;
        out.push('\n');
    }
    out
}

#[tokio::test]
async fn grpcurl_calls_every_method_by_reflection_alone_as_recorded() -> Result<()> {
    let stack = Stack::get()?;
    let alice = stack.person("grpcurl").await?;
    let conversation = stack.channel(&[&alice]).await?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no parent")?.join("examples/grpcurl");
    let output = Command::new("bash")
        .arg(folder.join("session.sh"))
        .env("CORE", stack.endpoints.core[0].trim_start_matches("http://"))
        .env("TOKEN", &alice.token)
        .env("SERVICE_TOKEN", service_token(&stack.endpoints, None).await?)
        .env("USER_ID", alice.user_id.to_string())
        .env("CONVERSATION", conversation.to_string())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the session failed: {}{said}", String::from_utf8_lossy(&output.stderr));
    let recorded = std::fs::read_to_string(folder.join("session.txt"))?;
    let (said_shape, recorded_shape) = (normalised(&said), normalised(&recorded));
    if said_shape != recorded_shape {
        let actual = std::env::temp_dir().join("switchboard-grpcurl-session.txt");
        std::fs::write(&actual, said.as_bytes())?;
        let differs = said_shape.lines().zip(recorded_shape.lines()).enumerate().find(|(_, (said, held))| said != held);
        anyhow::bail!("another session than session.txt, from here on: {differs:?}; all is in {}", actual.display());
    }
    Ok(())
}
