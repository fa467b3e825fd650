use proto::rpc::v1::CreateMessageResponse;

use super::*;
use crate::{
    disconnect::close_code,
    hub::{Membership, UserState},
    session::lane::Retry,
    stomp::{Decoder, Limits, Malformed},
};

mod acks;
mod golden;
mod transactions;
mod versions;

const LIMITS: Limits = Limits { line: 8192, headers: 64, head: 32768, body: 65536 };

fn settings() -> Settings {
    Settings {
        connect_timeout: Duration::from_secs(10),
        heart_beat_send: Duration::from_secs(10),
        heart_beat_receive: Duration::from_secs(10),
        heart_beat_tolerance: Duration::from_secs(5),
        retry: Retry {
            deadline: Duration::from_secs(10),
            base: Duration::from_millis(50),
            max: Duration::from_secs(1),
        },
        typing_interval: Duration::from_secs(2),
        subscriptions: 3,
        resumed_conversations: 10,
        sends_in_flight: 2,
        sends_per_second: 10,
        sends_burst: 4,
        subscribes_per_second: 4,
        subscribes_burst: 8,
        message_body: 1000,
        id: 100,
        held: held::Limits { transactions: 2, frames: 4, bytes: 2000 },
        unacknowledged: 3,
        connections_per_user: 1,
        outgoing: 1 << 20,
        drain_sends: Duration::from_secs(10),
    }
}

/// A machine, and the time.
struct Driven {
    machine: Machine,
    now: Instant,
}

fn verified(user: i64) -> Verified {
    let expires_in = Duration::from_secs(600);
    Verified { user, expires_in, may_read: true, may_write: true, admitted: true }
}

impl Driven {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
        let now = Instant::now();
        Self { machine: Machine::new("s1".into(), Arc::new(settings), metrics, now, None), now }
    }

    /// A session of user 5 after CONNECTED.
    fn open() -> Self {
        Self::open_as(Version::V1_2)
    }

    /// The same, in that version.
    fn open_as(version: Version) -> Self {
        let mut driven = Self::new();
        driven.frame(&format!("CONNECT\naccept-version:{}\nAuthorization:Bearer t\n\n\0", version.as_str()));
        driven.input(Input::Verified(Ok(verified(5))));
        driven
    }

    /// The same, that listens to its refusals.
    fn listening() -> Self {
        Self::listening_as(Version::V1_2)
    }

    fn listening_as(version: Version) -> Self {
        let mut driven = Self::open_as(version);
        driven.frame("SUBSCRIBE\nid:e\ndestination:/user/queue/errors\n\n\0");
        driven
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(input, self.now);
        self.machine.take_outputs()
    }

    fn frame(&mut self, text: &str) -> Vec<Output> {
        let mut decoder = Decoder::new(LIMITS);
        decoder.set_version(self.machine.version);
        let frame = decoder.decode(&mut text.as_bytes().into()).unwrap().unwrap();
        self.input(Input::Frame(frame))
    }

    fn event(&mut self, event: Event) -> Vec<Output> {
        self.input(Input::Event(event))
    }

    fn after(&mut self, time: Duration) -> Vec<Output> {
        self.now += time;
        self.input(Input::Tick)
    }
}

fn written(outputs: &[Output]) -> Vec<&str> {
    outputs
        .iter()
        .filter_map(|output| if let Output::Write(frame) = output { Some(frame.as_str()) } else { None })
        .collect()
}

/// The receipts that were written.
fn receipts(outputs: &[Output]) -> Vec<&str> {
    written(outputs)
        .into_iter()
        .filter(|frame| frame.starts_with("RECEIPT\n"))
        .filter_map(|frame| header(frame, "receipt-id"))
        .collect()
}

fn one_written(outputs: &[Output]) -> &str {
    let written = written(outputs);
    assert_eq!(written.len(), 1, "{outputs:?}");
    written[0]
}

fn header<'a>(frame: &'a str, name: &str) -> Option<&'a str> {
    let head = frame.split("\n\n").next()?;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// The ERROR's code, and the close code.
fn ended(outputs: &[Output]) -> (Option<&str>, u16) {
    let Some(Output::Disconnect(end)) = outputs.last() else { panic!("expected the end: {outputs:?}") };
    let error = written(outputs).into_iter().find(|frame| frame.starts_with("ERROR\n"));
    (error.and_then(|frame| header(frame, "code")), end.close_code)
}

/// The refusal's code; the session goes on.
fn refused(outputs: &[Output]) -> &str {
    let frame = one_written(outputs);
    assert!(frame.starts_with("MESSAGE\nsubscription:e\ndestination:/user/queue/errors\n"), "{frame}");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Disconnect(_))));
    header(frame, "code").unwrap()
}

const SEND: &str = "SEND\ndestination:/app/conversations/7/messages\nreceipt:r\n\n{\"body\":\"hi\"}\0";

#[tokio::test(start_paused = true)]
async fn a_good_token_is_answered_with_connected() {
    let mut session = Driven::new();
    let asked = session.frame("STOMP\naccept-version:1.1,1.2\npasscode:t\nheart-beat:5000,20000\ndevice-id:d\n\n\0");
    assert!(matches!(&asked[..], [Output::Verify { token }] if token == "t"));
    let outputs = session.input(Input::Verified(Ok(verified(5))));
    assert!(matches!(&outputs[0], Output::Opened { user: 5, version: Version::V1_2, device_id: Some(d) } if d == "d"));
    let connected = one_written(&outputs);
    let named = ["version", "session", "user-name", "heart-beat"].map(|name| header(connected, name).unwrap());
    assert_eq!(named, ["1.2", "s1", "5", "10000,10000"]);
    assert!(header(connected, "server").unwrap().starts_with("switchboard/"));
    // The client asked to get one each 20 s, and can send each 5 s where this server wants one each 10.
    assert_eq!(session.machine.deadline().unwrap() - session.now, Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_connect_properly_is_told_why() {
    assert_eq!(ended(&Driven::new().after(Duration::from_secs(10))), (Some("unauthenticated"), 4001));
    assert_eq!(ended(&Driven::new().frame(SEND)), (Some("protocol_error"), 4400));
    let no_token = Driven::new().frame("CONNECT\naccept-version:1.2\n\n\0");
    assert_eq!(ended(&no_token), (Some("unauthenticated"), 4001));
    let no_version = Driven::new().frame("CONNECT\naccept-version:3.0\npasscode:t\n\n\0");
    assert_eq!(ended(&no_version), (Some("protocol_error"), 4400));
    assert_eq!(header(one_written(&no_version), "version"), Some("1.0,1.1,1.2"));
    for (error, code) in [
        (TokenError::Expired, "token_expired"),
        (TokenError::BadSignature, "unauthenticated"),
        (TokenError::WrongIssuer, "unauthenticated"),
        (TokenError::Malformed("expected the algorithm RS256"), "unauthenticated"),
    ] {
        let mut session = Driven::new();
        session.frame("CONNECT\naccept-version:1.2\npasscode:t\n\n\0");
        assert_eq!(ended(&session.input(Input::Verified(Err(error)))), (Some(code), close_code::UNAUTHENTICATED));
    }
    let mut session = Driven::new();
    session.frame("CONNECT\naccept-version:1.2\npasscode:t\n\n\0");
    let outputs = session.input(Input::Verified(Ok(Verified { admitted: false, ..verified(5) })));
    assert_eq!(ended(&outputs), (Some("too_many_connections"), 4029));
}

#[tokio::test(start_paused = true)]
async fn a_breach_of_the_protocol_ends_the_session_with_the_receipt_of_the_culprit() {
    let breaches = [
        "CONNECT\naccept-version:1.2\npasscode:t\nreceipt:r\n\n\0",
        "SUBSCRIBE\ndestination:/user/queue/events\nreceipt:r\n\n\0",
        "SUBSCRIBE\nid:e\ndestination:/user/queue/events\nreceipt:r\n\n\0",
        "UNSUBSCRIBE\nid:unknown\nreceipt:r\n\n\0",
        "SEND\nreceipt:r\n\n{}\0",
        "SEND\ndestination:/app/conversations/7/messages\ntransaction:t\nreceipt:r\n\n{}\0",
        "ACK\nid:1\nreceipt:r\n\n\0",
        "BEGIN\nreceipt:r\n\n\0",
        "COMMIT\ntransaction:t\nreceipt:r\n\n\0",
        "ABORT\ntransaction:t\nreceipt:r\n\n\0",
        "SUBSCRIBE\nid:x\ndestination:/user/queue/events\nack:no\nreceipt:r\n\n\0",
        "SUBSCRIBE\nid:x\ndestination:/user/queue/events\nreceipt:r\n\nbody\0",
        "RECEIPT\nreceipt:r\n\n\0",
    ];
    for breach in breaches {
        let outputs = Driven::listening().frame(breach);
        assert_eq!(ended(&outputs), (Some("protocol_error"), 4400), "{breach}");
        let receipt = header(one_written(&outputs), "receipt-id");
        assert_eq!(receipt, Some("r"), "{breach}");
    }
    let error = DecodeError { malformed: Malformed::BodyTooLarge(10), receipt: Some("r".into()) };
    let outputs = Driven::open().input(Input::Undecodable(error));
    assert_eq!(header(one_written(&outputs), "receipt-id"), Some("r"));
    assert_eq!(ended(&outputs), (Some("body_too_large"), 4400));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_on_the_errors_queue_and_the_session_goes_on() {
    let mut session = Driven::listening();
    let send =
        |destination: &str, extra: &str, body: &str| format!("SEND\ndestination:{destination}\n{extra}\n{body}\0");
    let messages = "/app/conversations/7/messages";
    let cases = [
        (send("/app/nothing", "", "{}"), "invalid_destination"),
        (send("/app/conversations/x/messages", "", "{}"), "invalid_destination"),
        (send(messages, "", "hello"), "invalid_body"),
        (send(messages, "", "{}"), "invalid_body"),
        (send(messages, "", r#"{"body":"x","sender_id":"6"}"#), "spoofed_sender"),
        (send(messages, "sender:6\n", r#"{"body":"x"}"#), "spoofed_sender"),
        (send(messages, "", &format!(r#"{{"body":"{}"}}"#, "x".repeat(1000))), "body_too_large"),
        ("SUBSCRIBE\nid:1\ndestination:/topic/nothing\n\n\0".to_owned(), "invalid_destination"),
        ("SUBSCRIBE\nid:1\ndestination:/topic/conversations/no\n\n\0".to_owned(), "invalid_destination"),
    ];
    for (frame, code) in cases {
        session.now += Duration::from_secs(1);
        assert_eq!(refused(&session.frame(&frame)), code, "{frame}");
    }
    session.frame("SUBSCRIBE\nid:1\ndestination:/topic/conversations/1\n\n\0");
    session.frame("SUBSCRIBE\nid:2\ndestination:/topic/conversations/2\n\n\0");
    let one_more = session.frame("SUBSCRIBE\nid:3\ndestination:/topic/conversations/3\nreceipt:r\n\n\0");
    assert_eq!(refused(&one_more), "too_many_subscriptions");
    let named = ["receipt-id", "subscription-id"].map(|name| header(one_written(&one_more), name));
    assert_eq!(named, [Some("r"), Some("3")]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_nobody_listens_to_is_an_error_and_the_end() {
    let outputs = Driven::open().frame("SEND\ndestination:/app/nothing\nreceipt:r\n\n{}\0");
    assert_eq!(ended(&outputs), (Some("invalid_destination"), 4400));
    assert_eq!(header(one_written(&outputs), "receipt-id"), Some("r"));
}

#[tokio::test(start_paused = true)]
async fn a_token_without_the_scope_can_neither_write_nor_read() {
    let mut session = Driven::new();
    session.frame("CONNECT\naccept-version:1.2\npasscode:t\n\n\0");
    session.input(Input::Verified(Ok(Verified { may_write: false, ..verified(5) })));
    session.frame("SUBSCRIBE\nid:e\ndestination:/user/queue/errors\n\n\0");
    assert_eq!(refused(&session.frame(SEND)), "forbidden");
    session.machine.may_read = false;
    assert_eq!(refused(&session.frame("SUBSCRIBE\nid:1\ndestination:/topic/conversations/7\n\n\0")), "forbidden");
}

fn submitted(outputs: &[Output]) -> Vec<u64> {
    outputs
        .iter()
        .filter_map(|output| if let Output::Submit { submission, .. } = output { Some(submission.no) } else { None })
        .collect()
}

fn created(seq: i64) -> Result<CreateMessageResponse, Refusal> {
    Ok(CreateMessageResponse { message_id: 99, conversation_id: 7, seq, epoch: 1, ..CreateMessageResponse::default() })
}

#[tokio::test(start_paused = true)]
async fn a_send_is_receipted_when_it_is_committed() {
    let mut session = Driven::listening();
    let outputs = session.frame(SEND);
    let Output::Submit { conversation: 7, submission } = &outputs[0] else { panic!("{outputs:?}") };
    assert_eq!((submission.request.sender_id, submission.request.body.as_str()), (5, "hi"));
    assert!(!submission.request.client_message_id.is_empty());
    let no = submission.no;
    let outputs = session.event(Event::Sent { conversation: 7, no, result: created(12) });
    let receipt = one_written(&outputs);
    let named = ["receipt-id", "message-id", "message", "seq", "epoch", "conversation-id"];
    assert_eq!(named.map(|name| header(receipt, name).unwrap()), ["r", "7-12", "99", "12", "1", "7"]);

    let no = submitted(&session.frame(SEND))[0];
    let refusal = Refusal::new(Code::NotAMember, "no member");
    let outputs = session.event(Event::Sent { conversation: 7, no, result: Err(refusal) });
    assert_eq!(refused(&outputs), "not_a_member");
    let named = ["receipt-id", "conversation-id"].map(|name| header(one_written(&outputs), name));
    assert_eq!(named, [Some("r"), Some("7")]);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_not_read_while_too_much_is_in_flight_and_slowed_by_its_rate() {
    let mut session = Driven::listening();
    let first = submitted(&session.frame(SEND));
    assert!(session.machine.wants_input());
    let second = submitted(&session.frame(SEND));
    assert!(!session.machine.wants_input());
    for no in first.into_iter().chain(second) {
        session.event(Event::Sent { conversation: 7, no, result: created(1) });
    }
    assert!(session.machine.wants_input());
    session.frame(SEND);
    session.frame(SEND);
    let outputs = session.frame(SEND);
    assert_eq!(refused(&outputs), "rate_limited");
    assert!(one_written(&outputs).contains("\"retry_after_ms\":100"));
}

#[tokio::test(start_paused = true)]
async fn disconnect_is_receipted_after_the_sends_in_flight() {
    let mut session = Driven::listening();
    let no = submitted(&session.frame(SEND))[0];
    assert!(session.frame("DISCONNECT\nreceipt:bye\n\n\0").is_empty());
    assert!(!session.machine.wants_input());
    let outputs = session.event(Event::Sent { conversation: 7, no, result: created(1) });
    let receipts: Vec<_> = written(&outputs).into_iter().map(|frame| header(frame, "receipt-id").unwrap()).collect();
    assert_eq!(receipts, ["r", "bye"]);
    assert_eq!(ended(&outputs), (None, close_code::NORMAL));
}

#[tokio::test(start_paused = true)]
async fn disconnect_waits_for_the_receipts_of_subscriptions_but_not_for_ever() {
    let mut session = Driven::listening();
    let outputs = session.frame("SUBSCRIBE\nid:a\ndestination:/topic/conversations/7\nreceipt:s\n\n\0");
    let Output::Attach { subscription, .. } = outputs[0] else { panic!("{outputs:?}") };
    assert!(session.frame("DISCONNECT\nreceipt:bye\n\n\0").is_empty());
    let outputs = session.event(Event::Attached { subscription, conversation: 7, head: 1 });
    let receipts: Vec<_> = written(&outputs).into_iter().map(|frame| header(frame, "receipt-id").unwrap()).collect();
    assert_eq!(receipts, ["s", "bye"]);

    let mut stuck = Driven::listening();
    stuck.frame("SUBSCRIBE\nid:a\ndestination:/topic/conversations/7\nreceipt:s\n\n\0");
    stuck.frame("DISCONNECT\nreceipt:bye\n\n\0");
    let outputs = stuck.after(Duration::from_secs(10));
    assert_eq!(header(one_written(&outputs), "receipt-id"), Some("bye"));
    assert_eq!(ended(&outputs), (None, close_code::NORMAL));
}

#[tokio::test(start_paused = true)]
async fn a_draining_gateway_waits_for_sends_in_flight_and_then_says_going_away() {
    let mut session = Driven::listening();
    let no = submitted(&session.frame(SEND))[0];
    let at = session.now + Duration::from_secs(3);
    session.input(Input::Drain { at });
    assert!(session.machine.wants_input());
    assert!(session.after(Duration::from_secs(3)).is_empty());
    assert!(!session.machine.wants_input());
    let outputs = session.event(Event::Sent { conversation: 7, no, result: created(1) });
    assert_eq!(ended(&outputs), (None, close_code::GOING_AWAY));

    let mut stuck = Driven::listening();
    stuck.frame(SEND);
    stuck.input(Input::Drain { at: stuck.now });
    assert!(stuck.after(Duration::ZERO).is_empty());
    let outputs = stuck.after(Duration::from_secs(10));
    assert_eq!(ended(&outputs), (None, close_code::GOING_AWAY));
}

#[tokio::test(start_paused = true)]
async fn heart_beats_go_out_when_nothing_else_does_and_their_absence_ends_the_session() {
    let mut session = Driven::new();
    session.frame("CONNECT\naccept-version:1.2\npasscode:t\nheart-beat:10000,10000\n\n\0");
    session.input(Input::Verified(Ok(verified(5))));
    assert_eq!(one_written(&session.after(Duration::from_secs(10))), "\n");
    session.input(Input::Received);
    session.now += Duration::from_secs(9);
    session.input(Input::Wrote);
    assert!(session.after(Duration::from_secs(1)).is_empty());
    assert_eq!(ended(&session.after(Duration::from_secs(5))), (Some("protocol_error"), 4400));
}

#[tokio::test(start_paused = true)]
async fn heart_beats_are_not_missed_while_the_client_is_not_read() {
    let retry = Retry { deadline: Duration::from_secs(60), ..settings().retry };
    let mut session = Driven::with(Settings { retry, ..settings() });
    session.frame("CONNECT\naccept-version:1.2\npasscode:t\nheart-beat:10000,0\n\n\0");
    session.input(Input::Verified(Ok(verified(5))));
    let sent = [session.frame(SEND), session.frame(SEND)].map(|outputs| submitted(&outputs)[0]);
    assert!(!session.machine.wants_input());
    session.now += Duration::from_secs(16);
    for no in sent {
        session.event(Event::Sent { conversation: 7, no, result: created(1) });
    }
    assert!(session.machine.wants_input());
    assert!(session.after(Duration::ZERO).is_empty());
    // From then on they are due as ever.
    assert!(session.after(Duration::from_secs(14)).is_empty());
    assert_eq!(ended(&session.after(Duration::from_secs(1))), (Some("protocol_error"), 4400));
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_ends_the_session_unless_it_was_renewed() {
    let mut session = Driven::listening();
    session.now += Duration::from_secs(599);
    let outputs = session.frame("SEND\ndestination:/app/token\nreceipt:t\n\n{\"access_token\":\"new\"}\0");
    assert!(matches!(&outputs[..], [Output::Verify { token }] if token == "new"));
    assert_eq!(header(one_written(&session.input(Input::Verified(Ok(verified(5))))), "receipt-id"), Some("t"));
    assert!(session.after(Duration::from_secs(10)).is_empty());
    session.frame("SEND\ndestination:/app/token\n\n{\"access_token\":\"other\"}\0");
    assert_eq!(refused(&session.input(Input::Verified(Ok(verified(6))))), "spoofed_sender");
    session.frame("SEND\ndestination:/app/token\n\n{\"access_token\":\"bad\"}\0");
    assert_eq!(refused(&session.input(Input::Verified(Err(TokenError::BadSignature)))), "unauthenticated");
    assert_eq!(ended(&session.after(Duration::from_secs(590))), (Some("token_expired"), 4001));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_receipted_when_it_is_attached_and_may_be_refused_or_end() {
    let mut session = Driven::listening();
    let subscribe =
        "SUBSCRIBE\nid:a:b\ndestination:/topic/conversations/7\nreceipt:r\nafter-seq:4\nafter-epoch:1\n\n\0";
    let outputs = session.frame(&subscribe.replace("a:b", "a\\cb"));
    let [Output::Attach { subscription, conversation: 7, scope: Scope::Topic, start, head, .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(*start, Start::After { seq: 4, epoch: Some(1) });
    assert_eq!(head.frame("", ""), "MESSAGE\nsubscription:a\\cb\ndestination:/topic/conversations/7\n");
    let subscription = *subscription;
    let outputs = session.event(Event::Attached { subscription, conversation: 7, head: 1 });
    assert_eq!(header(one_written(&outputs), "receipt-id"), Some("r"));
    let outputs = session.event(Event::Ended { subscription, conversation: 7, at_seq: 9, removed: true });
    assert_eq!(refused(&outputs), "subscription_ended");

    let outputs = session.frame("SUBSCRIBE\nid:b\ndestination:/topic/conversations/8\nreceipt:s\n\n\0");
    let Output::Attach { subscription, .. } = outputs[0] else { panic!("{outputs:?}") };
    let refusal = Refusal::new(Code::NotAMember, "no member");
    let outputs = session.event(Event::Refused { subscription, conversation: 8, refusal });
    assert_eq!(refused(&outputs), "not_a_member");
    let named = ["receipt-id", "subscription-id", "conversation-id"].map(|name| header(one_written(&outputs), name));
    assert_eq!(named, [Some("s"), Some("b"), Some("8")]);
    assert_eq!(session.machine.subscriptions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn unsubscribe_is_receipted_when_nothing_more_comes() {
    let mut session = Driven::listening();
    session.frame("SUBSCRIBE\nid:a\ndestination:/topic/conversations/7\n\n\0");
    let outputs = session.frame("UNSUBSCRIBE\nid:a\nreceipt:u\n\n\0");
    let [Output::Detach { subscription, conversations }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(*conversations, [7]);
    let subscription = *subscription;
    assert!(session.input(Input::Detaching { subscription, answers: 1 }).is_empty());
    let outputs = session.event(Event::Detached { subscription });
    assert_eq!(header(one_written(&outputs), "receipt-id"), Some("u"));
}

#[tokio::test(start_paused = true)]
async fn an_unsubscribe_that_crosses_the_end_of_its_subscription_is_no_breach() {
    let mut session = Driven::listening();
    let outputs = session.frame("SUBSCRIBE\nid:a\ndestination:/topic/conversations/7\n\n\0");
    let Output::Attach { subscription, .. } = outputs[0] else { panic!("{outputs:?}") };
    session.event(Event::Ended { subscription, conversation: 7, at_seq: 9, removed: true });
    session.frame("SUBSCRIBE\nid:b\ndestination:/topic/nothing\n\n\0");
    for id in ["a", "b"] {
        let outputs = session.frame(&format!("UNSUBSCRIBE\nid:{id}\nreceipt:u\n\n\0"));
        assert_eq!(header(one_written(&outputs), "receipt-id"), Some("u"));
    }
    let again = session.frame("UNSUBSCRIBE\nid:a\n\n\0");
    assert_eq!(ended(&again), (Some("protocol_error"), 4400));
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_that_is_taken_back_before_it_is_attached_gets_its_receipt() {
    let mut session = Driven::listening();
    session.frame("SUBSCRIBE\nid:a\ndestination:/topic/conversations/7\nreceipt:s\n\n\0");
    let outputs = session.frame("UNSUBSCRIBE\nid:a\nreceipt:u\n\n\0");
    assert_eq!(header(one_written(&outputs), "receipt-id"), Some("s"));
}

#[tokio::test(start_paused = true)]
async fn the_users_queue_is_receipted_when_every_conversation_is_attached() {
    let mut session = Driven::listening();
    session.frame("SEND\ndestination:/app/resume\n\n{\"conversations\":{\"7\":{\"seq\":3}}}\0");
    let outputs = session.frame("SUBSCRIBE\nid:q\ndestination:/user/queue/events\nreceipt:r\n\n\0");
    let [Output::WatchUser { subscription, known: None }] = outputs[..] else { panic!("{outputs:?}") };
    let too_late = session.frame("SEND\ndestination:/app/resume\n\n{}\0");
    assert_eq!(refused(&too_late), "resume_too_late");
    let member = |conversation| Membership { conversation, joined_seq: 1, joined_user_seq: 1 };
    let state = Arc::new(UserState { user_seq: 2, memberships: vec![member(7), member(8)], ended: Vec::new() });
    let outputs = session.event(Event::UserState { subscription, state });
    let starts: Vec<_> = outputs
        .iter()
        .map(|output| match output {
            Output::Attach { conversation, start, user_seq, .. } => (*conversation, *start, *user_seq),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(starts, [(7, Start::After { seq: 3, epoch: None }, Some(2)), (8, Start::Head, Some(2))]);
    assert!(session.event(Event::Attached { subscription, conversation: 7, head: 1 }).is_empty());
    let outputs = session.event(Event::Attached { subscription, conversation: 8, head: 1 });
    assert_eq!(header(one_written(&outputs), "receipt-id"), Some("r"));
    // Removed from one: it just stops.
    assert!(session.event(Event::Ended { subscription, conversation: 8, at_seq: 5, removed: true }).is_empty());
    assert_eq!(session.machine.attached().last().unwrap().1, [7]);
    assert_eq!(session.machine.subscriptions.iter().filter(|s| s.topic == Topic::UserEvents).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_users_queue_that_is_refused_later_leaves_its_conversations() {
    let mut session = Driven::listening();
    let outputs = session.frame("SUBSCRIBE\nid:q\ndestination:/user/queue/events\n\n\0");
    let [Output::WatchUser { subscription, .. }] = outputs[..] else { panic!("{outputs:?}") };
    let member = Membership { conversation: 7, joined_seq: 1, joined_user_seq: 1 };
    let state = Arc::new(UserState { user_seq: 2, memberships: vec![member], ended: Vec::new() });
    session.event(Event::UserState { subscription, state });
    session.event(Event::Attached { subscription, conversation: 7, head: 1 });
    let refusal = Refusal::new(Code::Internal, "the state can't be read");
    let outputs = session.event(Event::UserRefused { subscription, refusal });
    assert_eq!(refused(&outputs), "internal");
    let [
        Output::UnwatchUser { subscription: unwatched },
        Output::Detach { subscription: detached, conversations },
        Output::Write(_),
    ] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!((*unwatched, *detached, &conversations[..]), (subscription, subscription, &[7][..]));
}

#[tokio::test(start_paused = true)]
async fn subscribes_are_limited_by_a_rate_of_their_own() {
    // Its first one is for the refusals.
    let mut session = Driven::listening();
    // Each of these is refused, and frees its place at once.
    let subscribe = "SUBSCRIBE\nid:a\ndestination:/topic/conversations/7\nreceipt:r\n\n\0";
    let attach = |session: &mut Driven| {
        let outputs = session.frame(subscribe);
        let [Output::Attach { subscription, .. }] = outputs[..] else { panic!("{outputs:?}") };
        let refusal = Refusal::new(Code::NotAMember, "no member");
        assert_eq!(refused(&session.event(Event::Refused { subscription, conversation: 7, refusal })), "not_a_member");
    };
    for _ in 1..settings().subscribes_burst {
        attach(&mut session);
    }
    let outputs = session.frame(subscribe);
    assert_eq!(refused(&outputs), "rate_limited");
    let named = ["receipt-id", "subscription-id"].map(|name| header(one_written(&outputs), name));
    assert_eq!(named, [Some("r"), Some("a")]);
    assert!(one_written(&outputs).contains("\"retry_after_ms\":250"));
    // SENDs have theirs.
    assert_eq!(submitted(&session.frame(SEND)).len(), 1);
    session.now += Duration::from_millis(250);
    attach(&mut session);
}

/// Found by the fuzz target `session`.
#[tokio::test(start_paused = true)]
async fn when_a_timer_ends_the_session_the_others_that_are_due_do_nothing() {
    let mut session = Driven::open();
    let outputs = session.frame("SUBSCRIBE\nid:q\ndestination:/user/queue/events\n\n\0");
    let [Output::WatchUser { subscription, .. }] = outputs[..] else { panic!("{outputs:?}") };
    let member = Membership { conversation: 7, joined_seq: 1, joined_user_seq: 1 };
    let state = Arc::new(UserState { user_seq: 2, memberships: vec![member], ended: Vec::new() });
    session.event(Event::UserState { subscription, state });
    // The conversation is tried again after a while.
    let refusal = Refusal::unavailable("core is away");
    assert!(session.event(Event::Refused { subscription, conversation: 7, refusal }).is_empty());
    session.frame("SEND\ndestination:/app/conversations/8/messages\n\n{\"body\":\"x\"}\0");
    // Both are due: the SEND was not committed in time, which ends a session that does not listen to refusals.
    let outputs = session.after(settings().retry.deadline);
    assert_eq!(ended(&outputs).0, Some("unavailable"));
    assert_eq!(outputs.iter().filter(|output| !matches!(output, Output::Write(_))).count(), 1, "{outputs:?}");
}

#[tokio::test(start_paused = true)]
async fn typing_is_coalesced_and_receipted_once_core_has_taken_it() {
    let mut session = Driven::listening();
    let typing = "SEND\ndestination:/app/conversations/7/typing\nreceipt:t\n\n{}\0";
    let [Output::Typing { no, conversation: 7 }] = session.frame(typing)[..] else { panic!("expected TYPING") };
    assert_eq!(header(one_written(&session.event(Event::Done { no, result: Ok(()) })), "receipt-id"), Some("t"));
    assert_eq!(header(one_written(&session.frame(typing)), "receipt-id"), Some("t"));
    session.now += Duration::from_secs(2);
    assert!(matches!(session.frame(typing)[..], [Output::Typing { .. }]));
}

#[tokio::test(start_paused = true)]
async fn an_overflowed_queue_ends_the_session_as_a_slow_consumer() {
    assert_eq!(ended(&Driven::listening().input(Input::Overflowed)), (Some("slow_consumer"), 4008));
}
