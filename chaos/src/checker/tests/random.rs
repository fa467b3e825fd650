//! Random runs that keep the promise pass, and each of a set of random changes to one is found.

use super::{
    world::{LATE_AFTER, World, body, event_id},
    *,
};

/// SplitMix64: the same numbers on every machine, from a seed.
pub struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

const SEEDS: u64 = 60;
const STEPS: usize = 250;

/// Five clients of four users, three conversations, and everything that may happen to them.
fn random(seed: u64) -> Run {
    let mut dice = Dice(seed);
    let mut world = World::new();
    for (name, user) in [("alice", 1), ("bob", 2), ("carol", 3), ("dave", 4), ("alice-too", 1)] {
        world.person(name, user);
    }
    world.room(7, "channel", &[1, 2, 3]);
    world.room(8, "group", &[1, 2]);
    world.room(9, "channel", &[1]);
    for person in 0..5 {
        world.connect(person);
        world.subscribe(person, "mine", None);
    }
    let mut faults = 0;
    for _ in 0..STEPS {
        step(&mut world, &mut dice, &mut faults);
        world.wait(dice.below(200) as u64);
        for person in 0..5 {
            if dice.below(3) == 0 {
                world.pump(person);
            }
        }
    }
    Run::of(world)
}

fn step(world: &mut World, dice: &mut Dice, faults: &mut u32) {
    let person = dice.below(5);
    let room = *dice.one(&[7, 8, 9]);
    let user = world.people[person].user;
    let connected = world.people[person].connected;
    let member = world.rooms[&room].is_member(user);
    match dice.below(20) {
        0..=8 if connected && member => world.send(person, room),
        9 | 10 => world.answer_if_connected(person),
        11 if connected && member => {
            world.send_in_vain(person, room);
            world.disconnect(person);
        }
        12 if connected => world.disconnect(person),
        13 | 14 if !connected => world.connect(person),
        15 if member && room != 7 => world.leave(room, user),
        15 | 16 if !member => world.join(room, user),
        17 if connected && member => world.subscribe(person, &format!("{room}"), Some(room)),
        18 if connected && world.people[person].subscriptions.len() > 2 => world.unsubscribe(person, 1),
        19 => {
            *faults += 1;
            world.fault_begins(*faults);
            world.wait(dice.below(3000) as u64);
            world.fault_ends(*faults);
        }
        _ => {}
    }
}

#[test]
fn every_random_run_that_keeps_the_promise_is_clean() {
    let mut all = Shown::default();
    for seed in 0..SEEDS {
        let run = random(seed);
        let checked = check(&run.histories, &run.truth);
        assert!(checked.findings.is_empty(), "seed {seed}: {:#?}", checked.findings);
        all.deliveries += checked.shown.deliveries;
        all.sent_again += checked.shown.sent_again;
        all.memberships += checked.shown.memberships;
        all.resumes.extend(checked.shown.resumes);
    }
    // It did exercise something.
    assert!(all.deliveries > SEEDS * 100 && all.sent_again > SEEDS && all.memberships > SEEDS, "{all:?}");
    assert!(all.resumes.contains_key("ring") && all.resumes.contains_key("live"), "{all:?}");
}

/// A delivery that is owed: of a membership, on the queue, by a client that stayed to the end.
#[derive(Clone, Copy)]
struct Delivery {
    client: usize,
    record: usize,
    conversation: i64,
    seq: i64,
}

impl Run {
    fn was_member(&self, user: i64, room: i64, seq: i64) -> bool {
        self.truth.iter().any(|record| match record {
            TruthRecord::Member { conversation, user: of, joined_seq, left_seq, .. } => {
                (*conversation, *of) == (room, user) && *joined_seq <= seq && left_seq.is_none_or(|left| seq <= left)
            }
            _ => false,
        })
    }

    fn owed(&self) -> Vec<Delivery> {
        let mut owed = Vec::new();
        for (client, history) in self.histories.clients.iter().enumerate() {
            for (record, at) in history.records.iter().enumerate() {
                if let ClientRecord::Message { subscription, conversation, seq, .. } = &at.record
                    && subscription == "mine"
                    && self.was_member(history.user, *conversation, *seq)
                {
                    owed.push(Delivery { client, record, conversation: *conversation, seq: *seq });
                }
            }
        }
        owed
    }

    /// The next delivery of the same stream in the same session.
    fn next(&self, of: Delivery) -> Option<usize> {
        let records = &self.histories.clients[of.client].records;
        let rest = records.iter().enumerate().skip(of.record + 1);
        let mut rest = rest.take_while(|(_, at)| !matches!(at.record, ClientRecord::Disconnected { .. }));
        rest.find(|(_, at)| match &at.record {
            ClientRecord::Message { subscription, conversation, .. } => {
                subscription == "mine" && *conversation == of.conversation
            }
            _ => false,
        })
        .map(|(record, _)| record)
    }

    fn message_rows(&self) -> Vec<usize> {
        let is = |index: &usize| matches!(self.truth[*index], TruthRecord::Message { .. });
        (0..self.truth.len()).filter(is).collect()
    }
}

/// Changes the run, and says what that breaks; one of these has to be found. None: there is nothing to change.
type Mutation = fn(&mut Run, &mut Dice) -> Option<&'static [Kind]>;

fn drops_a_delivery(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let Delivery { client, record, .. } = *dice.one(&run.owed());
    run.records(client).remove(record);
    // A cursor that the client then has no right to tells of it too.
    Some(&[Kind::Lost, Kind::Gap, Kind::BadHistory])
}

fn drops_the_end_of_a_stream(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let owed: Vec<Delivery> = run.owed();
    let of = *dice.one(&owed);
    let last = owed.into_iter().rfind(|other| (other.client, other.conversation) == (of.client, of.conversation))?;
    run.records(last.client).remove(last.record);
    Some(&[Kind::Lost, Kind::BadHistory])
}

fn doubles_a_delivery(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let Delivery { client, record, .. } = *dice.one(&run.owed());
    let again = run.records(client)[record].clone();
    run.records(client).insert(record + 1, again);
    Some(&[Kind::Twice])
}

fn swaps_two_deliveries(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let of = *dice.one(&run.owed());
    let next = run.next(of)?;
    run.records(of.client).swap(of.record, next);
    Some(&[Kind::Disorder])
}

fn delays_a_delivery(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let of = *dice.one(&run.owed());
    // Long after all faults, and in a session that lasted: only the last one can be sure of it.
    let next = run.histories.clients[of.client].records[of.record..].iter();
    if next.clone().any(|at| matches!(at.record, ClientRecord::Disconnected { .. })) {
        return None;
    }
    let closed = run.histories.run.last().unwrap().at;
    run.records(of.client)[of.record].at = closed - 1000 * LATE_AFTER / 2;
    Some(&[Kind::Late])
}

fn shows_it_to_somebody_else(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let owed = run.owed();
    let at = *dice.one(&owed);
    let user = run.histories.clients[at.client].user;
    let head = run.truth.iter().find_map(|record| match record {
        TruthRecord::Conversation { id: 8, last_seq, .. } => Some(*last_seq),
        _ => None,
    })?;
    let hidden: Vec<i64> = (1..=head).filter(|seq| !run.was_member(user, 8, *seq)).collect();
    if hidden.is_empty() {
        return None;
    }
    let hidden = *dice.one(&hidden);
    let mut shown = run.records(at.client)[at.record].clone();
    if let ClientRecord::Message { conversation, seq, event_id: id, body: digest, .. } = &mut shown.record {
        (*conversation, *seq, *id, *digest) = (8, hidden, event_id(8, hidden), body(8, hidden));
    }
    run.records(at.client).insert(at.record + 1, shown);
    Some(&[Kind::NotAMember])
}

fn changes_a_body(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let Delivery { client, record, .. } = *dice.one(&run.owed());
    if let ClientRecord::Message { body, .. } = &mut run.records(client)[record].record {
        body.push('x');
    }
    Some(&[Kind::WrongContent])
}

fn delivers_one_under_anothers_seq(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let Delivery { client, record, conversation, seq } = *dice.one(&run.owed());
    if let ClientRecord::Message { event_id: id, body: digest, .. } = &mut run.records(client)[record].record {
        (*id, *digest) = (event_id(conversation, seq + 1), body(conversation, seq + 1));
    }
    Some(&[Kind::WrongContent])
}

fn drops_a_row(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let row = *dice.one(&run.message_rows());
    run.truth.remove(row);
    Some(&[Kind::LogBroken])
}

fn drops_an_event(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let is = |index: &usize| matches!(run.truth[*index], TruthRecord::Event { .. });
    let events: Vec<usize> = (0..run.truth.len()).filter(is).collect();
    run.truth.remove(*dice.one(&events));
    Some(&[Kind::LogBroken])
}

fn loses_an_acknowledged_send(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let acknowledged: Vec<(i64, i64)> = run
        .histories
        .clients
        .iter()
        .flat_map(|client| &client.records)
        .filter_map(|at| match &at.record {
            ClientRecord::Acknowledged { conversation, seq, .. } => Some((*conversation, *seq)),
            _ => None,
        })
        .collect();
    let gone = *dice.one(&acknowledged);
    // Row and event, as if it had never been committed.
    run.truth.retain(|record| match record {
        TruthRecord::Message { conversation, seq, .. } | TruthRecord::Event { conversation, seq, .. } => {
            (*conversation, *seq) != gone
        }
        _ => true,
    });
    Some(&[Kind::AcknowledgedLost])
}

fn stores_one_under_another_name(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let row = *dice.one(&run.message_rows());
    let mut again = run.truth[row].clone();
    if let TruthRecord::Message { client_message_id, .. } = &mut again {
        client_message_id.push_str("-again");
    }
    run.truth.push(again);
    Some(&[Kind::StoredTwice])
}

fn answers_with_another_seq(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let client = dice.below(5);
    let is = |at: &&mut At<ClientRecord>| matches!(at.record, ClientRecord::Acknowledged { .. });
    if let ClientRecord::Acknowledged { seq, .. } = &mut run.records(client).iter_mut().find(is)?.record {
        *seq += 1;
    }
    Some(&[Kind::AcknowledgedLost])
}

fn drops_a_start(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let client = dice.below(5);
    // One that something comes behind, in the same session.
    let records = run.records(client).clone();
    let place = records.iter().position(|at| matches!(at.record, ClientRecord::Resumed { ended: false, .. }))?;
    let ClientRecord::Resumed { subscription: of, conversation: room, .. } = &records[place].record else {
        return None;
    };
    let next = records[place + 1..].iter().find(|at| match &at.record {
        ClientRecord::Resumed { subscription, conversation, .. }
        | ClientRecord::Message { subscription, conversation, .. } => subscription == of && conversation == room,
        ClientRecord::Disconnected { .. } => true,
        _ => false,
    })?;
    matches!(next.record, ClientRecord::Message { .. }).then(|| run.records(client).remove(place))?;
    Some(&[Kind::Start])
}

fn gives_up_on_a_resume(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let client = dice.below(5);
    let is = |at: &&mut At<ClientRecord>| matches!(at.record, ClientRecord::Resumed { .. });
    let resumed = run.records(client).iter_mut().filter(is).last()?;
    if let ClientRecord::Resumed { recovered, .. } = &mut resumed.record {
        *recovered = false;
    }
    Some(&[Kind::NotRecovered])
}

fn loses_a_membership(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let is = |index: &usize| matches!(run.truth[*index], TruthRecord::Member { .. });
    let members: Vec<usize> = (0..run.truth.len()).filter(is).collect();
    run.truth.remove(*dice.one(&members));
    Some(&[Kind::MembershipLost])
}

fn skips_a_user_seq(run: &mut Run, dice: &mut Dice) -> Option<&'static [Kind]> {
    let is = |index: &usize| matches!(run.truth[*index], TruthRecord::UserEvent { .. });
    let events: Vec<usize> = (0..run.truth.len()).filter(is).collect();
    run.truth.remove(*dice.one(&events));
    Some(&[Kind::LogBroken])
}

const CHANGES: [(&str, Mutation); 17] = [
    ("drops a delivery", drops_a_delivery),
    ("drops the end of a stream", drops_the_end_of_a_stream),
    ("doubles a delivery", doubles_a_delivery),
    ("swaps two deliveries", swaps_two_deliveries),
    ("delays a delivery", delays_a_delivery),
    ("shows it to somebody else", shows_it_to_somebody_else),
    ("changes a body", changes_a_body),
    ("delivers one under another's seq", delivers_one_under_anothers_seq),
    ("drops a row", drops_a_row),
    ("drops an event", drops_an_event),
    ("loses an acknowledged send", loses_an_acknowledged_send),
    ("stores one under another name", stores_one_under_another_name),
    ("answers with another seq", answers_with_another_seq),
    ("drops a start", drops_a_start),
    ("gives up on a resume", gives_up_on_a_resume),
    ("loses a membership", loses_a_membership),
    ("skips a user_seq", skips_a_user_seq),
];

#[test]
fn every_random_change_of_a_run_is_found() {
    for (name, change) in CHANGES {
        let mut changed = 0;
        for seed in 0..SEEDS {
            let mut run = random(seed);
            let Some(expected) = change(&mut run, &mut Dice(seed ^ 0xabcd)) else { continue };
            changed += 1;
            let found = run.kinds();
            assert!(expected.iter().any(|kind| found.contains(kind)), "seed {seed}, {name}: found {found:?}");
        }
        assert!(changed > SEEDS / 4, "{name}: only {changed} runs could be changed so");
    }
}
