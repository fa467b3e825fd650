//! A Switchboard that keeps its promise, in memory: what clients would write down, and what would be stored. Written from
//! `docs/protocol.md`, and apart from the checker: they share the records only.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    history::{At, Change, ClientRecord, Cursor, Floors, Histories, History, Outcome, Resume, RunRecord, digest},
    truth::{Says, SaysMessage, TruthRecord},
};

pub const EPOCH: i64 = 1;
/// In ms; a run's setting.
pub const LATE_AFTER: u64 = 5000;

#[derive(Clone, Debug)]
struct Event {
    event_type: &'static str,
    subject: Option<i64>,
    user_seq: Option<i64>,
    /// Sender, client_message_id, text.
    message: Option<(i64, String, String)>,
}

#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub from: i64,
    pub to: Option<i64>,
    pub from_user_seq: i64,
    pub to_user_seq: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct Room {
    pub kind: &'static str,
    log: Vec<Event>,
    pub members: BTreeMap<i64, Vec<Interval>>,
}

impl Room {
    pub fn head(&self) -> i64 {
        self.log.len() as i64
    }

    pub fn is_member(&self, user: i64) -> bool {
        self.members.get(&user).is_some_and(|intervals| intervals.last().unwrap().to.is_none())
    }

    fn sees(&self, user: i64, seq: i64) -> bool {
        let Some(intervals) = self.members.get(&user) else { return false };
        let within = |interval: &Interval| interval.from <= seq && interval.to.is_none_or(|to| seq <= to);
        match self.kind {
            "channel" => intervals.last().unwrap().to.is_none_or(|to| seq <= to),
            _ => intervals.iter().any(within),
        }
    }
}

/// How far a subscription is in a conversation.
#[derive(Clone, Copy, Debug)]
struct Place {
    pos: i64,
    live: bool,
}

#[derive(Clone, Debug)]
pub struct Subscription {
    pub name: String,
    pub topic: Option<i64>,
    places: BTreeMap<i64, Place>,
    /// Of a topic, when it was asked for: up to here the gateway knows what became of the membership.
    head: i64,
    /// The highest that the client was told.
    user_seq: Option<i64>,
    /// Up to here the gateway has looked at the user's memberships.
    looked_at: i64,
}

#[derive(Clone, Debug)]
pub struct Person {
    pub name: String,
    pub user: i64,
    session: u32,
    pub connected: bool,
    pub subscriptions: Vec<Subscription>,
    /// Sent and not answered: conversation, id, text.
    open: Vec<(i64, String, String)>,
    records: Vec<At<ClientRecord>>,
}

#[derive(Clone, Debug, Default)]
pub struct World {
    pub now: u64,
    pub rooms: BTreeMap<i64, Room>,
    pub people: Vec<Person>,
    user_events: BTreeMap<i64, Vec<&'static str>>,
    run: Vec<At<RunRecord>>,
    sent: u32,
    faults: BTreeSet<u32>,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self::default();
        let floors = Floors::default();
        let (started, command) = ("2026-03-01T12:00:00Z".to_owned(), "a test".to_owned());
        world.run(RunRecord::Run { seed: 1, started, command, late_after_ms: LATE_AFTER, floors });
        world
    }

    fn run(&mut self, record: RunRecord) {
        self.run.push(At { at: self.now, record });
        self.now += 10;
    }

    fn write(&mut self, person: usize, record: ClientRecord) {
        self.people[person].records.push(At { at: self.now, record });
        self.now += 10;
    }

    /// Lets so many ms pass.
    pub fn wait(&mut self, ms: u64) {
        self.now += ms * 1000;
    }

    pub fn person(&mut self, name: &str, user: i64) -> usize {
        let (session, connected, subscriptions, open, records) = (0, false, Vec::new(), Vec::new(), Vec::new());
        self.people.push(Person { name: name.to_owned(), user, session, connected, subscriptions, open, records });
        self.user_events.entry(user).or_default();
        self.people.len() - 1
    }

    fn next_user_seq(&mut self, user: i64, event_type: &'static str) -> i64 {
        let events = self.user_events.entry(user).or_default();
        events.push(event_type);
        events.len() as i64
    }

    pub fn room(&mut self, id: i64, kind: &'static str, users: &[i64]) {
        let asked = self.now;
        let mut members = BTreeMap::new();
        for user in users {
            let from_user_seq = self.next_user_seq(*user, "MEMBERSHIP_STARTED");
            members.insert(*user, vec![Interval { from: 1, to: None, from_user_seq, to_user_seq: None }]);
        }
        let created = Event { event_type: "CONVERSATION_CREATED", subject: None, user_seq: None, message: None };
        self.rooms.insert(id, Room { kind, log: vec![created], members });
        self.run(RunRecord::Conversation { id, kind: kind.to_owned(), members: users.to_vec(), asked });
    }

    pub fn join(&mut self, room: i64, user: i64) {
        let from_user_seq = self.next_user_seq(user, "MEMBERSHIP_STARTED");
        let found = self.rooms.get_mut(&room).unwrap();
        let (subject, user_seq) = (Some(user), Some(from_user_seq));
        found.log.push(Event { event_type: "USER_JOINED", subject, user_seq, message: None });
        let interval = Interval { from: found.head(), to: None, from_user_seq, to_user_seq: None };
        found.members.entry(user).or_default().push(interval);
        self.changed(room, user, Change::Joined);
    }

    pub fn leave(&mut self, room: i64, user: i64) {
        let to_user_seq = self.next_user_seq(user, "MEMBERSHIP_ENDED");
        let found = self.rooms.get_mut(&room).unwrap();
        let (subject, user_seq) = (Some(user), Some(to_user_seq));
        found.log.push(Event { event_type: "USER_LEFT", subject, user_seq, message: None });
        let head = found.head();
        let last = found.members.get_mut(&user).unwrap().last_mut().unwrap();
        (last.to, last.to_user_seq) = (Some(head), Some(to_user_seq));
        self.changed(room, user, Change::Left);
    }

    fn changed(&mut self, conversation: i64, user: i64, change: Change) {
        let asked = self.now;
        self.now += 500;
        let outcome = Outcome::Acknowledged;
        self.run(RunRecord::Membership { conversation, user, change, by: user, asked, outcome });
    }

    pub fn fault_begins(&mut self, id: u32) {
        self.faults.insert(id);
        let (kind, target, detail) = ("kill".to_owned(), "worker".to_owned(), String::new());
        self.run(RunRecord::FaultBegun { id, kind, target, detail });
    }

    pub fn fault_ends(&mut self, id: u32) {
        self.faults.remove(&id);
        self.run(RunRecord::FaultEnded { id, took_effect: true, detail: "it was dead".to_owned() });
    }

    /// Sends, and the message is stored; the answer is under way.
    pub fn send(&mut self, person: usize, room: i64) {
        self.sent += 1;
        let (id, text) = (format!("m{}", self.sent), format!("text {}", self.sent));
        self.write_send(person, room, &id, &text);
        self.store(person, room, &id, &text);
        self.people[person].open.push((room, id, text));
    }

    /// Sends, and whatever carried it is gone before it was stored.
    pub fn send_in_vain(&mut self, person: usize, room: i64) {
        self.sent += 1;
        let (id, text) = (format!("m{}", self.sent), format!("text {}", self.sent));
        self.write_send(person, room, &id, &text);
        self.people[person].open.push((room, id, text));
    }

    fn write_send(&mut self, person: usize, conversation: i64, id: &str, text: &str) {
        let (session, client_message_id) = (self.people[person].session, id.to_owned());
        let text = digest(text.as_bytes());
        self.write(person, ClientRecord::Send { session, conversation, client_message_id, text });
    }

    fn store(&mut self, person: usize, room: i64, id: &str, text: &str) {
        let message = Some((self.people[person].user, id.to_owned(), text.to_owned()));
        let event = Event { event_type: "MESSAGE", subject: None, user_seq: None, message };
        self.rooms.get_mut(&room).unwrap().log.push(event);
    }

    fn seq_of(&self, person: usize, room: i64, id: &str) -> Option<i64> {
        let user = self.people[person].user;
        let is = |event: &Event| event.message.as_ref().is_some_and(|(of, stored, _)| *of == user && stored == id);
        Some(self.rooms[&room].log.iter().position(is)? as i64 + 1)
    }

    /// Answers to all that were stored.
    pub fn answer(&mut self, person: usize) {
        for (conversation, client_message_id, _) in std::mem::take(&mut self.people[person].open) {
            let seq = self.seq_of(person, conversation, &client_message_id).expect("it was sent in vain");
            let session = self.people[person].session;
            let message_id = message_id(conversation, seq);
            let answer =
                ClientRecord::Acknowledged { session, conversation, client_message_id, seq, message_id, epoch: EPOCH };
            self.write(person, answer);
        }
    }

    pub fn answer_if_connected(&mut self, person: usize) {
        if self.people[person].connected {
            self.answer(person);
        }
    }

    /// Connects, goes on with every subscription, and sends again what was not answered, as far as that is allowed.
    pub fn connect(&mut self, person: usize) {
        let who = &mut self.people[person];
        who.session += 1;
        who.connected = true;
        let session = who.session;
        self.write(person, ClientRecord::Connected { session, gateway: "one".to_owned() });
        for index in 0..self.people[person].subscriptions.len() {
            self.resume(person, index);
        }
        let open = std::mem::take(&mut self.people[person].open);
        for (room, id, text) in open {
            self.write_send(person, room, &id, &text);
            if self.seq_of(person, room, &id).is_some() || self.rooms[&room].is_member(self.people[person].user) {
                if self.seq_of(person, room, &id).is_none() {
                    self.store(person, room, &id, &text);
                }
                self.people[person].open.push((room, id, text));
            } else {
                let (session, code) = (self.people[person].session, "not_a_member".to_owned());
                self.write(person, ClientRecord::Refused { session, conversation: room, client_message_id: id, code });
            }
        }
    }

    pub fn disconnect(&mut self, person: usize) {
        let session = self.people[person].session;
        for (conversation, client_message_id, _) in self.people[person].open.clone() {
            self.write(person, ClientRecord::Unanswered { session, conversation, client_message_id });
        }
        self.write(person, ClientRecord::Disconnected { session, why: "cut".to_owned() });
        let who = &mut self.people[person];
        who.connected = false;
        for subscription in &mut who.subscriptions {
            subscription.places.retain(|_, place| place.live);
        }
        who.subscriptions.retain(|subscription| subscription.topic.is_none() || !subscription.places.is_empty());
    }

    /// A new subscription, at the head.
    pub fn subscribe(&mut self, person: usize, name: &str, topic: Option<i64>) {
        let places = BTreeMap::new();
        let subscription = Subscription { name: name.to_owned(), topic, places, head: 0, user_seq: None, looked_at: 0 };
        let who = &mut self.people[person];
        who.subscriptions.retain(|other| other.name != name);
        who.subscriptions.push(subscription);
        let (index, session, user) = (who.subscriptions.len() - 1, who.session, who.user);
        who.subscriptions[index].looked_at = self.user_events[&user].len() as i64;
        let subscription = name.to_owned();
        self.write(person, ClientRecord::Subscribed { session, subscription, conversation: topic, resume: None });
        let mine: Vec<(i64, i64)> = (self.rooms.iter())
            .filter(|(id, room)| topic.is_none_or(|topic| topic == **id) && room.is_member(user))
            .map(|(id, room)| (*id, room.head()))
            .collect();
        for (room, head) in mine {
            self.resumed(person, index, room, head, false, "live", self.user_seq(user));
        }
        self.attached(person, index);
    }

    pub fn unsubscribe(&mut self, person: usize, index: usize) {
        let session = self.people[person].session;
        let subscription = self.people[person].subscriptions.remove(index).name;
        self.write(person, ClientRecord::Unsubscribed { session, subscription, taken_away: false });
    }

    fn user_seq(&self, user: i64) -> i64 {
        self.user_events[&user].len() as i64
    }

    fn attached(&mut self, person: usize, index: usize) {
        let (session, subscription) = (self.people[person].session, self.name(person, index));
        self.write(person, ClientRecord::Attached { session, subscription });
    }

    fn name(&self, person: usize, index: usize) -> String {
        self.people[person].subscriptions[index].name.clone()
    }

    fn resume(&mut self, person: usize, index: usize) {
        let (session, user) = (self.people[person].session, self.people[person].user);
        let subscription = self.people[person].subscriptions[index].clone();
        let cursor = |(room, place): (&i64, &Place)| Cursor { conversation: *room, seq: place.pos, epoch: EPOCH };
        let cursors: Vec<Cursor> = subscription.places.iter().map(cursor).collect();
        let user_seq = subscription.topic.is_none().then(|| subscription.user_seq.unwrap_or(0));
        let (name, conversation) = (subscription.name.clone(), subscription.topic);
        let resume = Some(Resume { cursors: cursors.clone(), user_seq });
        self.write(person, ClientRecord::Subscribed { session, subscription: name, conversation, resume });
        self.people[person].subscriptions[index].looked_at = user_seq.unwrap_or(0);
        for Cursor { conversation, seq, .. } in cursors {
            let tier = if seq == self.rooms[&conversation].head() { "live" } else { "ring" };
            let told = subscription.user_seq.unwrap_or(0);
            self.resumed(person, index, conversation, seq, false, tier, told);
            self.deliver(person, index, conversation);
            if !self.rooms[&conversation].is_member(user) {
                let pos = self.people[person].subscriptions[index].places[&conversation].pos;
                self.resumed(person, index, conversation, pos, true, "live", told);
            }
        }
        if subscription.topic.is_none() {
            self.look_for_joins(person, index);
        }
        self.attached(person, index);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the event")]
    fn resumed(
        &mut self,
        person: usize,
        index: usize,
        conversation: i64,
        after_seq: i64,
        ended: bool,
        tier: &str,
        user_seq: i64,
    ) {
        let (session, head) = (self.people[person].session, self.rooms[&conversation].head());
        let subscription = &mut self.people[person].subscriptions[index];
        subscription.places.insert(conversation, Place { pos: after_seq, live: !ended });
        subscription.head = head;
        let told = subscription.topic.is_none().then_some(user_seq);
        if told.is_some() {
            subscription.user_seq = subscription.user_seq.max(told);
        }
        let record = ClientRecord::Resumed {
            session,
            subscription: subscription.name.clone(),
            conversation,
            after_seq,
            head,
            epoch: EPOCH,
            user_seq: told,
            recovered: true,
            ended,
            tier: tier.to_owned(),
            skipped: Vec::new(),
        };
        self.write(person, record);
    }

    /// Memberships that the queue was not told of yet, in their order, also those that are over.
    fn look_for_joins(&mut self, person: usize, index: usize) {
        let user = self.people[person].user;
        let looked_at = self.people[person].subscriptions[index].looked_at;
        let mut joins: Vec<(i64, i64, Interval)> = Vec::new();
        for (id, room) in &self.rooms {
            let later = room.members.get(&user).into_iter().flatten().filter(|joined| joined.from_user_seq > looked_at);
            joins.extend(later.map(|joined| (joined.from_user_seq, *id, *joined)));
        }
        joins.sort_by_key(|(user_seq, ..)| *user_seq);
        for (user_seq, room, interval) in joins {
            let subscription = &mut self.people[person].subscriptions[index];
            subscription.looked_at = user_seq;
            let place = subscription.places.get(&room);
            if place.is_some_and(|place| place.live || place.pos >= interval.from) {
                continue;
            }
            self.resumed(person, index, room, interval.from - 1, false, "live", user_seq);
            self.deliver(person, index, room);
        }
    }

    /// Gives the subscription all that there is for it.
    pub fn pump(&mut self, person: usize) {
        if !self.people[person].connected {
            return;
        }
        for index in (0..self.people[person].subscriptions.len()).rev() {
            let rooms: Vec<i64> = self.people[person].subscriptions[index].places.keys().copied().collect();
            for room in rooms {
                self.deliver(person, index, room);
            }
            let subscription = &self.people[person].subscriptions[index];
            if subscription.topic.is_none() {
                self.look_for_joins(person, index);
            } else if subscription.places.values().all(|place| !place.live) {
                let (session, subscription) = (self.people[person].session, subscription.name.clone());
                self.people[person].subscriptions.remove(index);
                self.write(person, ClientRecord::Unsubscribed { session, subscription, taken_away: true });
            }
        }
    }

    pub fn pump_all(&mut self) {
        (0..self.people.len()).for_each(|person| self.pump(person));
    }

    fn deliver(&mut self, person: usize, index: usize, room: i64) {
        let user = self.people[person].user;
        while let Some(place) = self.people[person].subscriptions[index].places.get(&room).copied() {
            let seq = place.pos + 1;
            let found = &self.rooms[&room];
            if !place.live || seq > found.head() {
                return;
            }
            let event = &found.log[seq as usize - 1];
            // Their membership ends here, and this stream with it, whatever comes later.
            let subscription = &self.people[person].subscriptions[index];
            let is_past = subscription.topic.is_some() && found.is_member(user) && seq <= subscription.head;
            let ends = event.event_type == "USER_LEFT" && event.subject == Some(user) && !is_past;
            let sees =
                found.sees(user, seq) || found.members[&user].iter().any(|one| one.from <= seq && one.to >= Some(seq));
            let record = ClientRecord::Message {
                session: self.people[person].session,
                subscription: self.name(person, index),
                conversation: room,
                seq,
                epoch: EPOCH,
                event_type: event.event_type.to_owned(),
                event_id: event_id(room, seq),
                body: body(room, seq),
            };
            let subscription = &mut self.people[person].subscriptions[index];
            subscription.places.insert(room, Place { pos: seq, live: !ends });
            if sees {
                self.write(person, record);
            }
        }
    }

    /// Everybody comes back and gets everything; then the run is over.
    pub fn end(&mut self) -> (Histories, Vec<TruthRecord>) {
        for fault in self.faults.clone() {
            self.fault_ends(fault);
        }
        self.run(RunRecord::Healed);
        for person in 0..self.people.len() {
            if !self.people[person].connected {
                self.connect(person);
            }
            self.pump(person);
            self.answer(person);
        }
        self.pump_all();
        self.run(RunRecord::Final);
        self.wait(LATE_AFTER * 3);
        self.run(RunRecord::Closed);
        let clients = self.people.iter().map(|who| History {
            name: who.name.clone(),
            user: who.user,
            records: who.records.clone(),
        });
        (Histories { run: self.run.clone(), clients: clients.collect() }, self.truth())
    }

    fn truth(&self) -> Vec<TruthRecord> {
        let mut truth = vec![TruthRecord::Truth { epoch: EPOCH }];
        for (user, events) in &self.user_events {
            truth.push(TruthRecord::User { id: *user, user_seq: events.len() as i64 });
            for (user_seq, event_type) in (1..).zip(events) {
                truth.push(TruthRecord::UserEvent { user: *user, user_seq, event_type: (*event_type).to_owned() });
            }
        }
        for (id, room) in &self.rooms {
            self.room_truth(*id, room, &mut truth);
        }
        truth.push(TruthRecord::Lag { topic: "chat.message.events".to_owned(), records: 0 });
        truth
    }

    fn room_truth(&self, id: i64, room: &Room, truth: &mut Vec<TruthRecord>) {
        let messages = room.log.iter().filter(|event| event.message.is_some()).count() as i64;
        let (kind, last_seq) = (room.kind.to_owned(), room.head());
        truth.push(TruthRecord::Conversation { id, kind, last_seq, message_no: messages });
        for (user, intervals) in &room.members {
            for interval in intervals {
                truth.push(TruthRecord::Member {
                    conversation: id,
                    user: *user,
                    joined_seq: interval.from,
                    left_seq: interval.to,
                    joined_user_seq: interval.from_user_seq,
                    left_user_seq: interval.to_user_seq,
                });
            }
        }
        let mut message_no = 0;
        for (seq, event) in (1..).zip(&room.log) {
            let message = event.message.as_ref().map(|(sender, client_message_id, text)| {
                message_no += 1;
                let (id, text) = (message_id(id, seq), digest(text.as_bytes()));
                (*sender, SaysMessage { id, message_no, client_message_id: client_message_id.clone(), text })
            });
            if let Some((sender, SaysMessage { id: message_id, message_no, client_message_id, text })) = message.clone()
            {
                truth.push(TruthRecord::Message {
                    conversation: id,
                    seq,
                    id: message_id,
                    message_no,
                    sender,
                    client_message_id,
                    text,
                    epoch: EPOCH,
                });
            }
            let event_type = event.event_type.to_owned();
            truth.push(TruthRecord::Event {
                conversation: id,
                seq,
                event_id: event_id(id, seq),
                event_type: event_type.clone(),
                epoch: EPOCH,
                subject: event.subject,
                user_seq: event.user_seq,
                body: body(id, seq),
                says: Some(Says {
                    event_type,
                    event_id: event_id(id, seq),
                    epoch: EPOCH,
                    conversation: id,
                    seq,
                    message: message.map(|(_, says)| says),
                }),
            });
        }
    }
}

pub fn message_id(room: i64, seq: i64) -> i64 {
    room * 1_000_000 + seq
}

pub fn event_id(room: i64, seq: i64) -> String {
    format!("e-{room}-{seq}")
}

pub fn body(room: i64, seq: i64) -> String {
    digest(format!("{room}-{seq}").as_bytes())
}
