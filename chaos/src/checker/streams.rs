//! A client's history, taken apart into streams: what came on one subscription, over all sessions that went on with it.

use std::collections::HashMap;

use crate::history::{At, ClientRecord, Cursor, History, Resume};

use super::finding::{Finding, Kind};

/// One subscription in one session.
#[derive(Debug)]
pub struct Attachment<'a> {
    pub session: u32,
    pub record: usize,
    pub subscribed_at: u64,
    pub attached_at: Option<u64>,
    /// When it was over; `u64::MAX`: it was not.
    pub until: u64,
    /// By a `subscription_ended`.
    pub taken_away: bool,
    pub resume: Option<&'a Resume>,
    pub arrivals: Vec<Arrival<'a>>,
}

impl Attachment<'_> {
    /// The cursor that the client gave for a conversation.
    pub fn cursor(&self, conversation: i64) -> Option<Cursor> {
        self.resume?.cursors.iter().rfind(|cursor| cursor.conversation == conversation).copied()
    }

    pub fn user_seq(&self) -> Option<i64> {
        self.resume?.user_seq
    }
}

/// Something that came on a subscription.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub record: usize,
    pub at: u64,
    pub conversation: i64,
    pub what: What<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    Resumed {
        after_seq: i64,
        head: i64,
        epoch: i64,
        user_seq: Option<i64>,
        recovered: bool,
        ended: bool,
        tier: &'a str,
    },
    Event {
        seq: i64,
        epoch: i64,
        event_type: &'a str,
        event_id: &'a str,
        body: &'a str,
    },
}

/// Attachments that go on, one with what the one before it has left.
#[derive(Debug)]
pub struct Chain<'a> {
    pub client: usize,
    /// The client's; one user may have several.
    pub name: &'a str,
    pub user: i64,
    pub subscription: &'a str,
    /// Of `/topic/conversations/{id}`; none on `/user/queue/events`.
    pub topic: Option<i64>,
    pub attachments: Vec<Attachment<'a>>,
}

impl Chain<'_> {
    /// Whose it is, for people.
    pub fn whose(&self) -> String {
        format!("{} (user {})", self.name, self.user)
    }
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    pub gateway: &'a str,
    pub since: u64,
    pub until: u64,
}

/// What one client did.
#[derive(Debug, Default)]
pub struct Client<'a> {
    pub chains: Vec<Chain<'a>>,
    pub sessions: Vec<Session<'a>>,
    pub findings: Vec<Finding>,
}

/// Where a subscription is: which chain, which attachment.
type Slot = (usize, usize);

struct Reader<'a> {
    client: usize,
    name: &'a str,
    user: i64,
    out: Client<'a>,
    /// The last chain of each subscription's name.
    chains: HashMap<&'a str, usize>,
    /// Subscriptions of the session that is open.
    open: HashMap<&'a str, Slot>,
    session: Option<u32>,
}

/// Takes a history apart.
pub fn streams(client: usize, history: &History) -> Client<'_> {
    let (out, chains, open) = (Client::default(), HashMap::new(), HashMap::new());
    let mut reader = Reader { client, name: &history.name, user: history.user, out, chains, open, session: None };
    for (record, at) in history.records.iter().enumerate() {
        if let Err(why) = reader.take(record, at) {
            let finding = Finding::new(Kind::BadHistory, format!("{}: {why}", history.name));
            reader.out.findings.push(finding.place(client, record));
        }
    }
    reader.out
}

impl<'a> Reader<'a> {
    fn take(&mut self, record: usize, At { at, record: what }: &'a At<ClientRecord>) -> Result<(), String> {
        let at = *at;
        match what {
            ClientRecord::Client { .. } => return Err("a second `client`".to_owned()),
            ClientRecord::Connected { session, gateway } => {
                if self.session.is_some() {
                    return Err(format!("the session {session} began before the one before it was over"));
                }
                self.session = Some(*session);
                self.out.sessions.push(Session { gateway, since: at, until: u64::MAX });
            }
            ClientRecord::Disconnected { session, .. } => {
                self.in_session(*session)?;
                self.session = None;
                if let Some(last) = self.out.sessions.last_mut() {
                    last.until = at;
                }
                for (_, slot) in std::mem::take(&mut self.open) {
                    let attachment = self.attachment(slot);
                    attachment.until = attachment.until.min(at);
                }
            }
            ClientRecord::Subscribed { session, subscription, conversation, resume } => {
                self.in_session(*session)?;
                self.subscribed(record, at, *session, subscription, *conversation, resume.as_ref());
            }
            ClientRecord::Attached { session, subscription } => {
                let slot = self.slot(*session, subscription)?;
                self.attachment(slot).attached_at = Some(at);
            }
            ClientRecord::Unsubscribed { session, subscription, taken_away } => {
                let slot = self.slot(*session, subscription)?;
                let attachment = self.attachment(slot);
                attachment.taken_away |= *taken_away;
                attachment.until = attachment.until.min(at);
            }
            ClientRecord::Resumed {
                session,
                subscription,
                conversation,
                after_seq,
                head,
                epoch,
                user_seq,
                recovered,
                ended,
                tier,
                ..
            } => {
                let what = What::Resumed {
                    after_seq: *after_seq,
                    head: *head,
                    epoch: *epoch,
                    user_seq: *user_seq,
                    recovered: *recovered,
                    ended: *ended,
                    tier,
                };
                self.arrived(*session, subscription, Arrival { record, at, conversation: *conversation, what })?;
            }
            ClientRecord::Message { session, subscription, conversation, seq, epoch, event_type, event_id, body } => {
                let what = What::Event { seq: *seq, epoch: *epoch, event_type, event_id, body };
                self.arrived(*session, subscription, Arrival { record, at, conversation: *conversation, what })?;
            }
            // Judged elsewhere.
            ClientRecord::Send { session, .. } => self.in_session(*session)?,
            ClientRecord::Acknowledged { .. } | ClientRecord::Refused { .. } | ClientRecord::Unanswered { .. } => {}
        }
        Ok(())
    }

    fn subscribed(
        &mut self,
        record: usize,
        at: u64,
        session: u32,
        subscription: &'a str,
        topic: Option<i64>,
        resume: Option<&'a Resume>,
    ) {
        if let Some(slot) = self.open.remove(subscription) {
            let attachment = self.attachment(slot);
            attachment.until = attachment.until.min(at);
        }
        let goes_on = |chain: &usize| self.out.chains[*chain].topic == topic && resume.is_some();
        let chain = match self.chains.get(subscription).copied().filter(goes_on) {
            Some(chain) => chain,
            None => {
                let Self { client, name, user, .. } = *self;
                self.out.chains.push(Chain { client, name, user, subscription, topic, attachments: Vec::new() });
                self.out.chains.len() - 1
            }
        };
        let attachments = &mut self.out.chains[chain].attachments;
        attachments.push(Attachment {
            session,
            record,
            subscribed_at: at,
            attached_at: None,
            until: u64::MAX,
            taken_away: false,
            resume,
            arrivals: Vec::new(),
        });
        let slot = (chain, attachments.len() - 1);
        self.chains.insert(subscription, chain);
        self.open.insert(subscription, slot);
    }

    fn arrived(&mut self, session: u32, subscription: &str, arrival: Arrival<'a>) -> Result<(), String> {
        let slot = self.slot(session, subscription)?;
        let topic = self.out.chains[slot.0].topic;
        if topic.is_some_and(|topic| topic != arrival.conversation) {
            return Err(format!("{subscription:?} got something of {}, which it is not of", arrival.conversation));
        }
        let attachment = self.attachment(slot);
        // A single conversation's subscription is over then; the queue goes on with the others.
        if topic.is_some() && matches!(arrival.what, What::Resumed { ended: true, .. }) {
            attachment.until = attachment.until.min(arrival.at);
        }
        attachment.arrivals.push(arrival);
        Ok(())
    }

    fn in_session(&self, session: u32) -> Result<(), String> {
        match self.session {
            Some(open) if open == session => Ok(()),
            open => Err(format!("something of the session {session}, where {open:?} is open")),
        }
    }

    fn slot(&self, session: u32, subscription: &str) -> Result<Slot, String> {
        self.in_session(session)?;
        let slot = self.open.get(subscription);
        slot.copied().ok_or_else(|| format!("something of the subscription {subscription:?}, which is not there"))
    }

    fn attachment(&mut self, (chain, attachment): Slot) -> &mut Attachment<'a> {
        &mut self.out.chains[chain].attachments[attachment]
    }
}
