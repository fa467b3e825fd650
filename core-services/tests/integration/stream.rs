//! `StreamCreateMessages`: many at once, of all kinds, in order, whatever fails.

use std::{collections::HashMap, time::Duration};

use proto::rpc::v1::{CreateMessageRequest, CreateMessageResult, create_message_result::Result as Outcome};
use sqlx::Connection as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{
    atomicity::hold_the_log,
    harness::{Core, DEADLINE, User, code},
};

/// An open stream; answers in the order in which they came.
struct Open {
    requests: mpsc::Sender<CreateMessageRequest>,
    answers: Streaming<CreateMessageResult>,
    no: u64,
}

impl Open {
    async fn new(core: &Core, user: &User) -> Self {
        let (requests, receiver) = mpsc::channel(1024);
        let request = user.request(ReceiverStream::new(receiver));
        let answers = core.messages().stream_create_messages(request).await.unwrap().into_inner();
        Self { requests, answers, no: 0 }
    }

    /// The number that the answer will have.
    async fn send(&mut self, conversation_id: i64, client_message_id: &str, body: &str) -> u64 {
        self.no += 1;
        let request = CreateMessageRequest {
            conversation_id,
            body: body.to_owned(),
            client_message_id: client_message_id.to_owned(),
            request_no: self.no,
            ..CreateMessageRequest::default()
        };
        self.requests.send(request).await.unwrap();
        self.no
    }

    async fn next(&mut self) -> Result<Option<CreateMessageResult>, Status> {
        timeout(DEADLINE, self.answers.message()).await.expect("an answer in time")
    }

    /// The next answers: seq or code, by number; and their order.
    async fn answers(&mut self, n: usize) -> (HashMap<u64, Result<i64, String>>, Vec<u64>) {
        let (mut outcomes, mut order) = (HashMap::new(), Vec::new());
        for _ in 0..n {
            let answer = self.next().await.unwrap().expect("the stream is open");
            order.push(answer.request_no);
            let outcome = match answer.result.unwrap() {
                Outcome::Created(created) => Ok(created.seq),
                Outcome::Failure(failure) => Err(failure.code),
            };
            assert!(outcomes.insert(answer.request_no, outcome).is_none(), "answered twice");
        }
        (outcomes, order)
    }
}

#[tokio::test]
async fn good_refused_and_repeated_messages_are_each_answered_and_commit_in_order() {
    let core = Core::start().await;
    let (alice, bob) = (core.register("alice").await, core.register("bob").await);
    let (channel, foreign) = (core.channel(&alice).await, core.channel(&bob).await);
    let mut stream = Open::new(&core, &alice).await;
    let mut expected = HashMap::new();
    for n in 0..100 {
        let good = stream.send(channel, &format!("m-{n}"), "hello").await;
        expected.insert(good, Ok(2 + n));
        let again = stream.send(channel, &format!("m-{n}"), "hello").await;
        expected.insert(again, Ok(2 + n));
        for (conversation, id, body, code) in [
            (channel, format!("m-{n}"), "another content", "conflict"),
            (channel, String::new(), "", "invalid_body"),
            (foreign, String::new(), "hello", "not_a_member"),
            (channel + 1, String::new(), "hello", "not_found"),
        ] {
            let refused = stream.send(conversation, &id, body).await;
            expected.insert(refused, Err(code.to_owned()));
        }
    }
    let (outcomes, order) = stream.answers(expected.len()).await;
    assert_eq!(outcomes, expected);
    let seqs: Vec<i64> = order.iter().filter_map(|no| outcomes[no].clone().ok()).collect();
    assert!(seqs.is_sorted(), "answers come in commit order");
    core.assert_whole(channel).await;
    // "m-1" and "m-1 " are two keys: byte for byte, without padding.
    let padded = stream.send(channel, "m-1 ", "hello").await;
    assert_eq!(stream.answers(1).await.0[&padded], Ok(102));
    core.finish().await;
}

#[tokio::test]
async fn after_a_retryable_failure_those_behind_it_fail_and_another_conversation_goes_on() {
    let core = Core::start().await;
    let alice = core.register("alice").await;
    let held = core.channel(&alice).await;
    // The lock reaches to the first event of the next conversation.
    core.channel(&alice).await;
    let free = core.channel(&alice).await;
    let holder = hold_the_log(&core, held).await;

    let mut stream = Open::new(&core, &alice).await;
    let (mut behind, mut beside) = (Vec::new(), Vec::new());
    for n in 0..5 {
        behind.push(stream.send(held, &format!("m-{n}"), "hello").await);
        beside.push(stream.send(free, &format!("m-{n}"), "hello").await);
    }
    let (outcomes, order) = stream.answers(10).await;
    for (n, (behind, beside)) in behind.iter().zip(&beside).enumerate() {
        assert_eq!(outcomes[behind], Err("unavailable".to_owned()));
        assert_eq!(outcomes[beside], Ok(2 + n as i64));
    }
    assert!(order.iter().filter(|no| beside.contains(no)).is_sorted());
    assert!(order.iter().filter(|no| behind.contains(no)).is_sorted());

    holder.close().await.unwrap();
    // One that overtakes the failed one's retry is refused; the retry opens the way.
    let early = stream.send(held, "m-9", "hello").await;
    assert_eq!(stream.answers(1).await.0[&early], Err("unavailable".to_owned()));
    for n in 0..5 {
        let again = stream.send(held, &format!("m-{n}"), "hello").await;
        assert_eq!(stream.answers(1).await.0[&again], Ok(2 + n));
    }
    for conversation in [held, free] {
        core.assert_whole(conversation).await;
    }
    core.finish().await;
}

#[tokio::test]
async fn a_users_stream_ends_when_their_token_expires() {
    let core = Core::start_with(&[("AUTH__ACCESS_TOKEN_TTL", "3s")]).await;
    let (alice, service) = (core.register("alice").await, core.service().await);
    let channel = core.channel(&alice).await;
    let mut of_service = Open::new(&core, &service).await;
    let mut stream = Open::new(&core, &alice).await;
    let sent = stream.send(channel, "m-1", "hello").await;
    assert_eq!(stream.answers(1).await.0[&sent], Ok(2));
    let ended = stream.next().await.unwrap_err();
    assert_eq!((ended.code(), code(&ended)), (Code::Unauthenticated, "token_expired"));
    // A service's goes on: it sends for many.
    let still_open = timeout(Duration::from_millis(500), of_service.answers.message()).await;
    assert!(still_open.is_err(), "{still_open:?}");
    core.finish().await;
}
