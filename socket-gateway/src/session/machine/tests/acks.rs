use super::*;

impl Driven {
    /// A session with a subscription `a` to conversation 7, number 2, that has got 10 to 14.
    fn acknowledging(mode: &str, version: Version) -> Self {
        let mut session = Self::listening_as(version);
        session.frame(&format!("SUBSCRIBE\nid:a\ndestination:/topic/conversations/7\nack:{mode}\n\n\0"));
        session.got(2, [(7, 10), (7, 11), (7, 12), (7, 13), (7, 14)]);
        session
    }

    fn got<const N: usize>(&mut self, subscription: u32, messages: [(i64, i64); N]) {
        for (conversation, seq) in messages {
            assert!(self.event(Event::Delivered { subscription, conversation, seq }).is_empty());
        }
    }

    fn ack(&mut self, id: &str) -> Vec<Output> {
        self.frame(&format!("ACK\nid:{id}\nreceipt:{id}\n\n\0"))
    }
}

/// What is reported to core: conversation, seq, and the number that the answer has.
fn reported(outputs: &[Output]) -> Vec<(i64, i64, u64)> {
    let delivered = outputs.iter().filter_map(|output| match output {
        Output::Position { no, conversation, kind: AckKind::Delivered, seq, epoch: 0 } => {
            Some((*conversation, *seq, *no))
        }
        _ => None,
    });
    delivered.collect()
}

fn positions(outputs: &[Output]) -> Vec<(i64, i64)> {
    reported(outputs).into_iter().map(|(conversation, seq, _)| (conversation, seq)).collect()
}

#[tokio::test(start_paused = true)]
async fn messages_have_an_ack_header_where_the_mode_asks_for_it() {
    for (mode, ack) in [("auto", None), ("client", Some("1-")), ("client-individual", Some("1-"))] {
        let mut session = Driven::open();
        let frame = format!("SUBSCRIBE\nid:a\ndestination:/topic/conversations/7\nack:{mode}\n\n\0");
        let outputs = session.frame(&frame);
        let [Output::Attach { head, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        let message = head.frame("", "message-id:7-12\n\n{}\0");
        assert_eq!(header(&message, "ack"), ack.map(|no| format!("{no}7-12")).as_deref(), "{mode}");
    }
    let mut session = Driven::open();
    session.frame("SUBSCRIBE\nid:e\ndestination:/user/queue/errors\nack:client\n\n\0");
    let outputs = session.frame("SEND\ndestination:/app/nothing\n\n{}\0");
    let id = header(one_written(&outputs), "ack").unwrap().to_owned();
    assert_eq!(id, format!("1-{}", header(one_written(&outputs), "message-id").unwrap()));
    assert_eq!(receipts(&session.ack(&id)), [id]);
}

#[tokio::test(start_paused = true)]
async fn a_cumulative_ack_reports_everything_up_to_it() {
    let mut session = Driven::acknowledging("client", Version::V1_2);
    let outputs = session.ack("2-7-12");
    assert_eq!((positions(&outputs), receipts(&outputs)), (vec![(7, 12)], vec!["2-7-12"]));
    // Lower ones are acknowledged by it.
    let outputs = session.ack("2-7-11");
    assert_eq!((positions(&outputs), receipts(&outputs)), (vec![], vec!["2-7-11"]));
}

#[tokio::test(start_paused = true)]
async fn individual_acks_report_the_contiguous_prefix() {
    let mut session = Driven::acknowledging("client-individual", Version::V1_2);
    assert_eq!(positions(&session.ack("2-7-12")), []);
    let first = reported(&session.ack("2-7-10"));
    assert_eq!((first[0].0, first[0].1), (7, 10));
    session.event(Event::Done { no: first[0].2, result: Ok(()) });
    assert_eq!(positions(&session.ack("2-7-11")), [(7, 12)]);
}

#[tokio::test(start_paused = true)]
async fn one_report_of_a_conversation_is_in_flight_and_the_latest_wins() {
    let mut session = Driven::acknowledging("client", Version::V1_2);
    let first = reported(&session.ack("2-7-10"));
    for id in ["2-7-11", "2-7-12", "2-7-13"] {
        let outputs = session.ack(id);
        assert_eq!((positions(&outputs), receipts(&outputs)), (vec![], vec![id]));
    }
    let outputs = session.event(Event::Done { no: first[0].2, result: Ok(()) });
    let second = reported(&outputs);
    assert_eq!(positions(&outputs), [(7, 13)]);
    // While core is away it is tried again; what has come since goes along.
    let away = Err(Refusal::unavailable("core is away"));
    assert!(session.event(Event::Done { no: second[0].2, result: away }).is_empty());
    assert_eq!(positions(&session.ack("2-7-14")), [(7, 14)]);
    let mut gone = Driven::acknowledging("client", Version::V1_2);
    let no = reported(&gone.ack("2-7-10"))[0].2;
    gone.event(Event::Done { no, result: Err(Refusal::unavailable("core is away")) });
    assert_eq!(positions(&gone.after(Duration::from_secs(1))), [(7, 10)]);
    // Who is no member any more has no position; that is no reason to end.
    let mut left = Driven::acknowledging("client", Version::V1_2);
    let no = reported(&left.ack("2-7-10"))[0].2;
    assert!(left.event(Event::Done { no, result: Err(Refusal::new(Code::NotAMember, "left")) }).is_empty());
    assert!(left.after(Duration::from_secs(2)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn on_the_users_queue_an_ack_covers_what_was_sent_before_it_of_every_conversation() {
    let mut session = Driven::listening();
    session.frame("SUBSCRIBE\nid:q\ndestination:/user/queue/events\nack:client\n\n\0");
    session.got(2, [(7, 10), (8, 3), (7, 11), (9, 1), (8, 4)]);
    assert_eq!(positions(&session.ack("2-7-11")), [(7, 11), (8, 3)]);
    assert_eq!(positions(&session.ack("2-8-4")), [(9, 1)], "8 is in flight");
}

#[tokio::test(start_paused = true)]
async fn each_version_acknowledges_by_its_own_headers() {
    let mut session = Driven::acknowledging("client", Version::V1_1);
    assert_eq!(positions(&session.frame("ACK\nmessage-id:7-11\nsubscription:a\n\n\0")), [(7, 11)]);
    let mut session = Driven::acknowledging("client", Version::V1_0);
    assert_eq!(positions(&session.frame("ACK\nmessage-id: 7-11\n\n\0")), [(7, 11)]);
    let mut unnamed = Driven::listening_as(Version::V1_0);
    unnamed.frame("SUBSCRIBE\ndestination: /topic/conversations/7\nack: client\n\n\0");
    unnamed.got(2, [(7, 1)]);
    assert_eq!(positions(&unnamed.frame("ACK\nmessage-id:7-1\n\n\0")), [(7, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_ack_of_what_was_never_sent_is_an_error_with_its_receipt() {
    let cases = [
        (Version::V1_2, "id:2-7-15", "was never sent"),
        (Version::V1_2, "id:2-7-9", "was never sent"),
        (Version::V1_2, "id:2-8-10", "was never sent"),
        (Version::V1_2, "id:9-7-10", "no such subscription"),
        (Version::V1_2, "id:1-e-1", "has ack:auto"),
        (Version::V1_2, "id:nonsense", "ack header"),
        (Version::V1_2, "id:+2-7-10", "ack header"),
        (Version::V1_2, "id:2-7", "no message"),
        (Version::V1_2, "id:2-7-010", "no message"),
        (Version::V1_2, "id:", "ack header"),
        (Version::V1_1, "message-id:7-15\nsubscription:a", "was never sent"),
        (Version::V1_1, "message-id:7-10\nsubscription:b", "no subscription"),
        (Version::V1_1, "message-id:7-10\nsubscription:e", "has ack:auto"),
        (Version::V1_0, "message-id:7-15", "was never sent"),
        (Version::V1_0, "message-id:x", "no message"),
    ];
    for (version, headers, why) in cases {
        let mut session = Driven::acknowledging("client", version);
        let outputs = session.frame(&format!("ACK\n{headers}\nreceipt:r\n\n\0"));
        assert_eq!(ended(&outputs), (Some("protocol_error"), 4400), "{headers}");
        let error = one_written(&outputs);
        assert!(header(error, "receipt-id") == Some("r") && error.contains(why), "{headers}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_without_a_place_in_the_conversation_are_acknowledged_to_no_effect() {
    let mut session = Driven::acknowledging("client", Version::V1_2);
    let outputs = session.ack("2-u-0197f1c2-0000-7000-8000-000000000000");
    assert_eq!((positions(&outputs), receipts(&outputs).len()), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn nacks_are_counted_receipted_and_leave_the_message_unacknowledged() {
    let mut session = Driven::acknowledging("client-individual", Version::V1_2);
    let outputs = session.frame("NACK\nid:2-7-10\nreceipt:n\n\n\0");
    assert_eq!((receipts(&outputs), session.machine.metrics.nacks.get()), (vec!["n"], 1));
    assert_eq!(positions(&session.ack("2-7-11")), []);
    assert_eq!(positions(&session.ack("2-7-10")), [(7, 11)]);
    let unknown = session.frame("NACK\nid:2-7-99\nreceipt:n\n\n\0");
    assert_eq!(ended(&unknown), (Some("protocol_error"), 4400));
}

#[tokio::test(start_paused = true)]
async fn acks_in_a_transaction_count_when_it_is_committed() {
    let mut session = Driven::acknowledging("client", Version::V1_2);
    session.frame("BEGIN\ntransaction:t\n\n\0");
    assert!(session.frame("ACK\nid:2-7-11\ntransaction:t\nreceipt:a\n\n\0").is_empty());
    assert!(session.frame("NACK\nid:2-7-12\ntransaction:t\nreceipt:n\n\n\0").is_empty());
    assert_eq!(session.machine.metrics.nacks.get(), 0);
    let outputs = session.frame("COMMIT\ntransaction:t\nreceipt:c\n\n\0");
    assert_eq!((positions(&outputs), receipts(&outputs)), (vec![(7, 11)], vec!["a", "n", "c"]));
    assert_eq!(session.machine.metrics.nacks.get(), 1);
    session.frame("BEGIN\ntransaction:t\n\n\0");
    session.frame("ACK\nid:2-7-14\ntransaction:t\n\n\0");
    assert!(session.frame("ABORT\ntransaction:t\n\n\0").is_empty());
}

#[tokio::test(start_paused = true)]
async fn gaps_between_acknowledged_messages_are_bounded() {
    let mut session = Driven::listening();
    session.frame("SUBSCRIBE\nid:a\ndestination:/topic/conversations/7\nack:client-individual\n\n\0");
    session.got(2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(|seq| (7, seq)));
    for id in ["2-7-2", "2-7-4", "2-7-6"] {
        assert_eq!(receipts(&session.ack(id)), [id]);
    }
    let outputs = session.ack("2-7-8");
    assert_eq!(refused(&outputs), "too_many_unacknowledged");
    assert_eq!(header(one_written(&outputs), "receipt-id"), Some("2-7-8"));
    assert_eq!(positions(&session.ack("2-7-1")), [(7, 2)]);
    assert_eq!(receipts(&session.ack("2-7-8")), ["2-7-8"]);
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_crosses_the_end_of_its_subscription_is_no_breach() {
    let mut session = Driven::acknowledging("client", Version::V1_2);
    session.frame("UNSUBSCRIBE\nid:a\n\n\0");
    assert_eq!(receipts(&session.ack("2-7-12")), ["2-7-12"]);
    let mut session = Driven::acknowledging("client", Version::V1_1);
    session.event(Event::Ended { subscription: 2, conversation: 7, at_seq: 14, removed: true });
    let outputs = session.frame("ACK\nmessage-id:7-12\nsubscription:a\nreceipt:r\n\n\0");
    assert_eq!(receipts(&outputs), ["r"]);
    assert_eq!(receipts(&session.frame("UNSUBSCRIBE\nid:a\nreceipt:u\n\n\0")), ["u"]);
    let outputs = session.frame("ACK\nmessage-id:7-12\nsubscription:a\nreceipt:r\n\n\0");
    assert_eq!(receipts(&outputs), ["r"]);
    assert_eq!(ended(&session.frame("UNSUBSCRIBE\nid:a\n\n\0")), (Some("protocol_error"), 4400));
}

#[tokio::test(start_paused = true)]
async fn disconnect_waits_for_positions_on_their_way_and_the_end_sends_the_rest() {
    let mut session = Driven::acknowledging("client", Version::V1_2);
    let first = reported(&session.ack("2-7-10"));
    session.ack("2-7-12");
    assert!(session.frame("DISCONNECT\nreceipt:d\n\n\0").is_empty());
    let second = reported(&session.event(Event::Done { no: first[0].2, result: Ok(()) }));
    assert_eq!((second[0].0, second[0].1), (7, 12));
    assert_eq!(receipts(&session.event(Event::Done { no: second[0].2, result: Ok(()) })), ["d"]);

    let mut breaking = Driven::acknowledging("client", Version::V1_2);
    breaking.ack("2-7-10");
    breaking.ack("2-7-12");
    assert_eq!(positions(&breaking.frame("UNSUBSCRIBE\nid:nothing\n\n\0")), [(7, 12)]);
}
