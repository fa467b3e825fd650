//! Followers that read the log: together, in turn, and not more than there is room for.

use super::*;

impl World {
    /// A subscription whose frames go into that queue.
    fn resume_into(&mut self, outgoing: &Arc<Outgoing>, subscription: u32, seq: i64, head: i64) {
        let attach = Attach {
            key: key(subscription),
            user: 5,
            conversation: 7,
            scope: Scope::Topic,
            start: Start::After { seq, epoch: None },
            head: self.head.clone(),
            outgoing: Arc::clone(outgoing),
            user_seq: None,
            joined_user_seq: None,
        };
        self.conversation.attach(attach);
        self.effects();
        self.conversation.attached(key(subscription), Ok(member(head)), Some(head), self.now);
    }

    fn resume(&mut self, subscription: u32, seq: i64) -> Reader {
        let head = self.conversation.position().unwrap();
        self.subscribe(subscription, Start::After { seq, epoch: None }, Ok(member(head)))
    }

    fn waiting(&self) -> usize {
        self.conversation.followers.iter().filter(|follower| follower.is_waiting()).count()
    }
}

#[tokio::test]
async fn clients_that_ask_for_overlapping_ranges_share_what_is_read() {
    let (mut world, _reader) = World::at(40);
    let mut back = vec![world.resume(2, 20)];
    let read = world.read();
    assert_eq!((read.reader, read.after, read.up_to), (super::super::Reader::Followers, 20, 40));
    back.extend([(3, 10), (4, 15), (5, 20)].map(|(subscription, after)| world.resume(subscription, after)));
    world.answer(read, 40, 21..=30);
    let read = world.read();
    assert_eq!((read.after, read.up_to), (10, 20), "what is at hand is not read again");
    world.answer(read, 40, 11..=20);
    let read = world.read();
    assert_eq!((read.after, read.up_to), (30, 40));
    world.answer(read, 40, 31..=40);
    world.arrive([41]);
    for (reader, after) in back.iter_mut().zip([20, 10, 15, 20]) {
        assert_eq!((reader.resumed().after_seq, reader.seqs()), (after, (after + 1..=41).collect()));
    }
    let metrics = &world.conversation.metrics;
    assert_eq!((metrics.log_pages.get(), metrics.log_pages_shared.get()), (3, 7));
    assert_eq!(world.effects(), []);
}

#[tokio::test]
async fn who_is_far_behind_does_not_hold_up_who_is_not() {
    let (mut world, _reader) = World::at(100);
    let _far = world.resume(2, 0);
    let mut reads = vec![world.read()];
    let _near = world.resume(3, 50);
    for _ in 0..3 {
        let read = *reads.last().unwrap();
        world.answer(read, 100, read.after + 1..=read.after + 10);
        reads.push(world.read());
    }
    assert_eq!(reads.iter().map(|read| read.after).collect::<Vec<_>>(), [0, 50, 10, 60]);
}

#[tokio::test]
async fn a_page_serves_who_comes_soon_after_and_is_dropped_when_nobody_needs_it() {
    let (mut world, _reader) = World::at(40);
    let _first = world.resume(2, 30);
    let read = world.read();
    world.answer(read, 40, 31..=40);
    world.conversation.tick(world.now);
    let mut soon = world.resume(3, 35);
    assert_eq!((soon.resumed().tier, soon.seqs(), world.effects()), (Tier::Log, (36..=40).collect(), vec![]));
    world.conversation.tick(world.now);
    world.conversation.tick(world.now);
    let _late = world.resume(4, 35);
    assert_eq!(world.read().after, 35);
}

#[tokio::test]
async fn a_session_has_its_pages_one_after_the_other() {
    let (mut world, _reader) = World::at(40);
    let outgoing = session::outgoing_tests::queue(1 << 20, 600);
    world.resume_into(&outgoing, 2, 10, 40);
    let read = world.read();
    world.resume_into(&outgoing, 3, 20, 40);
    let _other = world.resume(4, 10);
    assert_eq!(world.waiting(), 2, "another session waits too, but not this one twice");
    world.answer(read, 40, 11..=12);
    assert!(session::outgoing_tests::news(&outgoing).waiters.is_empty());
    world.conversation.detach(key(2), world.now);
    outgoing.take(usize::MAX);
    let waiters = session::outgoing_tests::news(&outgoing).waiters;
    assert!(waiters.iter().any(|waiter| waiter.subscription == 3), "{waiters:?}");
    world.conversation.go_on(key(3));
    assert_eq!(world.waiting(), 2);
}

#[tokio::test]
async fn subscriptions_are_refused_while_the_log_can_not_be_read() {
    let (mut world, _reader) = World::at(40);
    let mut back = [world.resume(2, 30)];
    for tries in 0..=5 {
        let read = world.read();
        assert_eq!(read.tries, tries);
        world.conversation.log_was_read(read, Err(Refusal::unavailable("away")), world.now);
    }
    let events = back[0].take();
    assert!(matches!(events[..], [session::Event::Refused { .. }]), "{events:?}");
    assert_eq!(world.effects(), []);
    let mut again = world.resume(2, 30);
    let read = world.read();
    world.answer(read, 40, 31..=40);
    assert_eq!((again.resumed().recovered, again.seqs()), (true, (31..=40).collect()));
}

#[tokio::test]
async fn what_the_log_no_longer_holds_is_lost_only_for_those_who_need_it() {
    let (mut world, _reader) = World::at(40);
    let mut early = world.resume(2, 10);
    let read = world.read();
    let mut later = world.resume(3, 32);
    let page = Page { events: (31..=40).map(event).collect(), head: 40, epoch: 1, ..Page::default() };
    world.conversation.log_was_read(read, Ok(page), world.now);
    let resumed = early.resumed();
    assert_eq!((resumed.after_seq, resumed.recovered, early.seqs()), (40, false, vec![]));
    let resumed = later.resumed();
    assert_eq!((resumed.after_seq, resumed.recovered, later.seqs()), (32, true, (33..=40).collect()));
}

#[tokio::test]
async fn a_session_that_attaches_many_is_told_of_them_as_it_reads() {
    let (mut world, _reader) = World::at(10);
    let outgoing = session::outgoing_tests::queue(5_000, 600);
    for subscription in 2..22 {
        world.resume_into(&outgoing, subscription, 10, 10);
    }
    let (mut told, mut rounds) = (0, 0);
    while told < 20 && rounds < 20 {
        told += outgoing.take(usize::MAX).len();
        let news = session::outgoing_tests::news(&outgoing);
        assert!(!news.overflowed);
        news.waiters.iter().for_each(|waiter| world.conversation.go_on(key(waiter.subscription)));
        rounds += 1;
    }
    assert_eq!(told, 20);
    assert!(rounds > 3, "{rounds}");
    world.arrive([11]);
    assert_eq!(outgoing.take(usize::MAX).len(), 20);
}
