//! What came, in the order in which it came: each event once, in order, none passed over, with the right content, and to
//! nobody who may not see it. What should have come and did not is for [`super::owed`].

use std::collections::{BTreeMap, BTreeSet};

use super::{
    finding::{Finding, Kind},
    ledger::{Conversation, Interval, Ledger},
    shown::Shown,
    streams::{Arrival, Attachment, Chain, What},
};

/// How one chain stands in one conversation.
#[derive(Debug, Default)]
pub struct Track {
    /// Everything up to here was delivered, or was not owed.
    pos: Option<i64>,
    epoch: i64,
    /// Delivered, and not asked for again since.
    seen: BTreeSet<i64>,
    /// RESUMED came in this session.
    started: bool,
    /// By seq, each attachment in which it came and when.
    pub delivered: BTreeMap<i64, Vec<(usize, u64)>>,
    /// Ranges that are not owed: the client was told so, or has said itself that it does not want them.
    pub excused: Vec<(i64, i64)>,
    /// The cursor of the chain's first SUBSCRIBE.
    pub named: Option<i64>,
    /// Where delivery of the chain has started.
    pub first_resumed: Option<i64>,
    /// A single conversation's subscription was told that it is over, in this attachment: all up to this seq is owed.
    pub ended: Option<(usize, i64)>,
    /// The last attachment in which RESUMED came.
    pub resumed_in: Option<usize>,
}

impl Track {
    pub fn is_excused(&self, seq: i64) -> bool {
        self.excused.iter().any(|(from, to)| *from <= seq && seq <= *to)
    }

    fn excuse(&mut self, after: i64, to: i64) {
        if after < to {
            self.excused.push((after + 1, to));
        }
    }
}

/// Judges all that came on a chain, and says how it stands in each conversation.
pub fn check(chain: &Chain, ledger: &Ledger, shown: &mut Shown, findings: &mut Vec<Finding>) -> BTreeMap<i64, Track> {
    let mut tracks: BTreeMap<i64, Track> = BTreeMap::new();
    for (number, attachment) in chain.attachments.iter().enumerate() {
        let claimed = begin(&mut tracks, number, attachment);
        findings.extend(claimed.into_iter().map(|(conversation, seq)| {
            let text = format!("the client resumed {conversation} from {seq}, which it was not given");
            Finding::new(Kind::BadHistory, text).conversation(conversation).place(chain.client, attachment.record)
        }));
        let mut reader = Reader { chain, number, attachment, shown, findings };
        for arrival in &attachment.arrivals {
            let track = tracks.entry(arrival.conversation).or_default();
            match ledger.conversations.get(&arrival.conversation) {
                Some(conversation) => reader.take(conversation, ledger.epoch, track, arrival),
                None => {
                    let text = "it is of a conversation that is not there";
                    let finding = reader.finding(Kind::WrongContent, arrival, None, text);
                    reader.findings.push(finding);
                }
            }
        }
        if attachment.taken_away {
            taken_away(&mut reader, ledger, &mut tracks);
        }
    }
    tracks
}

/// `subscription_ended`: what came of the membership until its end is owed.
fn taken_away(reader: &mut Reader, ledger: &Ledger, tracks: &mut BTreeMap<i64, Track>) {
    let Some(topic) = reader.chain.topic else { return };
    let (Some(conversation), Some(track)) = (ledger.conversations.get(&topic), tracks.get_mut(&topic)) else { return };
    track.ended = reader.end_of(conversation, track.pos.unwrap_or(0)).map(|left| (reader.number, left));
    if track.ended.is_none() && reader.is_member_all_along(conversation) {
        let Chain { client, user, subscription, .. } = reader.chain;
        let whose = reader.chain.whose();
        let text = format!("{subscription:?} was taken away from {whose}, who is a member of {topic}");
        let finding = Finding::new(Kind::Lost, text).conversation(topic).user(*user).subscription(subscription);
        reader.findings.push(finding.place(*client, reader.attachment.record));
    }
}

/// The client says where it stands. Returned are cursors that it can't have.
fn begin(tracks: &mut BTreeMap<i64, Track>, number: usize, attachment: &Attachment) -> Vec<(i64, i64)> {
    let mut claimed = Vec::new();
    for track in tracks.values_mut() {
        track.started = false;
    }
    for cursor in attachment.resume.into_iter().flat_map(|resume| &resume.cursors) {
        let track = tracks.entry(cursor.conversation).or_default();
        match track.pos {
            // It asks for some of it again.
            Some(pos) if cursor.seq < pos => drop(track.seen.split_off(&(cursor.seq + 1))),
            Some(pos) if cursor.seq == pos => {}
            None if number == 0 => track.named = Some(cursor.seq),
            _ => {
                track.excuse(track.pos.unwrap_or(0), cursor.seq);
                claimed.push((cursor.conversation, cursor.seq));
            }
        }
        track.pos = Some(cursor.seq);
    }
    claimed
}

struct Reader<'r, 'a> {
    chain: &'r Chain<'a>,
    number: usize,
    attachment: &'r Attachment<'a>,
    shown: &'r mut Shown,
    findings: &'r mut Vec<Finding>,
}

impl Reader<'_, '_> {
    fn finding(&self, kind: Kind, arrival: &Arrival, seq: Option<i64>, text: &str) -> Finding {
        let Chain { client, user, subscription, .. } = self.chain;
        let what = match (seq, arrival.what) {
            (Some(seq), What::Resumed { .. }) => format!("RESUMED of {} behind {seq}", arrival.conversation),
            (None, What::Resumed { .. }) => format!("RESUMED of {}", arrival.conversation),
            (_, What::Event { seq, .. }) => format!("{}-{seq}", arrival.conversation),
        };
        let seq = match arrival.what {
            What::Event { seq, .. } => Some(seq),
            What::Resumed { .. } => seq,
        };
        let finding = Finding::new(kind, format!("{what} on {subscription:?} of {}: {text}", self.chain.whose()))
            .conversation(arrival.conversation)
            .user(*user)
            .subscription(subscription)
            .place(*client, arrival.record);
        Finding { seq, ..finding }
    }

    fn take(&mut self, conversation: &Conversation, epoch: i64, track: &mut Track, arrival: &Arrival) {
        match arrival.what {
            What::Resumed { .. } => self.resumed(conversation, track, arrival),
            What::Event { .. } => self.event(conversation, epoch, track, arrival),
        }
    }

    fn resumed(&mut self, conversation: &Conversation, track: &mut Track, arrival: &Arrival) {
        let What::Resumed { after_seq, head, epoch, recovered, ended, tier, .. } = arrival.what else { return };
        let cursor = self.attachment.cursor(arrival.conversation);
        let asked = cursor.filter(|_| !track.started);
        if conversation.intervals(self.chain.user).is_empty() && !ended {
            let text = "this user never was a member";
            self.findings.push(self.finding(Kind::NotAMember, arrival, Some(after_seq), text));
        }
        if conversation.not_before(after_seq) > arrival.at {
            let text = "nobody had sent that yet, so the first events would be dropped";
            self.findings.push(self.finding(Kind::Start, arrival, Some(after_seq), text));
        }
        let of_the_past = asked.is_some_and(|cursor| cursor.epoch < epoch) || (track.epoch != 0 && track.epoch < epoch);
        if of_the_past && recovered && asked.is_some() {
            let text = format!("recovered: true from a cursor of an older epoch than {epoch}");
            self.findings.push(self.finding(Kind::NotRecovered, arrival, Some(after_seq), &text));
        }
        let never_given = asked.is_some_and(|cursor| cursor.seq > head && !track.delivered.contains_key(&cursor.seq));
        let unseen = ended && conversation.intervals(self.chain.user).is_empty();
        if !recovered && !of_the_past && !never_given && !unseen {
            let text = "recovered: false, although the log has everything";
            self.findings.push(self.finding(Kind::NotRecovered, arrival, Some(after_seq), text));
        }
        if of_the_past {
            track.seen.clear();
            track.excuse(0, after_seq);
        } else if !recovered {
            track.excuse(track.pos.unwrap_or(0), after_seq);
        }
        if asked.is_some() && recovered && !ended {
            *self.shown.resumes.entry(tier.to_owned()).or_default() += 1;
        }
        if ended && self.chain.topic.is_some() {
            track.ended = self.end_of(conversation, track.pos.unwrap_or(after_seq)).map(|left| (self.number, left));
            if track.ended.is_none() && self.is_member_all_along(conversation) {
                let text = "ended: true, although the user is a member";
                self.findings.push(self.finding(Kind::Lost, arrival, Some(after_seq), text));
            }
        }
        track.pos = Some(after_seq);
        track.epoch = track.epoch.max(epoch);
        track.started = true;
        track.first_resumed.get_or_insert(after_seq);
        track.resumed_in = Some(self.number);
    }

    /// The end of the membership that a subscription at `pos` was told the end of. One that was followed by another before
    /// the subscription was asked for is not what it was about.
    fn end_of(&self, conversation: &Conversation, pos: i64) -> Option<i64> {
        let intervals = conversation.intervals(self.chain.user);
        let reaches = |interval: &Interval| interval.left_seq.is_none_or(|left| left >= pos);
        let is_past = |behind: &[Interval]| behind.iter().any(|next| self.was_before(conversation, next.joined_seq));
        let (_, next) =
            intervals.iter().enumerate().find(|(at, one)| reaches(one) && !is_past(&intervals[at + 1..]))?;
        let begun = next.joined_seq <= pos + 1 || self.was_before(conversation, next.joined_seq);
        next.left_seq.filter(|_| begun)
    }

    fn is_member_all_along(&self, conversation: &Conversation) -> bool {
        let last = conversation.intervals(self.chain.user).last();
        last.is_some_and(|last| last.left_seq.is_none() && self.was_before(conversation, last.joined_seq))
    }

    /// Whether it was committed before this subscription was asked for.
    fn was_before(&self, conversation: &Conversation, seq: i64) -> bool {
        conversation.known_by(seq) < self.attachment.subscribed_at
    }

    fn event(&mut self, conversation: &Conversation, epoch: i64, track: &mut Track, arrival: &Arrival) {
        let What::Event { seq, epoch: told, .. } = arrival.what else { return };
        self.shown.deliveries += 1;
        let say = |reader: &mut Self, kind: Kind, text: &str| {
            let finding = reader.finding(kind, arrival, Some(seq), text);
            reader.findings.push(finding);
        };
        if !track.started {
            say(self, Kind::Start, "it came before any RESUMED of this session");
            track.started = true;
        }
        // What was restored over can't be compared any more.
        if told >= epoch
            && let Err(why) = content(conversation, arrival)
        {
            say(self, Kind::WrongContent, &why);
        }
        if !self.could_see(conversation, seq, arrival.at) {
            say(self, Kind::NotAMember, "this user was no member, or no more");
        }
        let pos = track.pos.unwrap_or(0);
        if track.seen.contains(&seq) {
            say(self, Kind::Twice, "it came for the second time");
        } else if seq <= pos {
            say(self, Kind::Disorder, &format!("it came behind {pos}"));
        } else if let Some(missing) = (pos + 1..seq).find(|missing| conversation.may_see(self.chain.user, *missing)) {
            say(self, Kind::Gap, &format!("it came behind {pos}, and {missing} was passed over"));
        }
        track.seen.insert(seq);
        track.delivered.entry(seq).or_default().push((self.number, arrival.at));
        track.pos = Some(pos.max(seq));
    }

    /// Whether the user could see that seq at that time. What a later membership has opened (in a channel) could not be
    /// seen before that can have begun.
    fn could_see(&self, conversation: &Conversation, seq: i64, at: u64) -> bool {
        let user = self.chain.user;
        if conversation.was_member(user, seq) {
            return true;
        }
        let next = conversation.intervals(user).iter().find(|interval| interval.joined_seq > seq);
        let too_early = next.is_some_and(|next| at < conversation.not_before(next.joined_seq));
        conversation.may_see(user, seq) && !too_early
    }
}

fn content(conversation: &Conversation, arrival: &Arrival) -> Result<(), String> {
    let What::Event { seq, event_type, event_id, body, .. } = arrival.what else { return Ok(()) };
    let Some(stored) = conversation.event(seq) else {
        return Err(format!("the log has no such seq; its head is {}", conversation.last_seq));
    };
    if (stored.event_type, stored.event_id) != (event_type, event_id) {
        return Err(format!(
            "it is the {event_type} {event_id}; the log has the {} {}",
            stored.event_type, stored.event_id
        ));
    }
    if stored.body != body {
        return Err("its body differs from what is stored".to_owned());
    }
    Ok(())
}
