//! One client: what it remembers over all its sessions, and how it comes back.
//!
//! It does what `docs/protocol.md` asks of a client and no more: it remembers the last `seq` and `epoch` of each
//! conversation and the last `user_seq`, resumes with them on whatever gateway it gets, and sends what has no answer
//! again under its first `client_message_id`. What one session does is in [`super::session`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use e2e::stomp::{Connected, Options, connect};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    Person, Phase, Setting, Told, View,
    lanes::Lanes,
    session::{End, HEART_BEAT},
    view::{MINE, Now},
};
use crate::history::{ClientRecord, Cursor, Writer, digest};

/// A gateway that gives no CONNECTED by then is left for another.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// Between tries to connect, in ms.
const BACK_OFF: std::ops::Range<u64> = 50..400;
/// Between two sessions, in s: most are back at once, some miss a lot.
const AWAY: [f64; 2] = [0.0, 3.0];

/// What a client subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// `/topic/conversations/{id}` of each conversation.
    pub topics: bool,
    /// `/user/queue/events`.
    pub mine: bool,
}

impl Style {
    pub fn of(number: usize) -> Self {
        match number % 3 {
            0 => Self { topics: true, mine: false },
            1 => Self { topics: false, mine: true },
            _ => Self { topics: true, mine: true },
        }
    }

    /// Of somebody's second client: what one user's clients share at a gateway is what `/user/queue/events` follows.
    pub fn of_a_second(number: usize) -> Self {
        Self { topics: number.is_multiple_of(2), mine: true }
    }
}

/// A subscription to one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub cursor: Option<Cursor>,
    pub state: TopicState,
    /// The user has joined again, and the end of the last membership was not seen yet.
    pub joined_again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopicState {
    /// To be subscribed from then on.
    Due(Instant),
    Asked,
    Attached,
    /// The gateway has taken it away, because the membership is over.
    Ended,
}

/// The subscription to all conversations.
#[derive(Debug, Default)]
pub(super) struct Mine {
    pub cursors: BTreeMap<i64, Cursor>,
    pub user_seq: Option<i64>,
    pub attached: bool,
}

#[derive(Debug)]
pub struct Client {
    /// Unique, where two are of the same person.
    pub(super) name: String,
    pub(super) person: Person,
    pub(super) style: Style,
    pub(super) setting: Arc<Setting>,
    pub(super) history: Writer<ClientRecord>,
    pub(super) rng: StdRng,
    /// Counted from 1.
    pub(super) session: u32,
    gateway: usize,
    messages: u64,
    pub(super) lanes: Lanes,
    /// The conversations to send to.
    pub(super) member_of: BTreeSet<i64>,
    pub(super) topics: BTreeMap<i64, Topic>,
    pub(super) mine: Mine,
    view: Arc<View>,
}

impl Client {
    pub fn new(
        number: usize,
        name: String,
        person: Person,
        style: Style,
        member_of: BTreeSet<i64>,
        setting: Arc<Setting>,
        view: Arc<View>,
    ) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(setting.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let topic = Topic { cursor: None, state: TopicState::Due(Instant::now()), joined_again: false };
        let topics = if style.topics { member_of.iter().map(|id| (*id, topic)).collect() } else { BTreeMap::new() };
        Ok(Self {
            history: Writer::client(&setting.folder, setting.clock, &name, person.user)?,
            gateway: rng.random_range(0..setting.gateways.len()),
            rng,
            name,
            person,
            style,
            setting,
            session: 0,
            messages: 0,
            lanes: Lanes::default(),
            member_of,
            topics,
            mine: Mine::default(),
            view,
        })
    }

    /// Until it was told to close.
    pub async fn run(mut self, mut told: mpsc::Receiver<Told>, mut phase: watch::Receiver<Phase>) -> Result<()> {
        while let Some(connected) = self.connect(&phase).await {
            let (end, why) = self.use_session(connected, &mut told, &mut phase).await?;
            for (conversation, client_message_id) in self.lanes.forget_connection() {
                self.record(ClientRecord::Unanswered { session: self.session, conversation, client_message_id })?;
            }
            self.record(ClientRecord::Disconnected { session: self.session, why })?;
            self.show(false);
            match end {
                End::Closed => break,
                End::Away if *phase.borrow() == Phase::Use => {
                    let [least, most] = AWAY;
                    // Squared: short ones are more frequent.
                    let share = self.rng.random::<f64>().powi(2);
                    sleep(Duration::from_secs_f64(least + (most - least) * share)).await;
                }
                End::Away | End::Cut => {}
            }
        }
        self.history.finish()
    }

    /// A session at some gateway; none when it was told to close meanwhile.
    async fn connect(&mut self, phase: &watch::Receiver<Phase>) -> Option<Connected> {
        let gateways = self.setting.gateways.len();
        let mut options = Options::new(&self.person.token);
        options.heart_beat = (HEART_BEAT.as_millis() as u32, HEART_BEAT.as_millis() as u32);
        while *phase.borrow() != Phase::Close {
            // Mostly another one than before.
            self.gateway = (self.gateway + self.rng.random_range(0..gateways.max(2))) % gateways;
            let url = &self.setting.gateways[self.gateway];
            if let Ok(Ok(connected)) = timeout(CONNECT_LIMIT, connect(url, &options)).await {
                return Some(connected);
            }
            self.gateway = (self.gateway + 1) % gateways;
            sleep(Duration::from_millis(self.rng.random_range(BACK_OFF))).await;
        }
        None
    }

    pub(super) fn gateway_name(&self) -> String {
        format!("socket-gateway-{}", self.gateway + 1)
    }

    pub(super) fn record(&mut self, record: ClientRecord) -> Result<()> {
        self.history.record(&record)
    }

    /// Something new to send, to some conversation.
    pub(super) fn compose(&mut self) {
        let pick = self.rng.random_range(0..self.member_of.len().max(1));
        let Some(conversation) = self.member_of.iter().nth(pick).copied() else { return };
        self.messages += 1;
        let client_message_id = format!("{}-{}", self.name, self.messages);
        let filler = "Grüße an alle ✓ ".repeat(self.rng.random_range(0..8));
        let text = format!("{client_message_id}: {filler}");
        self.lanes.add(conversation, client_message_id, text);
    }

    /// The time until this client sends again: independent of the others and of what it did before.
    pub(super) fn pause(&mut self) -> Duration {
        let load = self.setting.load;
        self.exponential(load.clients as f64 / load.rate)
    }

    /// With that mean, in seconds.
    pub(super) fn exponential(&mut self, mean: f64) -> Duration {
        let uniform: f64 = self.rng.random_range(f64::EPSILON..1.0);
        Duration::from_secs_f64((-uniform.ln() * mean).min(3600.0))
    }

    /// A SEND is about to be written.
    pub(super) fn sending(&mut self, conversation: i64, client_message_id: &str, text: &str) -> Result<()> {
        let (client_message_id, text) = (client_message_id.to_owned(), digest(text.as_bytes()));
        self.record(ClientRecord::Send { session: self.session, conversation, client_message_id, text })
    }

    /// Lets the run see where this client is.
    pub(super) fn show(&self, connected: bool) {
        let settled = |topic: &Topic| matches!(topic.state, TopicState::Attached | TopicState::Ended);
        let attached = connected && (!self.style.mine || self.mine.attached) && self.topics.values().all(settled);
        let topics = self.topics.iter().filter(|(_, topic)| topic.state == TopicState::Attached);
        let topics = topics.filter_map(|(id, topic)| Some(((topic_name(*id), *id), topic.cursor?.seq)));
        let mine = self.mine.cursors.iter().map(|(id, cursor)| ((MINE.to_owned(), *id), cursor.seq));
        let now = Now {
            attached: attached.then_some(self.session),
            unanswered: self.lanes.len(),
            reached: topics.chain(mine).collect(),
        };
        self.view.update(|view| *view = now);
    }
}

/// The name of a subscription to one conversation, the same in all sessions.
pub fn topic_name(conversation: i64) -> String {
    format!("topic-{conversation}")
}
