use super::*;

fn with_subprotocol(version: Version) -> Driven {
    let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
    let now = Instant::now();
    Driven { machine: Machine::new("s1".into(), Arc::new(settings()), metrics, now, Some(version)), now }
}

fn connected(session: &mut Driven, connect: &str) -> String {
    session.frame(connect);
    one_written(&session.input(Input::Verified(Ok(verified(5))))).to_owned()
}

#[tokio::test(start_paused = true)]
async fn the_version_is_chosen_by_accept_version_and_by_subprotocol() {
    for (accept, version) in [
        ("", "1.0"),
        ("accept-version:1.0\n", "1.0"),
        ("accept-version:1.0,1.1\n", "1.1"),
        ("accept-version:1.1,1.2,3.0\n", "1.2"),
    ] {
        let frame = connected(&mut Driven::new(), &format!("CONNECT\n{accept}passcode:t\n\n\0"));
        assert_eq!(header(&frame, "version"), Some(version), "{accept}");
    }
    let frame = connected(&mut with_subprotocol(Version::V1_1), "CONNECT\npasscode:t\n\n\0");
    assert_eq!(header(&frame, "version"), Some("1.1"));
    let frame =
        connected(&mut with_subprotocol(Version::V1_1), "CONNECT\naccept-version:1.0,1.1,1.2\npasscode:t\n\n\0");
    assert_eq!(header(&frame, "version"), Some("1.2"));
}

#[tokio::test(start_paused = true)]
async fn no_common_version_is_answered_with_those_spoken_here() {
    let connect = "CONNECT\naccept-version:2.0\npasscode:t\nreceipt:r\n\n\0";
    for mut session in [Driven::new(), with_subprotocol(Version::V1_2)] {
        let outputs = session.frame(connect);
        assert_eq!(ended(&outputs), (Some("protocol_error"), 4400));
        let error = one_written(&outputs);
        let named = ["version", "receipt-id", "content-type"].map(|name| header(error, name));
        assert_eq!(named, [Some("1.0,1.1,1.2"), Some("r"), Some("text/plain")]);
        assert!(error.contains("\nmessage:no common version"), "{error}");
    }
}

/// Found by the fuzz target `session`.
#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_connect_is_written_as_its_own_version_has_it() {
    let receipt = format!("a:{}", "x".repeat(settings().id));
    for (accept, written) in [("", receipt.clone()), ("accept-version:1.2\n", receipt.replace(':', "\\c"))] {
        let outputs = Driven::new().frame(&format!("CONNECT\n{accept}passcode:t\nreceipt:{receipt}\n\n\0"));
        assert_eq!(ended(&outputs), (Some("protocol_error"), 4400));
        assert_eq!(header(one_written(&outputs), "receipt-id"), Some(&*written), "{accept}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_cause_the_receipt_and_how_long_it_is() {
    for version in [Version::V1_0, Version::V1_1, Version::V1_2] {
        let outputs = Driven::open_as(version).frame("UNSUBSCRIBE\nid:nothing\nreceipt:r\n\n\0");
        let error = one_written(&outputs);
        let (head, body) = error.split_once("\n\n").unwrap();
        let body = body.trim_end_matches('\0');
        assert!(head.starts_with("ERROR\n"));
        let length = body.len().to_string();
        let named = ["receipt-id", "code", "content-type", "content-length"].map(|name| header(head, name));
        assert_eq!(named, [Some("r"), Some("protocol_error"), Some("text/plain"), Some(&*length)], "{version:?}");
        assert_eq!(header(head, "message"), Some(body));
    }
}

#[tokio::test(start_paused = true)]
async fn connect_gets_no_receipt() {
    let frame = connected(&mut Driven::new(), "CONNECT\naccept-version:1.2\npasscode:t\nreceipt:r\n\n\0");
    assert!(frame.starts_with("CONNECTED\n"));
}

#[tokio::test(start_paused = true)]
async fn host_and_login_are_not_needed_and_not_looked_at() {
    let frame = connected(&mut Driven::new(), "CONNECT\naccept-version:1.2\nhost:x\nlogin:y\npasscode:t\n\n\0");
    assert_eq!(header(&frame, "user-name"), Some("5"));
}

#[tokio::test(start_paused = true)]
async fn heart_beats_are_of_1_1_and_later() {
    let mut old = Driven::new();
    let frame = connected(&mut old, "CONNECT\nheart-beat:5000,5000\npasscode:t\n\n\0");
    assert_eq!(header(&frame, "heart-beat"), None);
    assert!(old.after(Duration::from_secs(60)).is_empty());
    let mut session = Driven::new();
    let frame = connected(&mut session, "CONNECT\naccept-version:1.1\nheart-beat:0,20000\npasscode:t\n\n\0");
    assert_eq!(header(&frame, "heart-beat"), Some("10000,10000"));
    assert!(session.after(Duration::from_secs(19)).is_empty());
    assert_eq!(one_written(&session.after(Duration::from_secs(1))), "\n");
}

/// The start of a subscription's messages, for an id as it stands on the wire.
fn head_of(version: Version, id: &str) -> String {
    let mut session = Driven::open_as(version);
    let outputs = session.frame(&format!("SUBSCRIBE\nid:{id}\ndestination:/topic/conversations/7\n\n\0"));
    let [Output::Attach { head, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    head.frame("", "")
}

#[tokio::test(start_paused = true)]
async fn ids_with_every_legal_character_are_written_back_as_they_came() {
    for (version, id) in [
        (Version::V1_2, "a\\cb\\\\c\\nd\\re ü=\u{1f600}, \t"),
        (Version::V1_1, "a\\cb\\\\c\\nd e ü\r="),
        (Version::V1_0, "a:b\\c\\d=ü"),
    ] {
        let head = head_of(version, id);
        assert_eq!(head, format!("MESSAGE\nsubscription:{id}\ndestination:/topic/conversations/7\n"), "{version:?}");
        let mut session = Driven::open_as(version);
        let outputs = session.frame(&format!("SUBSCRIBE\nid:e\ndestination:/user/queue/errors\nreceipt:{id}\n\n\0"));
        assert_eq!(one_written(&outputs), format!("RECEIPT\nreceipt-id:{id}\n\n\0"), "{version:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_1_0_a_subscription_may_have_no_id_and_is_left_by_its_destination() {
    let mut session = Driven::open_as(Version::V1_0);
    let outputs = session.frame("SUBSCRIBE\ndestination: /topic/conversations/7\n\n\0");
    let [Output::Attach { head, subscription, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(head.frame("", ""), "MESSAGE\ndestination:/topic/conversations/7\n");
    let subscription = *subscription;
    session.frame("UNSUBSCRIBE\ndestination:/topic/conversations/7\nreceipt: u\n\n\0");
    session.input(Input::Detaching { subscription, answers: 1 });
    assert_eq!(receipts(&session.event(Event::Detached { subscription })), ["u"]);
}

#[tokio::test(start_paused = true)]
async fn ids_that_are_too_long_are_refused_by_the_name_of_their_header() {
    let long = "x".repeat(101);
    for (frame, name) in [
        (format!("SUBSCRIBE\nid:{long}\ndestination:/user/queue/events\nreceipt:r\n\n\0"), "id"),
        (format!("BEGIN\ntransaction:{long}\nreceipt:r\n\n\0"), "transaction"),
        (format!("SUBSCRIBE\nid:1\ndestination:/user/queue/events\nreceipt:{long}\n\n\0"), "receipt"),
    ] {
        let outputs = Driven::open().frame(&frame);
        assert_eq!(ended(&outputs), (Some("protocol_error"), 4400));
        assert!(one_written(&outputs).contains(&format!("the header {name} is longer than 100 bytes")));
        let receipt = if name == "receipt" { &*long } else { "r" };
        assert_eq!(header(one_written(&outputs), "receipt-id"), Some(receipt));
    }
}
