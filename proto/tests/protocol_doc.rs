//! Holds `docs/protocol.md` against the crate: every name that crosses a process boundary stands in its section there,
//! in backticks, and the page doesn't call planned what is there.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use proto::{
    Code, EventType, GatewayRef, Keys, Scope, claims,
    event::Tier,
    rpc::{CODE_METADATA, DESCRIPTORS, v1::LockedRows},
    stream_entry::field,
    topics::{self, header},
};

const PAGE: &str = include_str!("../../docs/protocol.md");

/// The text from `## <title>` to the next section.
fn section(title: &str) -> &'static str {
    let heading = format!("\n## {title}\n");
    let start = PAGE.find(&heading).unwrap_or_else(|| panic!("docs/protocol.md has no section {title:?}"));
    let rest = &PAGE[start + heading.len()..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

fn assert_documented<'a>(title: &str, names: impl IntoIterator<Item = &'a str>) {
    let text = section(title);
    let missing: Vec<_> = names.into_iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/protocol.md, section {title:?}, does not name {missing:?}");
}

/// The first cell of each row of the table whose header row starts with `| <first> |`.
fn first_column(title: &str, first: &str) -> Vec<&'static str> {
    let rows = section(title).lines().skip_while(|line| !line.starts_with(&format!("| {first} |")));
    rows.skip(2)
        .map_while(|line| line.strip_prefix("| "))
        .filter_map(|row| row.split(" |").next()?.strip_prefix('`')?.strip_suffix('`'))
        .collect()
}

#[test]
fn the_table_of_codes_is_the_list_of_codes() {
    let documented = first_column("Conventions", "code");
    let known: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(documented, known);
    assert_documented("gRPC", [CODE_METADATA]);
}

#[test]
fn every_event_type_is_documented_and_none_is_called_planned() {
    let known: Vec<_> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_documented("Events", known.iter().copied());
    let planned = section("Not yet");
    let there: Vec<_> = known.iter().filter(|name| planned.contains(&format!("`{name}`"))).collect();
    assert!(there.is_empty(), "called planned, but in the crate: {there:?}");
}

#[test]
fn tiers_of_a_resume_are_documented() {
    // Exhaustive on purpose: a new tier does not compile here until it is documented.
    let name = |tier| match tier {
        Tier::Live => "live",
        Tier::Ring => "ring",
        Tier::Log => "log",
    };
    assert_documented("STOMP", [Tier::Live, Tier::Ring, Tier::Log].map(name));
}

#[test]
fn what_becomes_of_locked_rows_is_documented() {
    // Exhaustive on purpose, as above.
    let name = |locked: LockedRows| match locked {
        LockedRows::Unspecified | LockedRows::Wait | LockedRows::Skip => locked.as_str_name(),
    };
    assert_documented("gRPC", [LockedRows::Unspecified, LockedRows::Wait, LockedRows::Skip].map(name));
    assert_documented("gRPC", ["locked", "locked_conversation_ids", "locked_user_ids", "head_locked"]);
}

#[test]
fn scopes_and_audience_are_documented() {
    assert_documented(
        "Tokens",
        [
            claims::SCOPE_SEND_AS,
            claims::SCOPE_CONNECTIONS_WRITE,
            claims::SCOPE_READ_ANY,
            claims::SCOPE_MESSAGES_WRITE,
            claims::SCOPE_MESSAGES_READ,
            claims::SCOPE_CONVERSATIONS_WRITE,
            claims::AUDIENCE,
        ],
    );
    assert_documented("Tokens", claims::USER_SCOPES.split(' '));
}

#[test]
fn topics_and_record_headers_are_documented() {
    assert_documented(
        "Kafka",
        [
            topics::MESSAGE_EVENTS,
            topics::USER_EVENTS,
            topics::CONNECTION_EVENTS,
            topics::EPHEMERAL_EVENTS,
            topics::DEAD_LETTERS,
            topics::CANARY_EVENTS,
            topics::aggregate::MESSAGE,
            topics::aggregate::USER,
            topics::aggregate::CANARY,
            header::ID,
            header::EVENT_TYPE,
            header::CONVERSATION_ID,
            header::SEQ,
            header::EPOCH,
            header::ACTOR_ID,
            header::SUBJECT_ID,
            header::TARGET_SEQ,
            header::USER_SEQ,
            header::TRACEPARENT,
            header::dlq::TOPIC,
            header::dlq::PARTITION,
            header::dlq::OFFSET,
            header::dlq::REASON,
            header::dlq::ERROR,
            header::dlq::AT,
            header::dlq::OMITTED,
            header::dlq::REPLAYED_OFFSET,
            header::dlq::REPLAYED_TO,
        ],
    );
    assert!(section("Kafka").contains(&format!("| {} |", topics::PARTITIONS)), "the number of partitions");
}

#[test]
fn redis_keys_and_stream_fields_are_documented() {
    let keys = Keys::new("");
    let gateway = GatewayRef { gateway: "gateway".to_owned(), incarnation: "incarnation".to_owned() };
    // A key is documented as a pattern: the id in its braces stands as {id}.
    let pattern = |key: String| key.replace("{7}", "{id}");
    let patterns = [
        keys.gateways(),
        keys.lease(&gateway),
        keys.stream(&gateway),
        keys.gateway_connections(&gateway),
        pattern(keys.conversation_interest(7)),
        pattern(keys.user_interest(7)),
        pattern(keys.user_connections(7)),
        pattern(keys.workspace_online(7)),
    ];
    assert_documented("Redis", patterns.iter().map(String::as_str));
    assert_documented(
        "Redis",
        [
            field::SCOPE,
            field::KEY,
            field::TYPE,
            field::EVENT_ID,
            field::CONVERSATION_ID,
            field::SEQ,
            field::EPOCH,
            field::ACTOR_ID,
            field::SUBJECT_ID,
            field::TARGET_SEQ,
            field::USER_SEQ,
            field::TRACEPARENT,
            field::KAFKA_MS,
            field::WORKER_US,
            field::PAYLOAD,
        ],
    );
    assert_documented("Redis", [Scope::Conversation, Scope::User, Scope::Ephemeral].map(Scope::as_str));
}

#[test]
fn every_grpc_method_is_documented() {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let ours = files.file.iter().filter(|file| file.package() == "chat.v1");
    let services: Vec<_> = ours.flat_map(|file| &file.service).collect();
    assert!(!services.is_empty());
    for service in services {
        assert_documented("gRPC", [service.name()]);
        assert_documented("gRPC", service.method.iter().map(|method| method.name()));
    }
}
