//! One user with two clients: each is owed everything, and what one has got says nothing of the other.

use super::{world::LATE_AFTER, *};

const ALICE_TOO: usize = 2;
const BOB_TOO: usize = 2;

/// Alice has a second client, which follows all that is hers; she has sent 7-2 to 7-4 before it came, and 7-5 since.
fn two_of_alice() -> World {
    let mut world = three();
    world.person("alice-too", 1);
    world.connect(ALICE_TOO);
    world.subscribe(ALICE_TOO, "mine", None);
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.pump_all();
    world
}

/// The findings, in words.
fn texts(run: &Run) -> Vec<String> {
    check(&run.histories, &run.truth).findings.into_iter().map(|finding| finding.text).collect()
}

#[test]
fn both_clients_of_a_sender_are_owed_what_one_of_them_has_sent() {
    let mut world = two_of_alice();
    world.send(ALICE_TOO, 7);
    world.answer(ALICE_TOO);
    world.pump_all();
    Run::of(world.clone()).is_clean();
    for (client, name) in [(ALICE, "alice (user 1)"), (ALICE_TOO, "alice-too (user 1)")] {
        for seq in [5, 6] {
            let mut run = Run::of(world.clone());
            let delivery = run.delivery(client, seq);
            run.records(client).remove(delivery);
            assert!(run.kinds().contains(&Kind::Lost), "{seq} to {name}");
            let texts = texts(&run);
            assert!(texts.iter().all(|text| text.contains(&format!(" of {name}"))), "{texts:?}");
        }
    }
}

#[test]
fn what_comes_once_to_each_client_is_right_and_twice_to_one_is_not() {
    let mut run = Run::of(two_of_alice());
    run.is_clean();
    let delivery = run.delivery(ALICE_TOO, 5);
    let again = run.records(ALICE_TOO)[delivery].clone();
    run.records(ALICE_TOO).insert(delivery + 1, again);
    run.breaks(&[Kind::Twice]);
}

#[test]
fn what_is_late_with_one_client_is_late_though_the_other_has_it() {
    let mut run = Run::of(two_of_alice());
    let delivery = run.delivery(ALICE_TOO, 5);
    run.records(ALICE_TOO)[delivery].at += 1000 * (LATE_AFTER + 1000);
    run.breaks(&[Kind::Late]);
}

#[test]
fn a_client_does_not_go_on_from_where_another_of_its_user_is() {
    let mut world = two_of_alice();
    world.disconnect(ALICE_TOO);
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.connect(ALICE_TOO);
    world.pump_all();
    let mut run = Run::of(world);
    run.is_clean();
    let back = run.index(ALICE_TOO, |record| matches!(record, ClientRecord::Subscribed { session: 2, .. }));
    if let ClientRecord::Subscribed { resume: Some(resume), .. } = &mut run.records(ALICE_TOO)[back].record {
        resume.cursors[0].seq = 6;
    }
    assert!(run.kinds().contains(&Kind::BadHistory));
}

/// Bob, with two clients, leaves a group and joins it again.
fn bob_left_and_joined_again() -> Run {
    let mut world = World::new();
    for (name, user) in [("alice", 1), ("bob", 2), ("bob-too", 2)] {
        world.person(name, user);
    }
    world.room(7, "group", &[1, 2]);
    for person in [ALICE, BOB, BOB_TOO] {
        world.connect(person);
        world.subscribe(person, "mine", None);
    }
    world.leave(7, 2);
    world.join(7, 2);
    world.send(ALICE, 7);
    world.answer(ALICE);
    world.pump_all();
    Run::of(world)
}

#[test]
fn a_join_that_only_one_client_is_told_of_is_a_loss() {
    bob_left_and_joined_again().is_clean();
    for client in [BOB, BOB_TOO] {
        let mut run = bob_left_and_joined_again();
        let told = run.index(client, |record| matches!(record, ClientRecord::Resumed { after_seq: 2, .. }));
        let of_the_join = |record: &ClientRecord| matches!(record, ClientRecord::Message { seq: 3.., .. });
        run.records(client).remove(told);
        run.records(client).retain(|at| !of_the_join(&at.record));
        run.breaks(&[Kind::Lost]);
    }
}

#[test]
fn sessions_of_one_user_at_one_gateway_and_time_are_counted() {
    let shown = |run: &Run| check(&run.histories, &run.truth).shown;
    let mut run = Run::of(two_of_alice());
    let all = shown(&run);
    assert_eq!((all.people, all.clients, all.sessions, all.side_by_side), (2, 3, 3, 2));
    if let ClientRecord::Connected { gateway, .. } = &mut run.records(ALICE_TOO)[0].record {
        *gateway = "another".to_owned();
    }
    assert_eq!(shown(&run).side_by_side, 0);
    // One after the other: that of alice is gone before the second client comes.
    let mut world = three();
    world.disconnect(ALICE);
    world.person("alice-too", 1);
    world.connect(ALICE_TOO);
    world.disconnect(ALICE_TOO);
    let mut run = Run::of(world);
    let connected = |at: &At<ClientRecord>| matches!(at.record, ClientRecord::Connected { session: 2, .. });
    for client in [ALICE, ALICE_TOO] {
        let back = run.records(client).iter().position(connected).unwrap();
        run.records(client).truncate(back);
    }
    assert_eq!(shown(&run).side_by_side, 0);
}
