use chassis::{Secret, service_token::ServiceToken};

use super::*;
use crate::{
    config,
    hub::{Attach, Head, Scope, Stamp, Start, event::Visible},
    registration::Interest,
    session::{Outgoing, outgoing_tests::queue},
    upstream::Endpoints,
};

const ID: i64 = 7;
const KEY: SubscriptionKey = SubscriptionKey { session: 1, subscription: 1 };

/// One that lets go at once. What it asks for is never answered but by the test.
fn shard() -> Shard {
    let mut config = config::tests::load(&[]).unwrap();
    config.hub.linger = Duration::ZERO;
    let token = Arc::new(ServiceToken::new(Vec::new(), "gateway", Secret::new("secret")));
    let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
    let endpoints = Endpoints::new(&config.core, token, &metrics).unwrap();
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
        result: Ok(([(ID, 45)].into(), 1)),
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
