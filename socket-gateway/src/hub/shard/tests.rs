use std::sync::Mutex;

use chassis::{Secret, service_token::ServiceToken};

use super::*;
use crate::{
    config,
    hub::{Attach, Head, Scope, Stamp, Start, event::Visible},
    registration::Interest,
    session::{Outgoing, outgoing_tests::queue},
    upstream::{Endpoints, reads_tests::attaching},
};

const ID: i64 = 7;
const KEY: SubscriptionKey = SubscriptionKey { session: 1, subscription: 1 };

fn endpoints(config: &config::Core, metrics: &Arc<Metrics>) -> Endpoints {
    let token = Arc::new(ServiceToken::new(Vec::new(), "gateway", Secret::new("secret")));
    Endpoints::new(config, token, metrics).unwrap()
}

/// One that lets go at once. What it asks for is never answered but by the test.
fn shard() -> Shard {
    let mut config = config::tests::load(&[]).unwrap();
    config.hub.linger = Duration::ZERO;
    let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
    let endpoints = endpoints(&config.core, &metrics);
    let (core, _) = Core::new(endpoints, &config.core, CancellationToken::new());
    let budget = Budget::new(config.hub.replay_bytes, config.core.log_page_bytes);
    let backend = Backend { interest: Interest::nowhere(), core, budget };
    Shard::new(conversation::Limits::from(&config), Timing::from(&config.hub), backend, metrics)
}

fn attach(outgoing: &Arc<Outgoing>) -> Input {
    Input::Attach(Attach {
        key: KEY,
        user: 5,
        conversation: ID,
        scope: Scope::Topic,
        start: Start::Head,
        head: Head::plain("MESSAGE\n"),
        outgoing: Arc::clone(outgoing),
        user_seq: None,
        joined_user_seq: None,
    })
}

fn attached(life: u64, head: i64) -> Answer {
    let result = Ok(Attached { head, epoch: 1, visible: Visible::new([(1, 0)]), member: true });
    Answer::Attached { conversation: ID, life, key: KEY, position: None, result }
}

#[tokio::test]
async fn an_answer_to_a_released_conversation_is_not_taken_by_its_successor() {
    let (mut shard, outgoing) = (shard(), queue(1 << 16, 1));
    let announced = |life| Answer::Announced { conversation: ID, life, result: Ok(()) };
    shard.input(attach(&outgoing));
    let first = shard.conversations[&ID].life;
    shard.input(Input::Detach { key: KEY, conversations: vec![ID], outgoing: Arc::clone(&outgoing) });
    shard.let_go(Instant::now());
    assert!(shard.conversations.is_empty(), "it is released");

    shard.input(attach(&outgoing));
    let second = shard.conversations[&ID].life;
    shard.answered(announced(first));
    assert!(!shard.conversations[&ID].is_announced(), "that was another's announcement");
    shard.answered(announced(second));
    assert!(shard.conversations[&ID].is_announced());

    shard.answered(attached(first, 40));
    assert_eq!(shard.conversations[&ID].position(), None, "that was another's read");
    shard.answered(attached(second, 50));
    assert_eq!(shard.conversations[&ID].position(), Some(50));

    // A head that the first one asked for, when it stood lower, is no reset of the second.
    let heads = |life| Answer::Heads {
        asked: vec![Asked { conversation: ID, life, position: Some(60) }],
        doubt: true,
        tries: 0,
        result: Ok(Heads { of: [(ID, 45)].into(), epoch: 1, ..Heads::default() }),
    };
    shard.answered(heads(first));
    assert_eq!(shard.conversations[&ID].position(), Some(50));
    shard.answered(heads(second));
    assert_eq!(shard.conversations[&ID].position(), Some(45));
}

#[tokio::test]
async fn an_answer_to_a_released_user_is_not_taken_by_their_successor() {
    let (mut shard, outgoing) = (shard(), queue(1 << 16, 1));
    let watch = || Input::WatchUser { key: KEY, user: ID, known: None, outgoing: Arc::clone(&outgoing) };
    shard.input(watch());
    let first = shard.users[&ID].life;
    shard.input(Input::UnwatchUser { key: KEY, user: ID });
    shard.let_go(Instant::now());
    assert!(shard.users.is_empty(), "they are released");

    shard.input(watch());
    let second = shard.users[&ID].life;
    shard.answered(Answer::UserAnnounced { user: ID, life: first, result: Ok(()) });
    assert!(!shard.users[&ID].is_announced(), "that was another's announcement");
    shard.answered(Answer::UserAnnounced { user: ID, life: second, result: Ok(()) });
    assert!(shard.users[&ID].is_announced());
    let read = |life| Answer::UserRead {
        user: ID,
        life,
        read: user::Read { known: None, tries: 0 },
        result: Ok(Arc::new(UserState::default())),
    };
    outgoing.take_events();
    shard.answered(read(first));
    assert_eq!(outgoing.take_events().len(), 0);
    shard.answered(read(second));
    assert_eq!(outgoing.take_events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_follows_is_let_go_after_the_linger_however_rarely_heads_are_compared() {
    const LINGER: Duration = Duration::from_secs(2);
    let (mut shard, outgoing) = (shard(), queue(1 << 16, 1));
    shard.timing = Timing { linger: LINGER, compare_interval: Duration::from_secs(3600), ..shard.timing };
    let metrics = Arc::clone(&shard.metrics);
    let serves = async |count: i64| {
        while metrics.conversations.get() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (inputs, received) = mpsc::channel(1);
    tokio::spawn(shard.run(received, CancellationToken::new()));
    inputs.send(attach(&outgoing)).await.unwrap();
    serves(1).await;
    inputs.send(Input::Detach { key: KEY, conversations: vec![ID], outgoing }).await.unwrap();
    let began = Instant::now();
    serves(0).await;
    assert!((LINGER..LINGER * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_has_waited_is_written_in_one_go() {
    let (mut shard, outgoing) = (shard(), queue(1 << 16, 1));
    shard.input(attach(&outgoing));
    let life = shard.conversations[&ID].life;
    shard.answered(Answer::Announced { conversation: ID, life, result: Ok(()) });
    shard.answered(attached(life, 40));
    shard.flush().await;
    outgoing.take(usize::MAX);

    let (sender, mut inputs) = mpsc::channel(8);
    let arrived = |seq| {
        let entry = conversation::tests::entry(seq, 1, "MESSAGE", 0);
        Input::Arrived(vec![Arrival { entry, stamp: Stamp::default() }])
    };
    sender.try_send(arrived(42)).unwrap();
    sender.try_send(arrived(43)).unwrap();
    shard.inputs(arrived(41), &mut inputs).await;
    let payloads: usize =
        [41, 42, 43].map(|seq| conversation::tests::entry(seq, 1, "MESSAGE", 0).payload.len()).iter().sum();
    assert_eq!(shard.unflushed_bytes, payloads, "nothing is written between them");
    assert_eq!(outgoing.take(usize::MAX).len(), 3);
}

/// Attaches a user to two conversations at once, of which [`ID`] is locked for so many calls. The outcomes, each with when
/// it came, and what was asked for.
async fn attach_two(locked_calls: usize) -> ([(Result<i64, Refusal>, Duration); 2], Vec<(Lane, Vec<i64>)>) {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let config = config::tests::load(&[]).unwrap().core;
    let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&asked);
    let (core, run) = attaching(endpoints(&config, &metrics), &config, move |keys: Vec<(i64, i64)>, lane| {
        let mut calls = calls.lock().unwrap();
        calls.push((lane, keys.iter().map(|key| key.1).collect()));
        let head = calls.len() as i64;
        let is_locked = |id: i64| id == ID && calls.len() <= locked_calls;
        let attached = || Attached { head, epoch: 1, visible: Visible::new([(1, 0)]), member: true };
        Ok(keys.iter().map(|key| Ok((!is_locked(key.1)).then(attached))).collect())
    });
    let began = Instant::now();
    let one = async |id| {
        let outcome = super::attach(&core, 5, id, TIMEOUT).await;
        (outcome.map(|attached| attached.head), began.elapsed())
    };
    let outcomes = tokio::select! {
        outcomes = futures_util::future::join(one(ID), one(8)) => outcomes.into(),
        () = run => panic!("it runs for ever"),
    };
    let asked = asked.lock().unwrap().clone();
    (outcomes, asked)
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_is_locked_is_asked_for_again_alone() {
    let ([locked, free], asked) = attach_two(2).await;
    assert_eq!(free, (Ok(1), Duration::ZERO));
    assert_eq!(locked.0, Ok(3));
    let alone = (Lane::Again, vec![ID]);
    assert_eq!(asked, [(Lane::First, vec![ID, 8]), alone.clone(), alone]);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_stays_locked_is_refused_alone_when_the_time_for_it_is_over() {
    let ([locked, free], _) = attach_two(usize::MAX).await;
    assert_eq!(free, (Ok(1), Duration::ZERO));
    assert_eq!(locked.0.unwrap_err().code, proto::Code::Unavailable);
    assert!((RETRY_MAX..=Duration::from_secs(10)).contains(&locked.1), "{:?}", locked.1);
}

#[tokio::test(start_paused = true)]
async fn heads_that_are_locked_are_asked_for_again_and_not_taken_for_unknown() {
    let (mut shard, outgoing) = (shard(), queue(1 << 16, 1));
    shard.input(attach(&outgoing));
    let life = shard.conversations[&ID].life;
    shard.answered(Answer::Announced { conversation: ID, life, result: Ok(()) });
    shard.answered(attached(life, 40));
    shard.answers.clear();
    for doubt in [true, false] {
        shard.comparing = usize::from(!doubt);
        let asked = vec![Asked { conversation: ID, life, position: Some(40) }];
        // Of a newer epoch, so that an unknown one would begin at 0.
        let heads = Heads { locked: [ID].into(), epoch: 2, ..Heads::default() };
        shard.answered(Answer::Heads { asked, doubt, tries: 0, result: Ok(heads) });
        assert_eq!((shard.conversations[&ID].position(), shard.comparing), (Some(40), 0));
        let Some(Answer::Heads { asked, doubt: again_in_doubt, tries, result }) = shard.answers.next().await else {
            panic!("nothing was asked again")
        };
        assert_eq!((asked.len(), asked[0].conversation, again_in_doubt, tries), (1, ID, doubt, 1));
        assert!(result.is_err(), "there is no core here");
    }
    // A periodic round does not ask for ever: the next one does.
    let asked = vec![Asked { conversation: ID, life, position: Some(40) }];
    let heads = Heads { locked: [ID].into(), epoch: 2, ..Heads::default() };
    shard.answered(Answer::Heads { asked, doubt: false, tries: 1, result: Ok(heads) });
    assert!(shard.answers.is_empty());
}
