mod core;

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use chassis::Readiness;
use proto::rpc::v1::{CreateMessageRequest, CreateMessageResponse, message_service_client::MessageServiceClient};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::core::{Core, broken, token};
use super::{Endpoints, Outbound, Sends, sends::Stream};
use crate::{
    config,
    hub::spread,
    metrics::Metrics,
    refusal::Refusal,
    session::{Event, Lane, Outgoing, Retry, Run, Submission, outgoing_tests::queue},
};

/// Until something happens that must happen.
const SOON: Duration = Duration::from_secs(20);

async fn endpoints(cores: [&String; 2], keys: &[(&str, &str)]) -> (Endpoints, config::Core, Arc<Metrics>) {
    let mut config = config::tests::load(keys).unwrap().core;
    config.endpoints = cores.map(String::clone).into();
    let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
    (Endpoints::new(&config, token().await, &metrics).unwrap(), config, metrics)
}

/// The number of the core that answered, and how long that took.
async fn call(endpoints: &Endpoints, first: usize, body: &str) -> (Result<i64, Refusal>, Duration) {
    let began = Instant::now();
    let message = CreateMessageRequest { body: body.to_owned(), ..CreateMessageRequest::default() };
    let answer = endpoints.call(first, message, |channel, request| async move {
        MessageServiceClient::new(channel).create_message(request).await
    });
    (answer.await.map(|answer| answer.message_id), began.elapsed())
}

/// One of the conversations whose SENDs go to that core of two first.
fn conversation_of(core: usize) -> i64 {
    (1..).find(|id| spread(*id, 2) == core).unwrap()
}

/// A session without a client.
struct Session {
    sends: Sends,
    outgoing: Arc<Outgoing>,
}

impl Session {
    fn new(sends: &Sends) -> Self {
        Self { sends: sends.clone(), outgoing: queue(1 << 10, 1) }
    }

    fn submit(&self, conversation: i64, submission: Submission) {
        let Submission { core, run, no, request } = submission;
        self.sends.submit(core, Outbound { conversation, run, no, request, outgoing: Arc::clone(&self.outgoing) });
    }

    async fn events(&self) -> Vec<Event> {
        poll_fn(|cx| self.outgoing.poll(cx)).await.events
    }

    /// Sends so many messages in a lane that is new, as after a pause; their answers, in order.
    async fn send(&self, conversation: i64, count: u64) -> Vec<CreateMessageResponse> {
        let retry = Retry { deadline: SOON, base: Duration::from_millis(50), max: Duration::from_secs(1) };
        let mut lane = Lane::new(retry);
        let mut answers = Vec::new();
        let mut steps = Vec::new();
        for no in 1..=count {
            let client_message_id = format!("m-{no}");
            let request = CreateMessageRequest { client_message_id, ..CreateMessageRequest::default() };
            steps.push(lane.push(no, request, Default::default(), tokio::time::Instant::now()));
        }
        loop {
            for step in steps.drain(..) {
                step.submit.into_iter().for_each(|submission| self.submit(conversation, submission));
                answers.extend(step.settled.into_iter().map(|settled| settled.result.unwrap()));
            }
            let Some(deadline) = lane.deadline() else { return answers };
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => steps.push(lane.tick(tokio::time::Instant::now())),
                events = self.events() => for event in events {
                    let Event::Sent { no, result, .. } = event else { panic!("{event:?}") };
                    steps.push(lane.answered(no, result, tokio::time::Instant::now()));
                },
            }
        }
    }
}

fn streams(endpoints: &Endpoints, config: &config::Core, metrics: &Arc<Metrics>) -> (Sends, Vec<Stream>) {
    Sends::new(endpoints, config, metrics, &Readiness::default().dependency("core"))
}

fn run(streams: Vec<Stream>) {
    for stream in streams {
        tokio::spawn(stream.run(CancellationToken::new()));
    }
}

async fn send(sends: &Sends, conversation: i64, count: u64) -> Vec<i64> {
    let answers = timeout(SOON, Session::new(sends).send(conversation, count)).await.expect("they are answered");
    answers.iter().map(|answer| answer.message_id).collect()
}

/// Waits for a call that does what it should.
async fn calls_until(endpoints: &Endpoints, done: impl Fn(&Result<i64, Refusal>, Duration) -> bool) {
    let calls = async {
        loop {
            let (answer, took) = call(endpoints, 0, "").await;
            if done(&answer, took) {
                return;
            }
        }
    };
    timeout(SOON, calls).await.expect("it comes to that");
}

#[tokio::test]
async fn conversations_of_a_core_that_is_silent_from_the_start_do_not_wait_for_it() {
    let (silent, other) = (Core::new(0).await, Core::new(1).await);
    silent.stop();
    let (endpoints, config, metrics) = endpoints([&silent.url, &other.url], &[]).await;
    let (sends, to_run) = streams(&endpoints, &config, &metrics);
    run(to_run);
    let began = Instant::now();
    assert_eq!(send(&sends, conversation_of(0), 3).await, [1; 3]);
    for _ in 0..5 {
        assert_eq!(send(&sends, conversation_of(0), 2).await, [1; 2]);
        assert_eq!(call(&endpoints, 0, "").await.0, Ok(1));
    }
    // Each by itself would have waited until the keep-alive, or the timeout of a call.
    assert!(began.elapsed() < config.request_timeout / 2, "{:?}", began.elapsed());

    silent.go_on();
    calls_until(&endpoints, |answer, _| *answer == Ok(0)).await;
    assert_eq!(send(&sends, conversation_of(0), 3).await, [0; 3]);
}

#[tokio::test]
async fn conversations_of_a_core_that_falls_silent_wait_once() {
    let (silent, other) = (Core::new(0).await, Core::new(1).await);
    let keys = [("CORE__KEEP_ALIVE_INTERVAL", "300ms"), ("CORE__KEEP_ALIVE_TIMEOUT", "700ms")];
    let (endpoints, config, metrics) = endpoints([&silent.url, &other.url], &keys).await;
    let (sends, to_run) = streams(&endpoints, &config, &metrics);
    run(to_run);
    let on_its_core = async { while send(&sends, conversation_of(0), 1).await != [0] {} };
    timeout(SOON, on_its_core).await.expect("its stream is opened");

    silent.stop();
    assert_eq!(send(&sends, conversation_of(0), 3).await, [1; 3], "when the connection was given up");
    assert!(!endpoints.breakers().is_closed(0));
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(send(&sends, conversation_of(0), 2).await, [1; 2]);
        assert_eq!(call(&endpoints, 0, "").await.0, Ok(1));
    }
    assert!(began.elapsed() < config.request_timeout / 2, "{:?}", began.elapsed());

    silent.go_on();
    calls_until(&endpoints, |answer, _| *answer == Ok(0)).await;
    let taken_back = async { while send(&sends, conversation_of(0), 2).await != [0; 2] {} };
    timeout(SOON, taken_back).await.expect("its stream is opened again");
}

#[tokio::test]
async fn a_call_that_timed_out_spares_the_next_ones_the_wait_until_the_core_is_tried_again() {
    let (silent, other) = (Core::new(0).await, Core::new(1).await);
    silent.stop();
    let keys = [("CORE__REQUEST_TIMEOUT", "3s"), ("CORE__BREAKER_TIME", "2s")];
    let (endpoints, config, metrics) = endpoints([&silent.url, &other.url], &keys).await;
    let (answer, took) = call(&endpoints, 0, "").await;
    assert!(answer == Ok(1) && took >= config.request_timeout, "{took:?}");
    for _ in 0..5 {
        let (answer, took) = call(&endpoints, 0, "").await;
        assert!(answer == Ok(1) && took < config.request_timeout / 2, "{took:?}");
    }
    calls_until(&endpoints, |answer, took| *answer == Ok(1) && took >= config.request_timeout).await;

    silent.go_on();
    calls_until(&endpoints, |answer, _| *answer == Ok(0)).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).unwrap();
    assert!(text.contains("gateway_breaker_openings_total{core=\"0\"} 1\n"), "{text}");
}

#[tokio::test]
async fn where_all_were_silent_they_are_asked_all_the_same() {
    let (silent, other) = (Core::new(0).await, Core::new(1).await);
    let keys = [("CORE__REQUEST_TIMEOUT", "3s"), ("CORE__BREAKER_TIME", "1h")];
    let (endpoints, ..) = endpoints([&silent.url, &other.url], &keys).await;
    silent.stop();
    other.stop();
    assert!(call(&endpoints, 0, "").await.0.is_err());
    other.go_on();
    assert_eq!(call(&endpoints, 0, "").await.0, Ok(1));
}

#[tokio::test]
async fn what_is_sent_before_the_first_stream_is_open_waits_for_it() {
    let (first, second) = (Core::new(0).await, Core::new(1).await);
    // How long a busy machine needs for a connection is not the point.
    let keys = [("CORE__OPEN_TIMEOUT", "4s")];
    let (endpoints, config, metrics) = endpoints([&first.url, &second.url], &keys).await;
    let (sends, to_run) = streams(&endpoints, &config, &metrics);
    let session = Session::new(&sends);
    let request = CreateMessageRequest::default();
    session.submit(conversation_of(0), Submission { core: 0, run: Run::default(), no: 1, request });
    run(to_run);
    let events = timeout(SOON, session.events()).await.unwrap();
    let [Event::Sent { no: 1, result: Ok(answer), .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(answer.message_id, 0);
}

#[tokio::test]
async fn a_broken_connection_opens_the_breaker_and_a_refusal_of_the_core_does_not() {
    let (broken, other) = (broken().await, Core::new(1).await);
    let (endpoints, ..) = endpoints([&broken, &other.url], &[("CORE__BREAKER_TIME", "1h")]).await;
    assert!(call(&endpoints, 0, "refuse").await.0.is_err(), "both were asked");
    assert_eq!([0, 1].map(|core| endpoints.breakers().is_closed(core)), [false, true]);
}

#[tokio::test]
async fn a_core_where_calls_time_out_gets_no_sends_either_unless_all_are_like_that() {
    let (first, second) = (Core::new(0).await, Core::new(1).await);
    let keys = [("CORE__OPEN_TIMEOUT", "4s"), ("CORE__BREAKER_TIME", "1h")];
    let (endpoints, config, metrics) = endpoints([&first.url, &second.url], &keys).await;
    let (sends, to_run) = streams(&endpoints, &config, &metrics);
    run(to_run);
    // Both streams are open.
    assert_eq!(send(&sends, conversation_of(0), 1).await, [0]);
    assert_eq!(send(&sends, conversation_of(1), 1).await, [1]);
    endpoints.breakers().timed_out(0);
    assert_eq!(send(&sends, conversation_of(0), 3).await, [1; 3]);
    endpoints.breakers().timed_out(1);
    assert_eq!(send(&sends, conversation_of(0), 3).await, [0; 3]);
    assert!(endpoints.breakers().is_closed(0), "it has answered");
}
