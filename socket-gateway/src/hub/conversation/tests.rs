mod paging;

use std::collections::VecDeque;

use proto::{record::Routing, stream_entry::StreamEntry};

use super::*;
use crate::{
    hub::{Head, Start},
    session::{Class, Outgoing},
};

const LIMITS: Limits = Limits {
    ring_events: 8,
    ring_bytes: 1 << 20,
    ring_age: Duration::from_secs(60),
    pending_bytes: 4096,
    page_bytes: 1 << 18,
};

pub fn entry(seq: i64, epoch: i64, event_type: &str, subject: i64) -> StreamEntry {
    StreamEntry {
        scope: proto::Scope::Conversation,
        key: 7,
        routing: Routing {
            event_id: format!("id-{seq}"),
            event_type: event_type.to_owned(),
            epoch,
            conversation_id: Some(7),
            seq: Some(seq),
            subject_id: (subject > 0).then_some(subject),
            user_seq: (subject > 0).then_some(seq * 10),
            ..Routing::default()
        },
        payload: format!("{{\"seq\":{seq}}}").into(),
        kafka_ms: 0,
        worker_us: 0,
    }
}

fn event(seq: i64) -> Arc<Event> {
    event_of(seq, 1, "MESSAGE", 0)
}

fn event_of(seq: i64, epoch: i64, event_type: &str, subject: i64) -> Arc<Event> {
    Arc::new(Event::live(7, seq, &entry(seq, epoch, event_type, subject)).unwrap())
}

/// A conversation whose log holds `log`, with core's answers given as they are asked for.
struct World {
    conversation: Conversation,
    now: Instant,
    /// Of the next subscriptions.
    head: Head,
}

/// A subscriber, and what it got.
struct Reader {
    key: SubscriptionKey,
    outgoing: Arc<Outgoing>,
    got: VecDeque<String>,
}

fn key(subscription: u32) -> SubscriptionKey {
    SubscriptionKey { session: 1, subscription }
}

fn member(head: i64) -> Attached {
    Attached { head, epoch: 1, visible: Visible::new([(1, 0)]), member: true }
}

impl World {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(8)));
        let now = Instant::now();
        let head = Head::plain("MESSAGE\nsubscription:s\n");
        let mut world = Self { conversation: Conversation::new(7, LIMITS, metrics, now), now, head };
        assert_eq!(world.effects(), [Effect::Announce]);
        world.conversation.announced(Ok(()), now);
        world
    }

    /// With a member at that head.
    fn at(head: i64) -> (Self, Reader) {
        let mut world = Self::new();
        let mut reader = world.subscribe(1, Start::Head, Ok(member(head)));
        assert_eq!(reader.resumed().after_seq, head);
        (world, reader)
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.conversation.effects)
    }

    fn subscribe(&mut self, subscription: u32, start: Start, answer: Result<Attached, Refusal>) -> Reader {
        self.subscribe_as(subscription, 5, Scope::Topic, start, answer)
    }

    fn subscribe_as(
        &mut self,
        subscription: u32,
        user: i64,
        scope: Scope,
        start: Start,
        answer: Result<Attached, Refusal>,
    ) -> Reader {
        let (reader, position) = self.ask(subscription, user, scope, start);
        self.conversation.attached(reader.key, answer, position, self.now);
        reader
    }

    /// A subscriber whose attaching read is on its way, and where the conversation stood when it began.
    fn ask(&mut self, subscription: u32, user: i64, scope: Scope, start: Start) -> (Reader, Option<i64>) {
        let outgoing = session::outgoing_tests::queue(1 << 20, 1 << 16);
        let attach = Attach {
            key: key(subscription),
            user,
            conversation: 7,
            scope,
            start,
            head: self.head.clone(),
            outgoing: Arc::clone(&outgoing),
            user_seq: None,
            joined_user_seq: Some(3),
        };
        self.conversation.attach(attach);
        let effects = self.effects();
        let [Effect::Attach { key: asked, position, .. }] = effects[..] else { panic!("{effects:?}") };
        (Reader { key: asked, outgoing, got: VecDeque::new() }, position)
    }

    /// Answers every attachment that a new epoch asks for.
    fn attach_afresh(&mut self, answer: Result<Attached, Refusal>) {
        let effects = self.effects();
        assert!(!effects.is_empty());
        for effect in effects {
            let Effect::Attach { key, position, .. } = effect else { panic!("{effect:?}") };
            self.conversation.attached(key, answer.clone(), position, self.now);
        }
    }

    fn arrive(&mut self, seqs: impl IntoIterator<Item = i64>) {
        for seq in seqs {
            self.conversation.arrived(event(seq), Stamp::default());
        }
    }

    fn read(&mut self) -> LogRead {
        let effects = self.effects();
        let [Effect::ReadLog(read)] = effects[..] else { panic!("expected one read: {effects:?}") };
        read
    }

    fn answer(&mut self, read: LogRead, head: i64, seqs: impl IntoIterator<Item = i64>) {
        let page = Page { events: seqs.into_iter().map(event).collect(), head, epoch: 1, complete: true, room: None };
        self.conversation.log_was_read(read, Ok(page), self.now);
    }
}

impl Reader {
    fn take(&mut self) -> Vec<session::Event> {
        self.got.extend(self.outgoing.take(usize::MAX).iter().map(|frame| crate::transport::text(frame).to_owned()));
        session::outgoing_tests::news(&self.outgoing).events
    }

    fn header(frame: &str, name: &str) -> Option<i64> {
        let line = frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.parse().ok()
    }

    /// The RESUMED that comes next.
    fn resumed(&mut self) -> ResumedData {
        self.take();
        let frame = self.got.pop_front().expect("a frame");
        assert!(frame.contains("event-type:RESUMED\n"), "{frame}");
        let body = frame.split("\n\n").nth(1).unwrap().trim_end_matches('\0');
        serde_json::from_value(serde_json::from_str::<serde_json::Value>(body).unwrap()["data"].clone()).unwrap()
    }

    /// The seqs that came since.
    fn seqs(&mut self) -> Vec<i64> {
        self.take();
        self.got.drain(..).map(|frame| Self::header(&frame, "seq").expect("a sequenced event")).collect()
    }
}

#[tokio::test]
async fn events_are_delivered_once_and_in_order_and_duplicates_dropped() {
    let (mut world, mut reader) = World::at(10);
    world.arrive([9, 10, 11, 11, 12, 11, 13]);
    assert_eq!(reader.seqs(), [11, 12, 13]);
    assert_eq!(world.effects(), []);
}

#[tokio::test]
async fn what_came_between_the_announcement_and_the_read_is_not_lost() {
    let mut world = World::new();
    world.arrive([9, 11, 12]);
    let mut reader = world.subscribe(1, Start::Head, Ok(member(10)));
    assert_eq!(reader.resumed().after_seq, 10);
    assert_eq!(reader.seqs(), [11, 12]);
}

#[tokio::test]
async fn a_gap_is_filled_from_the_log_before_anything_newer_goes_out() {
    let (mut world, mut reader) = World::at(10);
    world.arrive([13, 14]);
    assert!(reader.seqs().is_empty());
    let read = world.read();
    assert_eq!((read.reader, read.after, read.up_to), (super::Reader::Fill, 10, 12));
    world.arrive([15]);
    world.answer(read, 15, [11, 12]);
    assert_eq!(reader.seqs(), [11, 12, 13, 14, 15]);
    assert_eq!(world.effects(), []);
}

#[tokio::test]
async fn a_page_that_does_not_reach_is_followed_by_another() {
    let (mut world, mut reader) = World::at(10);
    world.arrive([14]);
    let read = world.read();
    world.answer(read, 14, [11]);
    let read = world.read();
    assert_eq!((read.after, read.up_to), (11, 13));
    world.answer(read, 14, [12, 13]);
    assert_eq!(reader.seqs(), [11, 12, 13, 14]);
}

#[tokio::test]
async fn waiting_events_over_the_bound_are_dropped_and_read_again() {
    let (mut world, mut reader) = World::at(10);
    world.arrive(12..60);
    let read = world.read();
    world.answer(read, 59, [11]);
    let before = reader.seqs();
    assert!(before.len() < 48 && before[0] == 11);
    let read = world.read();
    assert_eq!((read.after, read.up_to), (*before.last().unwrap(), 0));
    world.answer(read, 59, read.after + 1..60);
    assert_eq!(reader.seqs(), (read.after + 1..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_above_a_head_that_was_read_after_it_came_is_a_phantom() {
    let (mut world, mut reader) = World::at(10);
    world.arrive([13]);
    let read = world.read();
    world.answer(read, 10, []);
    assert_eq!((reader.seqs(), world.effects()), (vec![], vec![]));
    assert_eq!(world.conversation.metrics.phantoms.get(), 1);
    world.arrive([11]);
    assert_eq!(reader.seqs(), [11]);
}

#[tokio::test]
async fn a_record_that_came_after_the_read_began_is_no_phantom() {
    let (mut world, mut reader) = World::at(10);
    world.arrive([12]);
    let read = world.read();
    world.arrive([14]);
    world.answer(read, 12, [11]);
    assert_eq!(reader.seqs(), [11, 12]);
    let read = world.read();
    world.answer(read, 14, [13]);
    assert_eq!(reader.seqs(), [13, 14]);
}

#[tokio::test]
async fn a_gap_that_the_log_no_longer_holds_is_said_and_delivery_goes_on() {
    let (mut world, mut reader) = World::at(10);
    world.arrive([14]);
    let read = world.read();
    let page = Page { events: vec![event(13)], head: 14, epoch: 1, complete: false, room: None };
    world.conversation.log_was_read(read, Ok(page), world.now);
    let resumed = reader.resumed();
    assert_eq!((resumed.after_seq, resumed.recovered), (12, false));
    assert_eq!(reader.seqs(), [13, 14]);
}

#[tokio::test]
async fn a_page_that_live_events_have_overtaken_is_no_loss() {
    let (mut world, mut reader) = World::at(10);
    world.conversation.head_was_read(20, 1, Some(10), true);
    let read = world.read();
    world.arrive(11..=13);
    world.answer(read, 20, [11, 12]);
    assert_eq!(reader.seqs(), [11, 12, 13]);
    let read = world.read();
    assert_eq!((read.after, read.up_to), (13, 0));
    world.arrive([14]);
    world.answer(read, 20, []);
    assert_eq!(reader.seqs(), [14]);
    let read = world.read();
    world.answer(read, 20, 15..=20);
    assert_eq!(reader.seqs(), [15, 16, 17, 18, 19, 20]);
}

#[tokio::test]
async fn what_there_was_no_room_for_before_the_first_read_is_read_from_the_log() {
    let mut world = World::new();
    world.arrive(11..60);
    let mut reader = world.subscribe(1, Start::Head, Ok(member(10)));
    let effects = world.effects();
    let [Effect::ReadLog(fill), Effect::ReadLog(page)] = effects[..] else { panic!("{effects:?}") };
    assert_eq!((fill.reader, page.reader, page.after), (super::Reader::Fill, super::Reader::Followers, 10));
    assert!(10 < fill.after && fill.after < 59);
    world.answer(page, 59, 11..=page.up_to);
    world.answer(fill, 59, fill.after + 1..60);
    assert_eq!(reader.resumed().after_seq, 10);
    assert_eq!(reader.seqs(), (11..60).collect::<Vec<_>>());
}

/// A reader whose attaching read, of a member at 8, is answered behind another's, which has set the position to 10.
fn overtaken(start: Start) -> (World, Reader) {
    let mut world = World::new();
    let (slow, position) = world.ask(1, 5, Scope::Topic, start);
    world.subscribe_as(2, 6, Scope::Topic, Start::Head, Ok(member(10))).resumed();
    world.conversation.attached(slow.key, Ok(member(8)), position, world.now);
    world.arrive([11]);
    (world, slow)
}

/// Removed with 9.
fn page_with_the_end(first: i64) -> Page {
    let mut events: Vec<_> = (first..9).map(event).collect();
    events.extend([event_of(9, 1, "USER_LEFT", 5), event(10)]);
    Page { events, head: 11, epoch: 1, complete: true, room: None }
}

#[tokio::test]
async fn whose_membership_has_ended_since_the_attaching_read_gets_nothing_behind_its_end() {
    let (mut world, mut slow) = overtaken(Start::Head);
    let read = world.read();
    assert_eq!((read.after, read.up_to), (8, 10));
    assert!(slow.seqs().is_empty());
    world.conversation.log_was_read(read, Ok(page_with_the_end(9)), world.now);
    let events = slow.take();
    assert!(matches!(events[..], [.., session::Event::Ended { at_seq: 9, removed: true, .. }]), "{events:?}");
    assert_eq!(slow.resumed().after_seq, 8);
    assert_eq!(slow.seqs(), [9]);
}

#[tokio::test]
async fn where_the_log_has_lost_something_the_end_of_the_membership_is_still_found() {
    let (mut world, mut slow) = overtaken(Start::After { seq: 2, epoch: None });
    let read = world.read();
    assert_eq!((read.after, read.up_to), (2, 10));
    world.conversation.log_was_read(read, Ok(page_with_the_end(6)), world.now);
    let resumed = slow.resumed();
    assert_eq!((resumed.after_seq, resumed.recovered), (8, false));
    assert_eq!(slow.seqs(), [9]);
}

#[tokio::test]
async fn a_read_that_fails_is_tried_again() {
    let (mut world, mut reader) = World::at(10);
    world.arrive([12]);
    let read = world.read();
    world.conversation.log_was_read(read, Err(Refusal::unavailable("away")), world.now);
    let again = world.read();
    assert_eq!((again.after, again.tries), (10, 1));
    world.answer(again, 12, [11]);
    assert_eq!(reader.seqs(), [11, 12]);
}

#[tokio::test]
async fn a_lost_tail_is_found_by_the_second_comparison_and_at_once_in_doubt() {
    let (mut world, mut reader) = World::at(10);
    world.conversation.head_was_read(12, 1, Some(10), false);
    assert_eq!(world.effects(), []);
    world.conversation.head_was_read(12, 1, Some(10), false);
    let read = world.read();
    world.answer(read, 12, [11, 12]);
    assert_eq!(reader.seqs(), [11, 12]);
    world.conversation.head_was_read(13, 1, Some(12), true);
    let read = world.read();
    world.answer(read, 13, [13]);
    assert_eq!(reader.seqs(), [13]);
    // What arrives in time between two rounds is not read.
    world.conversation.head_was_read(14, 1, Some(13), false);
    world.arrive([14]);
    world.conversation.head_was_read(15, 1, Some(14), false);
    assert_eq!(world.effects(), []);
}

#[tokio::test]
async fn a_newer_epoch_starts_over_and_an_older_one_is_dropped() {
    let (mut world, mut reader) = World::at(10);
    world.conversation.arrived(event_of(8, 2, "MESSAGE", 0), Stamp::default());
    world.attach_afresh(Ok(Attached { epoch: 2, ..member(8) }));
    let resumed = reader.resumed();
    assert_eq!((resumed.after_seq, resumed.epoch, resumed.recovered), (7, 2, false));
    assert_eq!(reader.seqs(), [8]);
    world.arrive([11]);
    assert!(reader.seqs().is_empty());
    world.conversation.arrived(event_of(9, 2, "MESSAGE", 0), Stamp::default());
    assert_eq!(reader.seqs(), [9]);
    // Found by a comparison, too: a newer epoch, and a head that went back.
    world.conversation.head_was_read(4, 3, Some(9), false);
    world.attach_afresh(Ok(Attached { epoch: 3, ..member(4) }));
    assert_eq!((reader.resumed().after_seq, world.conversation.epoch), (4, 3));
    world.conversation.head_was_read(2, 3, Some(4), false);
    assert_eq!(reader.resumed().after_seq, 2);
}

#[tokio::test]
async fn who_is_no_member_in_the_restored_state_gets_nothing_of_the_new_epoch() {
    let (mut world, mut reader) = World::at(10);
    let mut queue = world.subscribe_as(2, 5, Scope::UserQueue, Start::Head, Ok(member(10)));
    queue.resumed();
    world.conversation.arrived(event_of(8, 2, "MESSAGE", 0), Stamp::default());
    let former = Attached { head: 8, epoch: 2, visible: Visible::new([(1, 3)]), member: false };
    world.attach_afresh(Ok(former));
    world.conversation.arrived(event_of(9, 2, "MESSAGE", 0), Stamp::default());
    let events = reader.take();
    assert!(reader.got.is_empty());
    let [session::Event::Refused { refusal, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(refusal.code, Code::NotAMember);
    let resumed = queue.resumed();
    assert_eq!((resumed.epoch, resumed.recovered, resumed.ended), (2, false, true));
    assert!(queue.seqs().is_empty());
}

#[tokio::test]
async fn what_comes_while_a_subscriber_is_attached_to_the_new_epoch_is_delivered_to_it() {
    let (mut world, mut reader) = World::at(10);
    world.conversation.head_was_read(4, 2, Some(10), false);
    // Core is not back yet: it is asked again with the next comparison.
    world.attach_afresh(Err(Refusal::unavailable("away")));
    world.conversation.arrived(event_of(5, 2, "MESSAGE", 0), Stamp::default());
    world.conversation.head_was_read(5, 2, Some(5), false);
    world.attach_afresh(Ok(Attached { epoch: 2, ..member(5) }));
    assert_eq!((reader.resumed().after_seq, reader.seqs()), (4, vec![5]));
}

#[tokio::test]
async fn a_conversation_that_the_restored_state_does_not_know_ends() {
    let (mut world, mut reader) = World::at(10);
    world.conversation.is_unknown(1);
    assert_eq!(world.effects(), []);
    world.conversation.is_unknown(2);
    world.attach_afresh(Err(Refusal::new(Code::NotFound, "there is no such conversation")));
    assert!(matches!(reader.take()[..], [session::Event::Refused { .. }]));
    assert!(world.conversation.idle_since().is_some());
}

#[tokio::test]
async fn a_head_is_not_compared_with_what_came_after_its_read_began() {
    let (mut world, mut reader) = World::at(10);
    world.arrive([11, 12]);
    world.conversation.head_was_read(11, 1, Some(10), false);
    assert_eq!(reader.seqs(), [11, 12]);
    assert_eq!(world.conversation.position(), Some(12));
}

#[tokio::test]
async fn who_comes_back_is_served_from_the_ring_and_goes_on_live() {
    let (mut world, _reader) = World::at(10);
    world.arrive(11..=14);
    let after = Start::After { seq: 12, epoch: Some(1) };
    let mut back = world.subscribe(2, after, Ok(member(14)));
    let resumed = back.resumed();
    assert_eq!((resumed.after_seq, resumed.head, resumed.tier, resumed.recovered), (12, 14, Tier::Ring, true));
    world.arrive([15]);
    assert_eq!(back.seqs(), [13, 14, 15]);
}

#[tokio::test]
async fn who_was_away_for_longer_is_served_from_the_log_without_hole_or_double() {
    let (mut world, _reader) = World::at(10);
    world.arrive(11..=12);
    let mut back = world.subscribe(2, Start::After { seq: 7, epoch: None }, Ok(member(12)));
    assert_eq!(back.take().len(), 0);
    let read = world.read();
    assert_eq!((read.reader, read.after, read.up_to), (super::Reader::Followers, 7, 10));
    world.arrive([13]);
    world.answer(read, 13, [8, 9]);
    let resumed = back.resumed();
    assert_eq!((resumed.after_seq, resumed.tier, resumed.recovered), (7, Tier::Log, true));
    assert_eq!(back.seqs(), [8, 9]);
    let read = world.read();
    world.answer(read, 13, [10]);
    world.arrive([14]);
    assert_eq!(back.seqs(), [10, 11, 12, 13, 14]);
}

#[tokio::test]
async fn what_can_not_be_resumed_goes_on_from_the_head() {
    let (mut world, _reader) = World::at(10);
    let ahead = Start::After { seq: 11, epoch: Some(1) };
    let older = Start::After { seq: 5, epoch: Some(0) };
    for (subscription, start) in [(2, ahead), (3, older)] {
        let mut back = world.subscribe(subscription, start, Ok(member(10)));
        let resumed = back.resumed();
        assert_eq!((resumed.after_seq, resumed.recovered, resumed.tier), (10, false, Tier::Live));
    }
    let mut back = world.subscribe(4, Start::After { seq: 2, epoch: Some(1) }, Ok(member(10)));
    let read = world.read();
    let page = Page { events: vec![event(6)], head: 10, epoch: 1, complete: false, room: None };
    world.conversation.log_was_read(read, Ok(page), world.now);
    let resumed = back.resumed();
    assert_eq!((resumed.after_seq, resumed.recovered), (10, false));
    world.arrive([11]);
    assert_eq!(back.seqs(), [11]);
}

#[tokio::test]
async fn a_subscription_ahead_of_the_position_gets_nothing_twice() {
    let (mut world, _reader) = World::at(10);
    let mut ahead = world.subscribe(2, Start::Head, Ok(member(12)));
    assert_eq!(ahead.resumed().after_seq, 12);
    world.arrive(11..=13);
    assert_eq!(ahead.seqs(), [13]);
}

#[tokio::test]
async fn a_replay_is_paced_by_the_sessions_queue() {
    let (mut world, _reader) = World::at(10);
    world.arrive(11..=14);
    let outgoing = session::outgoing_tests::queue(1 << 20, 1);
    let attach = Attach {
        key: key(2),
        user: 5,
        conversation: 7,
        scope: Scope::Topic,
        start: Start::After { seq: 11, epoch: None },
        head: Head::plain("MESSAGE\n"),
        outgoing: Arc::clone(&outgoing),
        user_seq: None,
        joined_user_seq: None,
    };
    world.conversation.attach(attach);
    world.effects();
    world.conversation.attached(key(2), Ok(member(14)), Some(14), world.now);
    let mut back = Reader { key: key(2), outgoing, got: VecDeque::new() };
    back.resumed();
    let mut got = Vec::new();
    for _ in 0..3 {
        world.conversation.go_on(back.key);
        let now = back.seqs();
        assert_eq!(now.len(), 1);
        got.extend(now);
    }
    world.arrive([15]);
    world.conversation.go_on(back.key);
    got.extend(back.seqs());
    world.conversation.go_on(back.key);
    got.extend(back.seqs());
    assert_eq!(got, [12, 13, 14, 15]);
}

#[tokio::test]
async fn invisible_seqs_are_skipped_and_named() {
    let (mut world, _reader) = World::at(10);
    world.arrive(11..=16);
    let visible = Visible::new([(10, 12), (15, 0)]);
    let attached = Attached { head: 16, epoch: 1, visible, member: true };
    let mut back = world.subscribe(2, Start::After { seq: 10, epoch: None }, Ok(attached));
    assert_eq!(back.resumed().skipped, [[13, 14]]);
    world.arrive([17]);
    assert_eq!(back.seqs(), [11, 12, 15, 16, 17]);
}

#[tokio::test]
async fn who_is_removed_gets_their_own_leaving_and_nothing_after_it() {
    let (mut world, mut reader) = World::at(10);
    let mut other = world.subscribe_as(2, 6, Scope::Topic, Start::Head, Ok(member(10)));
    other.resumed();
    world.conversation.arrived(event_of(11, 1, "USER_LEFT", 5), Stamp::default());
    world.arrive([12]);
    let ended = reader.take();
    assert!(matches!(ended[..], [session::Event::Ended { conversation: 7, at_seq: 11, removed: true, .. }]));
    assert_eq!(Reader::header(&reader.got[0], "user-seq"), Some(110));
    assert_eq!(reader.seqs(), [11]);
    other.take();
    assert_eq!(Reader::header(&other.got[0], "user-seq"), None);
    assert_eq!(other.seqs(), [11, 12]);
}

#[tokio::test]
async fn a_leaving_from_before_the_membership_does_not_end_it() {
    let (mut world, _reader) = World::at(10);
    // Left with 11 and joined again with 13, which have not come yet.
    let mut back = world.subscribe(2, Start::After { seq: 10, epoch: None }, Ok(member(13)));
    assert!(back.resumed().recovered);
    world.conversation.arrived(event_of(11, 1, "USER_LEFT", 5), Stamp::default());
    world.arrive([12]);
    world.conversation.arrived(event_of(13, 1, "USER_JOINED", 5), Stamp::default());
    world.arrive([14]);
    assert!(back.take().is_empty(), "the membership lasts");
    assert_eq!(back.seqs(), [11, 12, 13, 14]);
    world.conversation.arrived(event_of(15, 1, "USER_LEFT", 5), Stamp::default());
    assert!(matches!(back.take()[..], [session::Event::Ended { at_seq: 15, removed: true, .. }]));
}

#[tokio::test]
async fn a_leaving_after_a_head_that_went_back_ends_the_membership() {
    let (mut world, _reader) = World::at(10);
    let mut ahead = world.subscribe(2, Start::Head, Ok(member(13)));
    ahead.resumed();
    world.conversation.head_was_read(9, 1, Some(10), false);
    assert!(!ahead.resumed().recovered);
    world.conversation.arrived(event_of(10, 1, "USER_LEFT", 5), Stamp::default());
    assert!(matches!(ahead.take()[..], [session::Event::Ended { at_seq: 10, removed: true, .. }]));
}

#[tokio::test]
async fn a_former_member_who_resumes_gets_what_came_before_and_then_the_end() {
    let (mut world, _reader) = World::at(10);
    world.arrive(11..=14);
    let former = || Attached { head: 14, epoch: 1, visible: Visible::new([(1, 13)]), member: false };
    let mut back = world.subscribe(2, Start::After { seq: 11, epoch: None }, Ok(former()));
    assert_eq!((back.resumed().recovered, back.got.len()), (true, 3));
    let end = back.got.pop_back().unwrap();
    assert!(end.contains("\"ended\":true"), "{end}");
    assert_eq!(back.seqs(), [12, 13]);
    world.arrive([15]);
    assert!(back.seqs().is_empty());
    let mut fresh = world.subscribe(3, Start::Head, Ok(former()));
    let refused = fresh.take();
    assert!(matches!(&refused[..], [session::Event::Refused { refusal, .. }] if refusal.code == Code::NotAMember));
}

#[tokio::test]
async fn on_the_users_queue_nothing_is_refused_that_may_not_be_seen() {
    let mut world = World::new();
    let refusal = Refusal::new(Code::NotAMember, "never was one");
    let mut reader = world.subscribe_as(1, 5, Scope::UserQueue, Start::Head, Err(refusal));
    let resumed = reader.resumed();
    assert_eq!((resumed.recovered, resumed.ended), (false, true));
    assert!(world.conversation.idle_since().is_some());
}

#[tokio::test]
async fn who_left_before_the_users_queue_was_attached_is_told_so_and_not_refused() {
    let mut world = World::new();
    let left = Attached { head: 12, epoch: 1, visible: Visible::new([(1, 12)]), member: false };
    let mut reader = world.subscribe_as(1, 5, Scope::UserQueue, Start::Head, Ok(left));
    let events = reader.take();
    assert!(matches!(events[..], [session::Event::Ended { at_seq: 12, removed: false, .. }]), "{events:?}");
    let resumed = reader.resumed();
    assert_eq!((resumed.after_seq, resumed.recovered, resumed.ended), (12, true, true));
}

#[tokio::test]
async fn a_conversation_whose_last_member_was_removed_becomes_idle() {
    let (mut world, _reader) = World::at(10);
    world.conversation.arrived(event_of(11, 1, "USER_LEFT", 5), Stamp::default());
    world.conversation.note_idle(world.now);
    assert_eq!(world.conversation.idle_since(), Some(world.now));
}

#[tokio::test]
async fn a_join_starts_with_itself_and_the_first_event_carries_the_initial_members_user_seq() {
    let mut world = World::new();
    let mut reader = world.subscribe_as(1, 5, Scope::UserQueue, Start::Join { seq: 1 }, Ok(member(2)));
    let read = world.read();
    let page = Page {
        events: vec![event_of(1, 1, "CONVERSATION_CREATED", 0), event(2)],
        head: 2,
        epoch: 1,
        complete: true,
        room: None,
    };
    world.conversation.log_was_read(read, Ok(page), world.now);
    assert_eq!((reader.resumed().after_seq, reader.got.len()), (0, 2));
    assert_eq!(reader.got.iter().map(|f| Reader::header(f, "user-seq")).collect::<Vec<_>>(), [Some(3), None]);
}

#[tokio::test]
async fn a_deleted_message_is_forgotten_by_the_ring_and_by_reads_under_way() {
    let (mut world, _reader) = World::at(10);
    world.arrive(11..=12);
    let mut back = world.subscribe(2, Start::After { seq: 8, epoch: None }, Ok(member(12)));
    let read = world.read();
    let mut deleted = entry(13, 1, "MESSAGE_DELETED", 0);
    deleted.routing.target_seq = Some(11);
    world.conversation.arrived(Arc::new(Event::live(7, 13, &deleted).unwrap()), Stamp::default());
    world.answer(read, 13, [9, 10]);
    assert!(back.seqs().is_empty());
    let again = world.read();
    assert_eq!((again.after, again.up_to), (8, 11));
}

#[tokio::test]
async fn unsequenced_events_go_to_members_only() {
    let (mut world, mut reader) = World::at(10);
    let arrival = Arrival { entry: entry(0, 1, "TYPING", 0), stamp: Stamp::default() };
    world.conversation.arrived_unsequenced(&arrival);
    reader.take();
    assert!(reader.got[0].contains("message-id:u-id-0\n"));
}

#[tokio::test]
async fn who_acknowledges_gets_an_ack_id_with_every_frame_be_it_live_replayed_or_unsequenced() {
    let (mut world, _reader) = World::at(10);
    world.arrive([11]);
    world.head = Head::with_ack("MESSAGE\nsubscription:a\n", 4);
    let mut reader = world.subscribe(2, Start::After { seq: 10, epoch: None }, Ok(member(11)));
    world.arrive([12]);
    let arrival = Arrival { entry: entry(0, 1, "TYPING", 0), stamp: Stamp::default() };
    world.conversation.arrived_unsequenced(&arrival);
    let noted = reader.take().into_iter().filter_map(|event| match event {
        session::Event::Delivered { subscription: 2, conversation: 7, seq } => Some(seq),
        _ => None,
    });
    assert_eq!(noted.collect::<Vec<_>>(), [11, 12]);
    let ids = reader.got.iter().map(|frame| frame.lines().nth(2).unwrap_or_default());
    let ids: Vec<_> = ids.filter_map(|line| line.strip_prefix("ack:4-")).collect();
    assert!(ids[0].starts_with("u-"), "RESUMED: {ids:?}");
    assert_eq!(ids[1..], ["7-11", "7-12", "u-id-0"]);
}

#[tokio::test]
async fn a_subscription_whose_session_is_gone_is_dropped() {
    let (mut world, reader) = World::at(10);
    reader.outgoing.close();
    world.arrive([11]);
    world.conversation.detach(key(9), world.now);
    assert!(world.conversation.idle_since().is_some());
    assert_eq!(reader.outgoing.push(Class::Control, "x".into()), crate::session::Pushed::Closed);
}
