use super::*;

const TO: &str = "destination:/app/conversations/7/messages";

fn send(more: &str) -> String {
    format!("SEND\n{TO}\n{more}\n{{\"body\":\"hi\"}}\0")
}

impl Driven {
    /// Frames that are taken without an answer.
    fn quietly<'a>(&mut self, frames: impl IntoIterator<Item = &'a str>) {
        for frame in frames {
            let outputs = self.frame(frame);
            assert!(outputs.is_empty(), "{frame}: {outputs:?}");
        }
    }

    fn committed(&mut self, no: u64, seq: i64) -> Vec<Output> {
        self.event(Event::Sent { conversation: 7, no, result: created(seq) })
    }
}

#[tokio::test(start_paused = true)]
async fn sends_are_held_until_commit_and_its_receipt_comes_after_theirs() {
    let mut session = Driven::listening();
    assert_eq!(receipts(&session.frame("BEGIN\ntransaction:t\nreceipt:b\n\n\0")), ["b"]);
    session.quietly([&*send("transaction:t\nreceipt:1\n"), &*send("transaction:t\nreceipt:2\n")]);
    let outputs = session.frame("COMMIT\ntransaction:t\nreceipt:c\n\n\0");
    let sent = submitted(&outputs);
    assert_eq!((sent.len(), receipts(&outputs).len()), (2, 0));
    assert_eq!(receipts(&session.committed(sent[0], 11)), ["1"]);
    assert_eq!(receipts(&session.committed(sent[1], 12)), ["2", "c"]);
    // It is over.
    assert_eq!(ended(&session.frame("COMMIT\ntransaction:t\n\n\0")), (Some("protocol_error"), 4400));
}

#[tokio::test(start_paused = true)]
async fn an_empty_transaction_is_committed_at_once() {
    let mut session = Driven::listening();
    session.quietly(["BEGIN\ntransaction:t\n\n\0"]);
    assert_eq!(receipts(&session.frame("COMMIT\ntransaction:t\nreceipt:c\n\n\0")), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn abort_and_disconnect_drop_what_is_held() {
    let mut session = Driven::listening();
    session.quietly(["BEGIN\ntransaction:t\n\n\0", &send("transaction:t\nreceipt:1\n")]);
    assert_eq!(receipts(&session.frame("ABORT\ntransaction:t\nreceipt:a\n\n\0")), ["a"]);
    session.quietly(["BEGIN\ntransaction:t\n\n\0", &send("transaction:t\nreceipt:1\n")]);
    let outputs = session.frame("DISCONNECT\nreceipt:d\n\n\0");
    assert_eq!((receipts(&outputs), submitted(&outputs)), (vec!["d"], vec![]));
    assert_eq!(ended(&outputs), (None, close_code::NORMAL));
}

#[tokio::test(start_paused = true)]
async fn transactions_are_apart_from_each_other_and_from_other_sends() {
    let mut session = Driven::listening();
    session.quietly(["BEGIN\ntransaction:a\n\n\0", "BEGIN\ntransaction:b\n\n\0"]);
    session.quietly([&*send("transaction:a\nreceipt:a1\n"), &*send("transaction:b\nreceipt:b1\n")]);
    let alone = submitted(&session.frame(&send("receipt:alone\n")));
    assert_eq!(receipts(&session.committed(alone[0], 1)), ["alone"]);
    let b = submitted(&session.frame("COMMIT\ntransaction:b\n\n\0"));
    assert_eq!(receipts(&session.committed(b[0], 2)), ["b1"]);
    assert_eq!(submitted(&session.frame("COMMIT\ntransaction:a\n\n\0")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn unknown_and_doubled_transactions_are_errors_with_the_receipt_of_the_culprit() {
    for frame in [
        "COMMIT\ntransaction:u\nreceipt:r\n\n\0",
        "ABORT\ntransaction:u\nreceipt:r\n\n\0",
        "BEGIN\ntransaction:t\nreceipt:r\n\n\0",
        "ACK\nid:1-u-x\ntransaction:u\nreceipt:r\n\n\0",
        "NACK\nid:1-u-x\ntransaction:u\nreceipt:r\n\n\0",
        &send("transaction:u\nreceipt:r\n"),
    ] {
        let mut session = Driven::listening();
        session.quietly(["BEGIN\ntransaction:t\n\n\0"]);
        let outputs = session.frame(frame);
        assert_eq!(ended(&outputs), (Some("protocol_error"), 4400), "{frame}");
        let error = one_written(&outputs);
        assert_eq!(header(error, "receipt-id"), Some("r"), "{frame}");
        assert!(error.contains("transaction"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_core_refuses_one_the_others_stand_and_commit_has_no_receipt() {
    let mut session = Driven::listening();
    session.quietly(["BEGIN\ntransaction:t\n\n\0"]);
    session.quietly([&*send("transaction:t\nreceipt:1\n"), &*send("transaction:t\nreceipt:2\n")]);
    let sent = submitted(&session.frame("COMMIT\ntransaction:t\nreceipt:c\n\n\0"));
    let result = Err(Refusal::new(Code::Conflict, "another content"));
    let outputs = session.event(Event::Sent { conversation: 7, no: sent[0], result });
    assert_eq!((refused(&outputs), header(one_written(&outputs), "receipt-id")), ("conflict", Some("1")));
    let outputs = session.committed(sent[1], 12);
    assert_eq!(receipts(&outputs), ["2"]);
    let refusal = written(&outputs)[1];
    assert_eq!((header(refusal, "code"), header(refusal, "receipt-id")), (Some("conflict"), Some("c")));
    assert!(refusal.contains("1 of 2 frames"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_refused_before_commit_takes_the_whole_transaction_with_it() {
    let mut session = Driven::listening();
    let bad = [
        (format!("SEND\n{TO}\ntransaction:t\nreceipt:2\n\nno JSON\0"), "invalid_body"),
        ("SEND\ndestination:/app/nothing\ntransaction:t\nreceipt:2\n\n{}\0".to_owned(), "invalid_destination"),
        ("SEND\ndestination:/app/token\ntransaction:t\nreceipt:2\n\n{}\0".to_owned(), "invalid_destination"),
    ];
    for (bad, code) in bad {
        session.now += Duration::from_secs(1);
        session.quietly(["BEGIN\ntransaction:t\n\n\0", &send("transaction:t\nreceipt:1\n")]);
        let outputs = session.frame(&bad);
        assert_eq!((refused(&outputs), header(one_written(&outputs), "receipt-id")), (code, Some("2")));
        session.quietly([&*send("transaction:t\nreceipt:3\n")]);
        let outputs = session.frame("COMMIT\ntransaction:t\nreceipt:c\n\n\0");
        assert_eq!((refused(&outputs), header(one_written(&outputs), "receipt-id")), (code, Some("c")));
        assert!(one_written(&outputs).contains("nothing of the transaction"), "{outputs:?}");
        assert!(submitted(&outputs).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_for_a_refused_frame_without_a_receipt_names_the_commit() {
    let mut session = Driven::open();
    session.quietly(["BEGIN\ntransaction:t\n\n\0", &send("transaction:t\n")]);
    let sent = submitted(&session.frame("COMMIT\ntransaction:t\nreceipt:c\n\n\0"));
    let result = Err(Refusal::new(Code::NotAMember, "no member"));
    let outputs = session.event(Event::Sent { conversation: 7, no: sent[0], result });
    assert_eq!(ended(&outputs), (Some("not_a_member"), 4400));
    assert_eq!(header(one_written(&outputs), "receipt-id"), Some("c"));
}

#[tokio::test(start_paused = true)]
async fn transactions_and_what_they_hold_are_bounded() {
    let mut session = Driven::listening();
    session.quietly(["BEGIN\ntransaction:a\n\n\0", "BEGIN\ntransaction:b\n\n\0"]);
    let outputs = session.frame("BEGIN\ntransaction:c\nreceipt:r\n\n\0");
    assert_eq!((refused(&outputs), header(one_written(&outputs), "receipt-id")), ("too_many_transactions", Some("r")));
    // Frames, over all transactions.
    for id in ["a", "b", "a", "b"] {
        session.quietly([&*send(&format!("transaction:{id}\n"))]);
    }
    session.now += Duration::from_secs(1);
    let outputs = session.frame(&send("transaction:a\nreceipt:r\n"));
    assert_eq!(refused(&outputs), "too_many_transactions");
    assert!(one_written(&outputs).contains("4 frames"));
    // What a lost transaction held makes room.
    session.quietly([&*send("transaction:b\n"), "ABORT\ntransaction:b\n\n\0", "ABORT\ntransaction:a\n\n\0"]);
    // Bytes.
    session.now += Duration::from_secs(1);
    session.quietly(["BEGIN\ntransaction:a\n\n\0"]);
    let large = |receipt: &str| {
        let text = "x".repeat(900);
        format!("SEND\n{TO}\ntransaction:a\nreceipt:{receipt}\n\n{{\"body\":\"{text}\"}}\0")
    };
    session.quietly([&*large("1")]);
    let outputs = session.frame(&large("2"));
    assert_eq!(refused(&outputs), "too_many_transactions");
    assert!(one_written(&outputs).contains("2000 bytes"));
}

#[tokio::test(start_paused = true)]
async fn a_commit_sends_no_more_at_once_than_may_be_in_flight_and_nothing_overtakes_it() {
    let mut session = Driven::listening();
    session.quietly(["BEGIN\ntransaction:t\n\n\0"]);
    for receipt in 1..=4 {
        session.quietly([&*send(&format!("transaction:t\nreceipt:{receipt}\n"))]);
    }
    let first = submitted(&session.frame("COMMIT\ntransaction:t\nreceipt:c\n\n\0"));
    assert_eq!((first.len(), session.machine.wants_input()), (2, false));
    let outputs = session.committed(first[0], 1);
    let third = submitted(&outputs);
    assert_eq!((receipts(&outputs), third.len(), session.machine.wants_input()), (vec!["1"], 1, false));
    let fourth = submitted(&session.committed(first[1], 2));
    assert_eq!(receipts(&session.committed(third[0], 3)), ["3"]);
    assert!(session.machine.wants_input());
    assert_eq!(receipts(&session.committed(fourth[0], 4)), ["4", "c"]);
}

#[tokio::test(start_paused = true)]
async fn held_sends_count_for_the_rate_when_they_come() {
    let mut session = Driven::listening();
    session.quietly(["BEGIN\ntransaction:t\n\n\0"]);
    for _ in 0..4 {
        session.quietly([&*send("transaction:t\n")]);
    }
    assert_eq!(refused(&session.frame(&send("transaction:t\n"))), "rate_limited");
    session.now += Duration::from_millis(100);
    session.quietly(["ABORT\ntransaction:t\n\n\0"]);
    assert_eq!(submitted(&session.frame(&send(""))).len(), 1);
    assert_eq!(refused(&session.frame(&send(""))), "rate_limited");
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_behind_a_commit_waits_for_it() {
    let mut session = Driven::listening();
    session.quietly(["BEGIN\ntransaction:t\n\n\0", &send("transaction:t\nreceipt:1\n")]);
    let sent = submitted(&session.frame("COMMIT\ntransaction:t\nreceipt:c\n\n\0"));
    session.quietly(["DISCONNECT\nreceipt:d\n\n\0"]);
    assert_eq!(receipts(&session.committed(sent[0], 1)), ["1", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn typing_reading_and_resuming_are_held_too() {
    let mut session = Driven::listening();
    session.quietly([
        "BEGIN\ntransaction:t\n\n\0",
        "SEND\ndestination:/app/conversations/7/typing\ntransaction:t\nreceipt:1\n\n{}\0",
        "SEND\ndestination:/app/conversations/7/read\ntransaction:t\nreceipt:2\n\n{\"seq\":5}\0",
        "SEND\ndestination:/app/resume\ntransaction:t\nreceipt:3\n\n{}\0",
    ]);
    let outputs = session.frame("COMMIT\ntransaction:t\nreceipt:c\n\n\0");
    let [Output::Typing { no: typing, .. }, Output::Position { no: read, kind: AckKind::Read, seq: 5, .. }] =
        outputs[..]
    else {
        panic!("{outputs:?}")
    };
    let outputs = session.event(Event::Done { no: read, result: Ok(()) });
    assert_eq!(receipts(&outputs), ["2", "3"]);
    assert_eq!(receipts(&session.event(Event::Done { no: typing, result: Ok(()) })), ["1", "c"]);
}
