//! For each promise a history that breaks it, and one that nearly does.

mod random;
mod two_clients;
pub(crate) mod world;

use std::collections::BTreeSet;

use self::world::World;
use super::*;
use crate::history::{At, Change, ClientRecord, Cursor, Floors, Resume};

type Records = Vec<At<ClientRecord>>;

/// A run, to be changed before it is judged.
pub(crate) struct Run {
    pub histories: Histories,
    pub truth: Vec<TruthRecord>,
}

const ALICE: usize = 0;
pub(crate) const BOB: usize = 1;

impl Run {
    pub fn of(mut world: World) -> Self {
        let (histories, truth) = world.end();
        Self { histories, truth }
    }

    pub fn records(&mut self, client: usize) -> &mut Records {
        &mut self.histories.clients[client].records
    }

    /// Which record of the client is the first that fits.
    fn index(&self, client: usize, fits: impl Fn(&ClientRecord) -> bool) -> usize {
        let found = self.histories.clients[client].records.iter().position(|at| fits(&at.record));
        found.expect("there is such a record")
    }

    /// Which record is the delivery of this seq to the client's subscription `mine`.
    pub fn delivery(&self, client: usize, seq: i64) -> usize {
        self.index(client, |record| {
            matches!(record, ClientRecord::Message { seq: of, subscription, .. } if *of == seq && subscription == "mine")
        })
    }

    fn stored(&mut self, fits: impl Fn(&TruthRecord) -> bool) -> &mut TruthRecord {
        self.truth.iter_mut().find(|record| fits(record)).expect("there is such a record")
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        check(&self.histories, &self.truth).findings.iter().map(|finding| finding.kind).collect()
    }

    #[track_caller]
    fn is_clean(&self) {
        let findings = check(&self.histories, &self.truth).findings;
        assert!(findings.is_empty(), "{findings:#?}");
    }

    #[track_caller]
    fn breaks(&self, kinds: &[Kind]) {
        let findings = check(&self.histories, &self.truth).findings;
        let found: BTreeSet<Kind> = findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(found, kinds.iter().copied().collect(), "{findings:#?}");
    }
}

/// Alice and bob follow all that is theirs, `mine`; both are in the channel 7. Alice has sent 7-2 to 7-4.
pub(crate) fn three() -> World {
    let mut world = World::new();
    for (name, user) in [("alice", 1), ("bob", 2)] {
        world.person(name, user);
    }
    world.room(7, "channel", &[1, 2]);
    for person in [ALICE, BOB] {
        world.connect(person);
        world.subscribe(person, "mine", None);
    }
    for _ in 0..3 {
        world.send(ALICE, 7);
        world.answer(ALICE);
        world.pump_all();
    }
    world
}

/// Bob was cut off behind 7-4, has missed 7-5 and 7-6, and is back.
pub(crate) fn resumed() -> World {
    let mut world = three();
    world.disconnect(BOB);
    world.send(ALICE, 7);
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.connect(BOB);
    world.pump_all();
    world
}

fn is_message(record: &TruthRecord, seq: i64) -> bool {
    matches!(record, TruthRecord::Message { conversation: 7, seq: of, .. } if *of == seq)
}

fn is_event(record: &TruthRecord, seq: i64) -> bool {
    matches!(record, TruthRecord::Event { conversation: 7, seq: of, .. } if *of == seq)
}

#[test]
fn what_keeps_the_promise_is_clean() {
    let run = Run::of(resumed());
    run.is_clean();
    let shown = check(&run.histories, &run.truth).shown;
    assert_eq!((shown.acknowledged, shown.deliveries, shown.sessions), (5, 10, 3));
    assert_eq!(shown.resumes, [("ring".to_owned(), 1)].into());
}

#[test]
fn an_acknowledged_message_that_is_not_stored_or_elsewhere_or_another_is_lost() {
    let mut gone = Run::of(three());
    gone.truth.retain(|record| !is_message(record, 4));
    assert!(gone.kinds().contains(&Kind::AcknowledgedLost));

    let mut elsewhere = Run::of(three());
    let answer = elsewhere.index(ALICE, |record| matches!(record, ClientRecord::Acknowledged { seq: 4, .. }));
    if let ClientRecord::Acknowledged { seq, .. } = &mut elsewhere.records(ALICE)[answer].record {
        *seq = 3;
    }
    elsewhere.breaks(&[Kind::AcknowledgedLost]);

    let mut another = Run::of(three());
    if let ClientRecord::Acknowledged { message_id, .. } = &mut another.records(ALICE)[answer].record {
        *message_id += 1;
    }
    another.breaks(&[Kind::AcknowledgedLost]);
}

#[test]
fn a_message_that_was_never_answered_may_be_stored_or_not() {
    let mut world = three();
    world.send(ALICE, 7);
    world.disconnect(ALICE);
    world.connect(ALICE);
    world.send_in_vain(ALICE, 7);
    world.disconnect(ALICE);
    let mut run = Run::of(world);
    run.is_clean();
    // Without the second try, the message that was in vain is stored nowhere.
    let last = run.index(ALICE, |record| {
        matches!(record, ClientRecord::Send { session: 3, client_message_id, .. } if client_message_id == "m5")
    });
    run.records(ALICE).truncate(last);
    assert!(!run.kinds().contains(&Kind::AcknowledgedLost));
}

#[test]
fn one_message_under_two_seqs_is_stored_twice() {
    let mut world = three();
    world.send(ALICE, 7);
    world.disconnect(ALICE);
    world.connect(ALICE);
    world.answer(ALICE);
    let run = Run::of(world);
    run.is_clean();

    // The retry got a name of its own.
    let mut renamed = Run { histories: run.histories.clone(), truth: run.truth.clone() };
    let text_of_5 = match run.truth.iter().find(|record| is_message(record, 5)) {
        Some(TruthRecord::Message { text, .. }) => text.clone(),
        _ => unreachable!(),
    };
    if let TruthRecord::Message { text, client_message_id, .. } = renamed.stored(|record| is_message(record, 4)) {
        (*text, *client_message_id) = (text_of_5, "of the gateway".to_owned());
    }
    assert!(renamed.kinds().contains(&Kind::StoredTwice));

    // The same name twice.
    let mut twice = Run { histories: run.histories.clone(), truth: run.truth.clone() };
    if let TruthRecord::Message { client_message_id, .. } = twice.stored(|record| is_message(record, 4)) {
        *client_message_id = "m4".to_owned();
    }
    assert!(twice.kinds().contains(&Kind::StoredTwice));

    // Two answers.
    let mut answers = Run { histories: run.histories, truth: run.truth };
    let answer = answers.index(ALICE, |record| matches!(record, ClientRecord::Acknowledged { seq: 5, .. }));
    let mut again = answers.records(ALICE)[answer].clone();
    if let ClientRecord::Acknowledged { seq, .. } = &mut again.record {
        *seq = 6;
    }
    answers.records(ALICE).insert(answer + 1, again);
    assert!(answers.kinds().contains(&Kind::StoredTwice));
}

/// Alice's last SEND was answered with this code instead of a RECEIPT.
fn refused(code: &str) -> Run {
    let mut run = Run::of(three());
    let answer = run.index(ALICE, |record| matches!(record, ClientRecord::Acknowledged { seq: 4, .. }));
    run.records(ALICE)[answer].record = ClientRecord::Refused {
        session: 1,
        conversation: 7,
        client_message_id: "m3".to_owned(),
        code: code.to_owned(),
    };
    run
}

#[test]
fn what_was_refused_for_good_is_not_stored_and_what_may_be_tried_again_may_be() {
    refused("not_a_member").breaks(&[Kind::RefusedStored]);
    refused("unavailable").is_clean();
    // A first try may have been stored before the second was refused.
    let mut run = refused("not_a_member");
    let first = run.index(ALICE, |record| matches!(record, ClientRecord::Send { .. }));
    let mut earlier = run.records(ALICE)[first].clone();
    if let ClientRecord::Send { client_message_id, text, .. } = &mut earlier.record {
        (*client_message_id, *text) = ("m3".to_owned(), crate::history::digest(b"text 3"));
    }
    run.records(ALICE).insert(first, earlier);
    run.is_clean();
}

#[test]
fn a_stored_message_that_nobody_sent_or_with_another_text_is_found() {
    let mut run = Run::of(three());
    for record in run.truth.iter_mut().filter(|record| is_message(record, 3) || is_event(record, 3)) {
        match record {
            TruthRecord::Message { text, .. } => *text = "other".to_owned(),
            TruthRecord::Event { says: Some(says), .. } => says.message.as_mut().unwrap().text = "other".to_owned(),
            _ => {}
        }
    }
    run.breaks(&[Kind::NotSent]);

    let mut run = Run::of(three());
    let sent = run.index(ALICE, |record| matches!(record, ClientRecord::Send { .. }));
    run.records(ALICE).retain(|at| !matches!(&at.record, ClientRecord::Acknowledged { seq: 2, .. }));
    run.records(ALICE).remove(sent);
    run.breaks(&[Kind::NotSent]);
}

/// Two messages of one session, the second overtaken by the first; `answered` says whether it was sent after that was
/// answered.
fn overtaken(answered: bool) -> Run {
    let mut world = three();
    world.send(ALICE, 7);
    if answered {
        world.answer(ALICE);
    }
    world.send(ALICE, 7);
    world.answer(ALICE);
    let mut run = Run::of(world);
    let renamed = |id: &str| match id {
        "m4" => Some("m5".to_owned()),
        "m5" => Some("m4".to_owned()),
        _ => None,
    };
    for at in &mut run.histories.clients[ALICE].records {
        if let ClientRecord::Send { client_message_id, text, .. } = &mut at.record
            && let Some(other) = renamed(client_message_id)
        {
            *text = crate::history::digest(format!("text {}", &other[1..]).as_bytes());
            *client_message_id = other;
        }
    }
    run
}

#[test]
fn messages_of_one_session_are_stored_in_the_order_in_which_they_were_sent() {
    overtaken(false).breaks(&[Kind::SendOrder]);
    // One that was refused in between may come later.
    let mut run = overtaken(false);
    let first = run.index(
        ALICE,
        |record| matches!(record, ClientRecord::Send { client_message_id, .. } if client_message_id == "m5"),
    );
    let at = run.records(ALICE)[first].at;
    let record = ClientRecord::Refused {
        session: 1,
        conversation: 7,
        client_message_id: "m5".to_owned(),
        code: "unavailable".to_owned(),
    };
    run.records(ALICE).insert(first + 1, At { at, record });
    run.is_clean();
}

#[test]
fn a_message_that_was_sent_after_an_answer_comes_behind_that() {
    assert!(overtaken(true).kinds().contains(&Kind::SendOrder));
    // Nothing is said of two clients that don't know of each other.
    let mut world = three();
    world.send(ALICE, 7);
    world.send(BOB, 7);
    world.answer(BOB);
    world.answer(ALICE);
    Run::of(world).is_clean();
}

#[test]
fn sends_of_a_broken_session_that_are_tried_again_in_another_order_are_no_breach() {
    let mut world = three();
    world.send_in_vain(ALICE, 7);
    world.send_in_vain(ALICE, 7);
    world.disconnect(ALICE);
    world.connect(ALICE);
    world.answer(ALICE);
    let run = Run::of(world);
    run.is_clean();
    // The second try in the other order, and so they are stored.
    let mut turned = overtaken(false);
    let sends: Vec<usize> = (0..turned.records(ALICE).len())
        .filter(|index| {
            let record = &turned.histories.clients[ALICE].records[*index].record;
            matches!(record, ClientRecord::Send { client_message_id, .. } if client_message_id >= &"m4".to_owned())
        })
        .collect();
    let again: Records = sends.iter().rev().map(|index| turned.records(ALICE)[*index].clone()).collect();
    let behind = sends[1] + 1;
    let cut = ClientRecord::Disconnected { session: 1, why: "cut".to_owned() };
    let back = ClientRecord::Connected { session: 2, gateway: "one".to_owned() };
    let at = again[0].at;
    let rest = turned.records(ALICE).split_off(behind);
    turned.records(ALICE).extend([At { at, record: cut }, At { at, record: back }]);
    for mut send in again {
        if let ClientRecord::Send { session, .. } = &mut send.record {
            *session = 2;
        }
        turned.records(ALICE).push(send);
    }
    turned.records(ALICE).extend(rest.into_iter().filter(|at| matches!(at.record, ClientRecord::Acknowledged { .. })));
    assert!(!turned.kinds().contains(&Kind::SendOrder));
}

#[test]
fn a_log_with_a_hole_or_with_a_row_without_its_event_or_the_reverse_is_broken() {
    Run::of(three()).is_clean();
    let mut no_event = Run::of(three());
    no_event.truth.retain(|record| !is_event(record, 3));
    assert!(no_event.kinds().contains(&Kind::LogBroken));
    let mut no_row = refused("unavailable");
    no_row.truth.retain(|record| !is_message(record, 4));
    no_row.breaks(&[Kind::LogBroken]);
    let mut wrong_head = Run::of(three());
    if let TruthRecord::Conversation { last_seq, .. } =
        wrong_head.stored(|record| matches!(record, TruthRecord::Conversation { .. }))
    {
        *last_seq = 3;
    }
    assert!(wrong_head.kinds().contains(&Kind::LogBroken));
    let mut wrong_payload = Run::of(three());
    if let TruthRecord::Event { says: Some(says), .. } = wrong_payload.stored(|record| is_event(record, 3)) {
        says.seq = 4;
    }
    wrong_payload.breaks(&[Kind::LogBroken]);
    let mut no_user_event = Run::of(three());
    no_user_event.truth.retain(|record| !matches!(record, TruthRecord::UserEvent { user: 2, .. }));
    no_user_event.breaks(&[Kind::LogBroken]);
    let mut other_membership = Run::of(three());
    if let TruthRecord::Member { left_seq, left_user_seq, .. } =
        other_membership.stored(|record| matches!(record, TruthRecord::Member { user: 2, .. }))
    {
        (*left_seq, *left_user_seq) = (Some(4), Some(2));
    }
    assert!(other_membership.kinds().contains(&Kind::LogBroken));
}

#[test]
fn an_event_that_never_came_is_lost() {
    let mut run = Run::of(three());
    let last = run.delivery(BOB, 4);
    run.records(BOB).remove(last);
    run.breaks(&[Kind::Lost]);
    // The first of a session that resumed: the rest says that it was passed over.
    let mut run = Run::of(resumed());
    let missed = run.delivery(BOB, 5);
    run.records(BOB).remove(missed);
    run.breaks(&[Kind::Lost, Kind::Gap]);
    // What was missed, and comes by another session, is not.
    Run::of(resumed()).is_clean();
}

#[test]
fn what_a_client_did_not_stay_for_is_not_lost() {
    let mut world = three();
    world.subscribe(BOB, "once", Some(7));
    world.unsubscribe(BOB, 1);
    world.send(ALICE, 7);
    world.answer(ALICE);
    Run::of(world).is_clean();
}

#[test]
fn a_subscription_beside_another_is_a_stream_of_its_own() {
    let mut world = three();
    world.subscribe(BOB, "also", Some(7));
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.pump_all();
    let run = Run::of(world);
    run.is_clean();
    let mut run = run;
    let second = run.index(
        BOB,
        |record| matches!(record, ClientRecord::Message { seq: 5, subscription, .. } if subscription == "also"),
    );
    run.records(BOB).remove(second);
    run.breaks(&[Kind::Lost]);
}

#[test]
fn an_event_that_comes_again_is_found_within_a_session_and_across_sessions() {
    let mut run = Run::of(three());
    let last = run.delivery(BOB, 4);
    let again = run.records(BOB)[last].clone();
    run.records(BOB).insert(last + 1, again);
    run.breaks(&[Kind::Twice]);
    // Resumed from 4, and 4 comes again.
    let mut run = Run::of(resumed());
    let (earlier, next) = (run.delivery(BOB, 4), run.delivery(BOB, 5));
    let mut again = run.records(BOB)[earlier].clone();
    if let ClientRecord::Message { session, .. } = &mut again.record {
        *session = 2;
    }
    run.records(BOB).insert(next, again);
    run.breaks(&[Kind::Twice]);
}

#[test]
fn a_client_that_asks_for_some_of_it_again_gets_it_again() {
    let mut run = Run::of(resumed());
    let subscribed = run.index(BOB, |record| matches!(record, ClientRecord::Subscribed { session: 2, .. }));
    if let ClientRecord::Subscribed { resume: Some(resume), .. } = &mut run.records(BOB)[subscribed].record {
        resume.cursors[0].seq = 3;
    }
    if let ClientRecord::Resumed { after_seq, .. } = &mut run.records(BOB)[subscribed + 1].record {
        *after_seq = 3;
    }
    let earlier = run.delivery(BOB, 4);
    let mut again = run.records(BOB)[earlier].clone();
    if let ClientRecord::Message { session, .. } = &mut again.record {
        *session = 2;
    }
    run.records(BOB).insert(subscribed + 2, again);
    run.is_clean();
}

#[test]
fn events_in_another_order_are_found() {
    let mut run = Run::of(three());
    let (one, other) = (run.delivery(BOB, 3), run.delivery(BOB, 4));
    run.records(BOB).swap(one, other);
    run.breaks(&[Kind::Disorder, Kind::Gap]);
}

#[test]
fn nothing_comes_before_its_resumed_and_what_is_followed_has_one() {
    let mut run = Run::of(three());
    let resumed = run.index(BOB, |record| matches!(record, ClientRecord::Resumed { .. }));
    run.records(BOB).remove(resumed);
    assert!(run.kinds().contains(&Kind::Start));
    // In silence.
    let mut world = World::new();
    world.person("alice", 1);
    world.room(7, "channel", &[1]);
    world.connect(ALICE);
    world.subscribe(ALICE, "mine", None);
    let mut run = Run::of(world);
    run.is_clean();
    run.records(ALICE).retain(|at| !matches!(at.record, ClientRecord::Resumed { .. }));
    run.breaks(&[Kind::Start]);
}

#[test]
fn a_start_behind_what_was_not_sent_yet_is_found() {
    let mut run = Run::of(three());
    let resumed = run.index(BOB, |record| matches!(record, ClientRecord::Resumed { .. }));
    if let ClientRecord::Resumed { after_seq, .. } = &mut run.records(BOB)[resumed].record {
        *after_seq = 2;
    }
    run.records(BOB).retain(|at| !matches!(at.record, ClientRecord::Message { seq: 2, .. }));
    run.breaks(&[Kind::Start]);
}

#[test]
fn a_client_that_is_told_that_something_is_missing_was_owed_it() {
    let mut run = Run::of(resumed());
    let resumed = run.index(BOB, |record| matches!(record, ClientRecord::Resumed { session: 2, .. }));
    if let ClientRecord::Resumed { after_seq, recovered, .. } = &mut run.records(BOB)[resumed].record {
        (*after_seq, *recovered) = (6, false);
    }
    run.records(BOB).retain(|at| !matches!(at.record, ClientRecord::Message { seq: 5 | 6, .. }));
    run.breaks(&[Kind::NotRecovered]);
    // A newer epoch is a reason.
    if let ClientRecord::Resumed { epoch, .. } = &mut run.records(BOB)[resumed].record {
        *epoch = 2;
    }
    run.is_clean();
    // And then `recovered: true` is wrong.
    if let ClientRecord::Resumed { recovered, .. } = &mut run.records(BOB)[resumed].record {
        *recovered = true;
    }
    run.breaks(&[Kind::NotRecovered]);
}

#[test]
fn a_cursor_that_nobody_gave_is_a_fault_of_the_history() {
    let mut run = Run::of(resumed());
    let subscribed = run.index(BOB, |record| matches!(record, ClientRecord::Subscribed { session: 2, .. }));
    if let ClientRecord::Subscribed { resume: Some(Resume { cursors, .. }), .. } =
        &mut run.records(BOB)[subscribed].record
    {
        cursors[0].seq = 6;
    }
    assert!(run.kinds().contains(&Kind::BadHistory));
}

#[test]
fn content_that_differs_from_the_row_is_found() {
    type Edit = fn(&mut String, &mut String, &mut String);
    let changes: [Edit; 3] =
        [|body, _, _| body.push('x'), |_, event_type, _| event_type.push('x'), |_, _, event_id| event_id.push('x')];
    for change in changes {
        let mut run = Run::of(three());
        let index = run.delivery(BOB, 3);
        if let ClientRecord::Message { body, event_type, event_id, .. } = &mut run.records(BOB)[index].record {
            change(body, event_type, event_id);
        }
        run.breaks(&[Kind::WrongContent]);
    }
    // A seq that the log does not have.
    let mut run = Run::of(three());
    let index = run.delivery(BOB, 4);
    let mut phantom = run.records(BOB)[index].clone();
    if let ClientRecord::Message { seq, .. } = &mut phantom.record {
        *seq = 5;
    }
    run.records(BOB).insert(index + 1, phantom);
    assert!(run.kinds().contains(&Kind::WrongContent));
}

/// Bob leaves behind 7-4, at 7-5; 7-6 comes; he joins again at 7-7; 7-8 comes.
fn left_and_back(kind: &'static str) -> World {
    let mut world = World::new();
    for (name, user) in [("alice", 1), ("bob", 2)] {
        world.person(name, user);
    }
    world.room(7, kind, &[1, 2]);
    for person in [ALICE, BOB] {
        world.connect(person);
        world.subscribe(person, "mine", None);
    }
    for _ in 0..3 {
        world.send(ALICE, 7);
    }
    world.pump_all();
    world.leave(7, 2);
    world.pump_all();
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.pump_all();
    world.join(7, 2);
    world.pump_all();
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.pump_all();
    world
}

#[test]
fn what_came_between_two_memberships_is_owed_to_nobody() {
    for kind in ["channel", "group"] {
        Run::of(left_and_back(kind)).is_clean();
    }
}

#[test]
fn nothing_is_shown_to_who_is_no_member() {
    for kind in ["channel", "group"] {
        let mut run = Run::of(left_and_back(kind));
        let left = run.delivery(BOB, 5);
        let of_alice = run.delivery(ALICE, 6);
        let mut shown = run.histories.clients[ALICE].records[of_alice].clone();
        shown.at = run.records(BOB)[left].at + 1;
        run.records(BOB).insert(left + 1, shown);
        assert!(run.kinds().contains(&Kind::NotAMember), "{kind}");
    }
}

#[test]
fn what_a_channel_opens_to_who_has_joined_may_be_shown() {
    // Bob was away all the time, and gets 7-6 too, for he is a member of the channel again.
    let mut run = Run::of(left_and_back("channel"));
    let joined = run.index(BOB, |record| matches!(record, ClientRecord::Resumed { after_seq: 6, .. }));
    let of_alice = run.delivery(ALICE, 6);
    let mut shown = run.histories.clients[ALICE].records[of_alice].clone();
    shown.at = run.records(BOB)[joined].at;
    if let ClientRecord::Resumed { after_seq, .. } = &mut run.records(BOB)[joined].record {
        *after_seq = 5;
    }
    run.records(BOB).insert(joined + 1, shown);
    run.is_clean();
}

#[test]
fn a_message_of_somebody_who_was_no_member_is_found() {
    let mut run = Run::of(left_and_back("channel"));
    // As if bob had left one earlier.
    for record in &mut run.truth {
        if let TruthRecord::Member { user: 1, joined_seq, .. } = record {
            *joined_seq = 3;
        }
    }
    assert!(run.kinds().contains(&Kind::NotAMember));
}

/// Bob joins 8 and leaves it again while he is away, and comes back.
fn short_membership() -> World {
    let mut world = three();
    world.room(8, "group", &[1]);
    world.pump_all();
    world.disconnect(BOB);
    world.join(8, 2);
    world.send(ALICE, 8);
    world.answer(ALICE);
    world.leave(8, 2);
    world.connect(BOB);
    world.pump_all();
    world
}

#[test]
fn a_membership_that_was_over_before_anybody_looked_is_owed_whole() {
    let run = Run::of(short_membership());
    run.is_clean();
    let mut run = run;
    run.records(BOB).retain(|at| match &at.record {
        ClientRecord::Message { conversation, .. } | ClientRecord::Resumed { conversation, .. } => *conversation == 7,
        _ => true,
    });
    run.breaks(&[Kind::Lost]);
}

#[test]
fn a_join_that_is_not_told_of_is_a_loss_even_in_silence() {
    let mut world = three();
    world.room(8, "group", &[1]);
    world.join(8, 2);
    world.pump_all();
    let mut run = Run::of(world);
    run.is_clean();
    run.records(BOB).retain(|at| match &at.record {
        ClientRecord::Message { conversation, .. } | ClientRecord::Resumed { conversation, .. } => *conversation == 7,
        _ => true,
    });
    run.breaks(&[Kind::Lost, Kind::Start]);
}

#[test]
fn a_join_is_delivered_from_its_own_seq_on() {
    let mut world = three();
    world.room(8, "channel", &[1]);
    world.join(8, 2);
    world.send(ALICE, 8);
    world.answer(ALICE);
    world.pump_all();
    let mut run = Run::of(world);
    run.is_clean();
    let resumed = run.index(BOB, |record| matches!(record, ClientRecord::Resumed { conversation: 8, .. }));
    if let ClientRecord::Resumed { after_seq, .. } = &mut run.records(BOB)[resumed].record {
        *after_seq = 3;
    }
    run.records(BOB).retain(|at| !matches!(at.record, ClientRecord::Message { conversation: 8, .. }));
    run.breaks(&[Kind::Lost]);
}

#[test]
fn who_was_in_nothing_is_owed_what_was_asked_for_later() {
    let mut world = World::new();
    world.person("alice", 1);
    world.person("bob", 2);
    world.room(7, "channel", &[1]);
    world.connect(BOB);
    world.subscribe(BOB, "mine", None);
    world.connect(ALICE);
    world.subscribe(ALICE, "mine", None);
    world.join(7, 2);
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.leave(7, 2);
    world.pump_all();
    let mut run = Run::of(world);
    run.is_clean();
    run.records(BOB).retain(|at| !matches!(at.record, ClientRecord::Message { .. } | ClientRecord::Resumed { .. }));
    run.breaks(&[Kind::Lost]);
}

#[test]
fn a_subscription_that_is_taken_away_has_had_all_of_the_membership() {
    let mut world = three();
    world.subscribe(BOB, "one", Some(7));
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.leave(7, 2);
    world.pump_all();
    let run = Run::of(world);
    run.is_clean();
    for seq in [5, 6] {
        let mut run = Run { histories: run.histories.clone(), truth: run.truth.clone() };
        run.records(BOB).retain(|at| {
            !matches!(&at.record, ClientRecord::Message { seq: of, subscription, .. } if *of == seq && subscription == "one")
        });
        assert!(run.kinds().contains(&Kind::Lost), "{seq}");
    }
}

#[test]
fn a_leaving_from_before_the_membership_is_not_its_end() {
    let mut world = three();
    world.subscribe(BOB, "one", Some(7));
    world.disconnect(BOB);
    world.leave(7, 2);
    world.join(7, 2);
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.connect(BOB);
    world.pump_all();
    let mut run = Run::of(world);
    run.is_clean();
    // The leaving, 7-5, ended it.
    let is_of_one = |record: &ClientRecord, seqs: fn(i64) -> bool| matches!(record, ClientRecord::Message { seq, subscription, .. } if subscription == "one" && seqs(*seq));
    run.records(BOB).retain(|at| !is_of_one(&at.record, |seq| seq > 5));
    let left = run.index(BOB, |record| is_of_one(record, |seq| seq == 5));
    let mut end = run.records(BOB)[left].clone();
    end.record = ClientRecord::Unsubscribed { session: 2, subscription: "one".to_owned(), taken_away: true };
    run.records(BOB).insert(left + 1, end);
    run.breaks(&[Kind::Lost]);
}

#[test]
fn a_subscription_that_is_asked_for_again_after_its_end_goes_on_from_there() {
    let mut world = three();
    world.subscribe(BOB, "one", Some(7));
    world.leave(7, 2);
    world.pump_all();
    world.join(7, 2);
    world.pump_all();
    world.subscribe(BOB, "one", Some(7));
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.pump_all();
    // As if it had been asked for from where it ended.
    let mut run = Run::of(world);
    let again = run.histories.clients[BOB]
        .records
        .iter()
        .rposition(|at| matches!(&at.record, ClientRecord::Subscribed { subscription, .. } if subscription == "one"));
    let again = again.unwrap();
    if let ClientRecord::Subscribed { resume, .. } = &mut run.records(BOB)[again].record {
        let cursors = vec![Cursor { conversation: 7, seq: 5, epoch: 1 }];
        *resume = Some(Resume { cursors, user_seq: None });
    }
    if let ClientRecord::Resumed { after_seq, .. } = &mut run.records(BOB)[again + 1].record {
        *after_seq = 5;
    }
    // The join is missing.
    run.breaks(&[Kind::Lost, Kind::Gap]);
    let joined = run.delivery(BOB, 6);
    let mut joined = run.records(BOB)[joined].clone();
    if let ClientRecord::Message { subscription, .. } = &mut joined.record {
        *subscription = "one".to_owned();
    }
    run.records(BOB).insert(again + 2, joined);
    run.is_clean();
}

#[test]
fn a_change_that_was_not_answered_may_still_be_carried_out_later() {
    let asked = |outcomes: &[(Change, Outcome)]| {
        let mut world = three();
        world.leave(7, 2);
        world.pump_all();
        let mut run = Run::of(world);
        let first = run.histories.run.iter().position(|at| matches!(at.record, RunRecord::Membership { .. })).unwrap();
        let like = run.histories.run.remove(first);
        for (change, outcome) in outcomes.iter().rev() {
            let mut at = like.clone();
            if let RunRecord::Membership { change: of, outcome: was, .. } = &mut at.record {
                (*of, *was) = (*change, outcome.clone());
            }
            run.histories.run.insert(first, at);
        }
        run
    };
    let answered = Outcome::Acknowledged;
    asked(&[(Change::Left, Outcome::Unanswered), (Change::Joined, answered.clone())]).is_clean();
    asked(&[(Change::Joined, answered)]).breaks(&[Kind::MembershipLost]);
}

#[test]
fn an_end_that_is_told_to_a_member_is_a_loss() {
    let mut world = three();
    world.subscribe(BOB, "one", Some(7));
    world.disconnect(BOB);
    world.connect(BOB);
    let mut run = Run::of(world);
    let resumed = run.index(
        BOB,
        |record| matches!(record, ClientRecord::Resumed { session: 2, subscription, .. } if subscription == "one"),
    );
    if let ClientRecord::Resumed { ended, .. } = &mut run.records(BOB)[resumed].record {
        *ended = true;
    }
    run.breaks(&[Kind::Lost]);
}

/// A delivery to bob takes so long (ms); there is a fault of that length, and the message is sent before it ends.
fn slow(delivery: u64, fault: u64) -> Run {
    let mut world = three();
    if fault > 0 {
        world.fault_begins(1);
    }
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.pump(ALICE);
    world.wait(fault);
    if fault > 0 {
        world.fault_ends(1);
    }
    world.wait(delivery - fault);
    world.pump(BOB);
    Run::of(world)
}

#[test]
fn what_comes_later_than_5_s_after_a_fault_is_late() {
    slow(4900, 0).is_clean();
    slow(5200, 0).breaks(&[Kind::Late]);
    slow(12_900, 8000).is_clean();
    slow(13_200, 8000).breaks(&[Kind::Late]);
}

#[test]
fn what_a_session_waits_for_too_long_is_late_even_if_the_next_one_gets_it() {
    let mut world = three();
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.wait(6000);
    world.disconnect(BOB);
    world.connect(BOB);
    world.pump_all();
    let mut run = Run::of(world);
    run.breaks(&[Kind::Late]);
    // Alice too has it too late; bob alone is told of.
    let shown = check(&run.histories, &run.truth).findings;
    assert_eq!(shown.iter().filter(|finding| finding.user == Some(2)).count(), 1);
    // The same, but bob was away.
    let cut = run.index(BOB, |record| matches!(record, ClientRecord::Disconnected { .. }));
    let before = run.delivery(BOB, 4);
    run.records(BOB)[cut].at = run.histories.clients[BOB].records[before].at;
    assert!(check(&run.histories, &run.truth).findings.iter().all(|finding| finding.user != Some(2)));
}

#[test]
fn a_subscribe_that_is_not_answered_is_late() {
    let mut run = Run::of(resumed());
    let attached = run.index(BOB, |record| matches!(record, ClientRecord::Attached { session: 2, .. }));
    run.records(BOB).remove(attached);
    run.breaks(&[Kind::Late, Kind::NotBack]);
}

#[test]
fn a_membership_change_that_was_answered_is_stored() {
    let mut world = three();
    world.leave(7, 2);
    world.pump_all();
    let mut run = Run::of(world);
    run.is_clean();
    let answered = run.histories.run.iter().position(|at| matches!(at.record, RunRecord::Membership { .. })).unwrap();
    let again = run.histories.run[answered].clone();
    let mut back = again.clone();
    if let RunRecord::Membership { change, .. } = &mut back.record {
        *change = Change::Joined;
    }
    run.histories.run.insert(answered + 1, back.clone());
    assert!(run.kinds().contains(&Kind::MembershipLost));
    // Without an answer it may be either.
    if let RunRecord::Membership { outcome, .. } = &mut run.histories.run[answered + 1].record {
        *outcome = Outcome::Unanswered;
    }
    run.is_clean();
}

#[test]
fn a_client_that_is_not_back_at_the_end_is_found() {
    let mut run = Run::of(three());
    let at = run.records(BOB).last().unwrap().at;
    run.records(BOB).push(At { at, record: ClientRecord::Disconnected { session: 1, why: "4001".to_owned() } });
    run.breaks(&[Kind::NotBack]);
}

#[test]
fn lag_and_what_stays_in_redis_are_found() {
    let mut run = Run::of(three());
    run.truth.push(TruthRecord::Lag { topic: "chat.user.events".to_owned(), records: 2 });
    run.breaks(&[Kind::Lag]);
    let mut run = Run::of(three());
    let (what, key, detail) = ("connection".to_owned(), "user:{2}:connections".to_owned(), "a".to_owned());
    run.truth.push(TruthRecord::LeftOver { what, key, detail });
    run.breaks(&[Kind::Leaked]);
}

#[test]
fn a_run_under_a_floor_proves_nothing() {
    let asked = |floors: Floors| {
        let mut run = Run::of(slow_world());
        if let RunRecord::Run { floors: of, .. } = &mut run.histories.run[0].record {
            *of = floors;
        }
        run
    };
    asked(Floors { acknowledged: 4, deliveries: 8, quiet_ends: 1, ..Floors::default() }).is_clean();
    asked(Floors { faults: [("kill".to_owned(), 1)].into(), ..Floors::default() }).is_clean();
    asked(Floors { acknowledged: 5, ..Floors::default() }).breaks(&[Kind::TooLittle]);
    asked(Floors { deliveries: 9, ..Floors::default() }).breaks(&[Kind::TooLittle]);
    asked(Floors { memberships: 1, ..Floors::default() }).breaks(&[Kind::TooLittle]);
    asked(Floors { side_by_side: 1, ..Floors::default() }).breaks(&[Kind::TooLittle]);
    asked(Floors { quiet_ends: 2, ..Floors::default() }).breaks(&[Kind::TooLittle]);
    asked(Floors { resumes: [("log".to_owned(), 1)].into(), ..Floors::default() }).breaks(&[Kind::TooLittle]);
    asked(Floors { faults: [("pause".to_owned(), 1)].into(), ..Floors::default() }).breaks(&[Kind::TooLittle]);
}

pub(crate) fn slow_world() -> World {
    let mut world = three();
    world.fault_begins(1);
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.wait(1000);
    world.fault_ends(1);
    world.pump_all();
    world
}

#[test]
fn a_run_that_did_not_come_to_its_end_says_nothing() {
    let mut run = Run::of(three());
    run.histories.run.retain(|at| !matches!(at.record, RunRecord::Closed));
    assert!(run.kinds().contains(&Kind::BadHistory));
    let mut run = Run::of(slow_world());
    run.histories.run.retain(|at| !matches!(at.record, RunRecord::FaultEnded { .. }));
    assert!(run.kinds().contains(&Kind::BadHistory));
}
