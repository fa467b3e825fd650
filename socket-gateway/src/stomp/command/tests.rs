use super::*;

fn parse(verb: Verb, headers: &[(&str, &str)], version: Version) -> Result<Command, CommandError> {
    let headers = headers.iter().copied().collect();
    Command::parse(Frame { verb, headers, body: Bytes::new() }, version)
}

fn one(verb: Verb, headers: &[(&str, &str)], version: Version) -> Command {
    parse(verb, headers, version).unwrap()
}

fn fault(verb: Verb, headers: &[(&str, &str)]) -> CommandError {
    parse(verb, headers, Version::V1_2).unwrap_err()
}

#[test]
fn the_token_is_the_bearer_or_the_passcode() {
    let token = |headers: &[(&str, &str)]| match parse(Verb::Connect, headers, Version::V1_2).unwrap() {
        Command::Connect(connect) => connect.token,
        other => panic!("{other:?}"),
    };
    assert_eq!(token(&[("Authorization", "Bearer abc"), ("passcode", "p")]).as_deref(), Some("abc"));
    assert_eq!(token(&[("Authorization", "Basic abc"), ("passcode", "p")]).as_deref(), Some("p"));
    assert_eq!(token(&[("passcode", "")]), None);
}

#[test]
fn a_missing_or_wrong_header_is_named_with_the_receipt_of_the_frame() {
    let no_id = fault(Verb::Subscribe, &[("destination", "/x"), ("receipt", "r1")]);
    assert_eq!((no_id.message.as_str(), no_id.receipt.as_deref()), ("SUBSCRIBE needs the header id", Some("r1")));
    assert!(fault(Verb::Send, &[]).message.contains("destination"));
    assert!(fault(Verb::Unsubscribe, &[]).message.contains("id"));
    assert!(fault(Verb::Connect, &[("heart-beat", "10")]).message.contains("heart-beat"));
    let bad_seq = [("destination", "/x"), ("id", "1"), ("after-seq", "-2")];
    assert!(fault(Verb::Subscribe, &bad_seq).message.contains("after-seq"));
    assert!(fault(Verb::Subscribe, &[("destination", "/x"), ("id", "1"), ("ack", "no")]).message.contains("ack"));
    assert!(fault(Verb::Message, &[]).message.contains("server's frame"));
}

#[test]
fn in_version_1_0_a_subscription_is_named_by_its_destination() {
    let Command::Subscribe(subscribe) = parse(Verb::Subscribe, &[("destination", "/x")], Version::V1_0).unwrap() else {
        panic!("expected SUBSCRIBE");
    };
    assert_eq!((subscribe.id.as_str(), subscribe.has_id), ("/x", false));
    let unsubscribe = parse(Verb::Unsubscribe, &[("destination", "/x")], Version::V1_0).unwrap();
    assert_eq!(unsubscribe, Command::Unsubscribe { id: "/x".into(), receipt: None });
}

#[test]
fn each_version_names_an_acknowledged_message_in_its_way() {
    let of = |headers, version| match one(Verb::Ack, headers, version) {
        Command::Ack(ack) => ack.of,
        other => panic!("{other:?}"),
    };
    let message = |subscription: Option<&str>| AckOf::Message {
        message_id: "7-12".into(),
        subscription: subscription.map(Into::into),
    };
    assert_eq!(of(&[("id", "1-7-12")], Version::V1_2), AckOf::Id("1-7-12".into()));
    assert_eq!(of(&[("message-id", "7-12"), ("subscription", "a")], Version::V1_1), message(Some("a")));
    assert_eq!(of(&[("message-id", "7-12")], Version::V1_0), message(None));
    for (headers, version, lacks) in [
        (vec![("message-id", "7-12"), ("subscription", "a")], Version::V1_2, "id"),
        (vec![("message-id", "7-12")], Version::V1_1, "subscription"),
        (vec![("id", "1-7-12")], Version::V1_1, "message-id"),
        (vec![("id", "1-7-12")], Version::V1_0, "message-id"),
    ] {
        let error = parse(Verb::Ack, &headers, version).unwrap_err();
        assert_eq!(error.message, format!("ACK needs the header {lacks}"));
    }
    assert!(parse(Verb::Nack, &[("message-id", "7-12")], Version::V1_0).unwrap_err().message.contains("no NACK"));
}

#[test]
fn begin_commit_and_abort_need_a_transaction() {
    for verb in [Verb::Begin, Verb::Commit, Verb::Abort] {
        assert!(fault(verb, &[]).message.contains("transaction"));
    }
    let begin = one(Verb::Begin, &[("transaction", "t"), ("receipt", "r")], Version::V1_0);
    assert_eq!(begin, Command::Begin(Transaction { id: "t".into(), receipt: Some("r".into()) }));
}

#[test]
fn only_send_may_have_a_body_from_1_1_on() {
    for verb in Verb::ALL.iter().filter(|verb| **verb != Verb::Send) {
        let headers: Headers = [("receipt", "r")].into_iter().collect();
        let frame = Frame { verb: *verb, headers, body: "x".into() };
        let error = Command::parse(frame.clone(), Version::V1_1).unwrap_err();
        assert_eq!((error.message.contains("has a body"), error.receipt.as_deref()), (true, Some("r")), "{verb:?}");
    }
    let body = "ignored".into();
    let frame = Frame { verb: Verb::Subscribe, headers: [("destination", "/x")].into_iter().collect(), body };
    assert!(Command::parse(frame, Version::V1_0).is_ok());
}

#[test]
fn padded_values_of_an_old_clients_connect_are_read() {
    let headers = [("login", " me"), ("passcode", " t "), ("heart-beat", " 0, 5000")];
    let Command::Connect(connect) = one(Verb::Connect, &headers, Version::V1_2) else { panic!("expected CONNECT") };
    assert_eq!((connect.token.as_deref(), connect.heart_beat), (Some("t"), (0, 5000)));
}
