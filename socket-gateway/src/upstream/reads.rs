//! What the hub reads from core, and what sessions publish.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt as _;
use prost_types::Timestamp;
use proto::{
    Code, EventType,
    rpc::v1::{
        AckKind, AckOffset, AttachSubscription, AttachSubscriptionsRequest, AttachedSubscription, KnownUser,
        PublishEphemeralRequest, ReadEventsRequest, ReadHeadsRequest, ReadUserStatesRequest, UserState as WireState,
        gateway_service_client::GatewayServiceClient, message_service_client::MessageServiceClient,
    },
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    Endpoints,
    batch::{Batch, batch, in_parts},
    lanes::{Lane, Lanes},
};
use crate::{
    config,
    hub::{Attached, Event, Membership, Page, UserState, Visible, spread},
    refusal::Refusal,
};

/// Heads of conversations; those that do not exist are left out.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    pub of: HashMap<i64, i64>,
    /// Not known for now.
    pub locked: HashSet<i64>,
    pub epoch: i64,
}

/// Reads and small writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Core {
    endpoints: Endpoints,
    attaches: Lanes<(i64, i64), Attached>,
    states: Lanes<(i64, Option<i64>), Arc<UserState>>,
    positions: Batch<AckOffset, ()>,
    /// Gaps in what is delivered live do not wait for those who come back.
    gap_reads: Arc<Semaphore>,
    page_reads: Arc<Semaphore>,
    log_page: u32,
    log_page_bytes: u32,
    max_answer: usize,
}

impl Core {
    /// The handle, and the future that makes its batched calls until `stop`.
    pub fn new(
        endpoints: Endpoints,
        config: &config::Core,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (attaches, attach_runners) = Lanes::new();
        let (states, state_runners) = Lanes::new();
        let (positions, position_runner) = batch();
        let core = Self {
            endpoints,
            attaches,
            states,
            positions,
            gap_reads: Arc::new(Semaphore::new(config.log_reads)),
            page_reads: Arc::new(Semaphore::new(config.log_reads)),
            log_page: config.log_page,
            log_page_bytes: u32::try_from(config.log_page_bytes).unwrap_or(u32::MAX),
            max_answer: config.max_answer,
        };
        let (max, in_flight) = (config.batch, config.batches_in_flight);
        let (attaching, reading, storing) = (core.clone(), core.clone(), core.clone());
        let run = async move {
            let attaching = attach_runners.run(max, in_flight, &stop, |lane| {
                let core = attaching.clone();
                move |keys| attach_all(core.clone(), keys, lane)
            });
            let reading = state_runners.run(max, in_flight, &stop, |lane| {
                let core = reading.clone();
                move |asked| read_states(core.clone(), asked, lane)
            });
            let storing = position_runner
                .run(max, in_flight, stop.clone(), move |offsets| store_positions(storing.clone(), offsets));
            tokio::join!(attaching, reading, storing);
        };
        (core, run)
    }

    /// A locking read of a conversation's head and of what the user may see of it. `None`: the row is locked, ask again.
    pub async fn attach(&self, user: i64, conversation: i64, lane: Lane) -> Result<Option<Attached>, Refusal> {
        self.attaches.of(lane).get((user, conversation)).await
    }

    /// A locking read of what the user may see, and of what came and went behind the `user_seq` that is known. `None`: the
    /// row is locked, ask again.
    pub async fn user_state(
        &self,
        user: i64,
        known: Option<i64>,
        lane: Lane,
    ) -> Result<Option<Arc<UserState>>, Refusal> {
        self.states.of(lane).get((user, known)).await
    }

    /// Heads of conversations by locking reads.
    pub async fn read_heads(&self, ids: Vec<i64>, lane: Lane) -> Result<Heads, Refusal> {
        let first = spread(ids.first().copied().unwrap_or(0), self.endpoints.count());
        let message = ReadHeadsRequest { conversation_ids: ids, locked: lane.locked_rows().into() };
        let answer = self
            .endpoints
            .call(first, message, |channel, request| async move {
                GatewayServiceClient::new(channel).read_heads(request).await
            })
            .await?;
        Ok(Heads {
            of: answer.heads.into_iter().map(|head| (head.conversation_id, head.head_seq)).collect(),
            locked: answer.locked_conversation_ids.into_iter().collect(),
            epoch: answer.epoch,
        })
    }

    /// What of the log is missing in live delivery: `after < seq <= up_to` (0: the head), at most a page. `epoch` goes
    /// into the frames' headers.
    pub async fn read_gap(&self, conversation: i64, after: i64, up_to: i64, epoch: i64) -> Result<Page, Refusal> {
        let _permit = self.gap_reads.acquire().await;
        self.read_events(conversation, after, up_to, epoch).await
    }

    /// The same for those who come back.
    pub async fn read_page(&self, conversation: i64, after: i64, up_to: i64, epoch: i64) -> Result<Page, Refusal> {
        let _permit = self.page_reads.acquire().await;
        self.read_events(conversation, after, up_to, epoch).await
    }

    async fn read_events(&self, conversation: i64, after: i64, up_to: i64, epoch: i64) -> Result<Page, Refusal> {
        let message = ReadEventsRequest {
            conversation_id: conversation,
            after_seq: after,
            up_to_seq: up_to,
            limit: self.log_page,
            max_bytes: self.log_page_bytes,
        };
        let max = self.max_answer;
        let first = spread(conversation, self.endpoints.count());
        let answer = self
            .endpoints
            .call(first, message, |channel, request| async move {
                GatewayServiceClient::new(channel).max_decoding_message_size(max).read_events(request).await
            })
            .await?;
        let events = answer.events.iter().filter_map(|event| match Event::logged(conversation, epoch, event) {
            Ok(event) => Some(Arc::new(event)),
            Err(error) => {
                warn!(%error, "an event of the log can't be delivered");
                None
            }
        });
        let (events, complete) = (events.collect(), answer.complete);
        Ok(Page { events, head: answer.head_seq, epoch: answer.epoch, complete, room: None })
    }

    /// TYPING of a user, to whoever follows the conversation; not stored.
    pub async fn publish_typing(&self, conversation: i64, user: i64) -> Result<(), Refusal> {
        let message = PublishEphemeralRequest {
            conversation_id: conversation,
            user_id: user,
            r#type: EventType::Typing.as_str().to_owned(),
            at: Some(now()),
        };
        let first = spread(conversation, self.endpoints.count());
        let answer = self
            .endpoints
            .call(first, message, |channel, request| async move {
                GatewayServiceClient::new(channel).publish_ephemeral(request).await
            })
            .await?;
        answer.failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// How far a user has read, or has got messages; never moves backwards. `epoch` 0: the current one.
    pub async fn store_position(
        &self,
        kind: AckKind,
        conversation: i64,
        user: i64,
        seq: i64,
        epoch: i64,
    ) -> Result<(), Refusal> {
        let offset = AckOffset {
            user_id: user,
            conversation_id: conversation,
            seq,
            kind: kind.into(),
            device_id: String::new(),
            request_no: 0,
            epoch,
        };
        self.positions.get(offset).await
    }
}

async fn attach_all(
    core: Core,
    keys: Vec<(i64, i64)>,
    lane: Lane,
) -> Result<Vec<Result<Option<Attached>, Refusal>>, Refusal> {
    let subscriptions = keys
        .iter()
        .map(|(user_id, conversation_id)| AttachSubscription { user_id: *user_id, conversation_id: *conversation_id });
    let message =
        AttachSubscriptionsRequest { subscriptions: subscriptions.collect(), locked: lane.locked_rows().into() };
    let first = spread(keys.first().map_or(0, |key| key.1), core.endpoints.count());
    let answer = core
        .endpoints
        .call(first, message, |channel, request| async move {
            GatewayServiceClient::new(channel).attach_subscriptions(request).await
        })
        .await?;
    if answer.subscriptions.len() != keys.len() {
        return Err(Refusal::new(Code::Internal, "core answered another number of subscriptions"));
    }
    Ok(answer.subscriptions.into_iter().map(|attached| to_attached(attached, answer.epoch)).collect())
}

/// `None`: the row is locked.
fn to_attached(attached: AttachedSubscription, epoch: i64) -> Result<Option<Attached>, Refusal> {
    if let Some(failure) = attached.failure {
        let refusal = Refusal::from(failure);
        return if refusal.code == Code::Unavailable { Ok(None) } else { Err(refusal) };
    }
    Ok(Some(Attached {
        head: attached.head_seq,
        epoch,
        visible: Visible::new(attached.visible.iter().map(|range| (range.from, range.to))),
        member: attached.member,
    }))
}

/// Answers come by their numbers; what has none is not stored for sure.
async fn store_positions(core: Core, mut offsets: Vec<AckOffset>) -> Result<Vec<Result<(), Refusal>>, Refusal> {
    for (no, offset) in (1..).zip(&mut offsets) {
        offset.request_no = no;
    }
    let first = spread(offsets.first().map_or(0, |offset| offset.conversation_id), core.endpoints.count());
    let unanswered = || Err(Refusal::unavailable("the position was not acknowledged"));
    let mut answers: Vec<Result<(), Refusal>> = offsets.iter().map(|_| unanswered()).collect();
    let mut results = core
        .endpoints
        .call(first, offsets, |channel, request| async move {
            let request = request.map(tokio_stream::iter);
            MessageServiceClient::new(channel).stream_ack_offsets(request).await
        })
        .await?;
    while let Some(result) = results.next().await {
        let result = result?;
        let index = usize::try_from(result.request_no).unwrap_or(0).wrapping_sub(1);
        if let Some(answer) = answers.get_mut(index) {
            *answer = result.failure.map_or(Ok(()), |failure| Err(failure.into()));
        }
    }
    Ok(answers)
}

/// Users with many memberships may be too much for one answer: then their number is halved.
async fn read_states(
    core: Core,
    asked: Vec<(i64, Option<i64>)>,
    lane: Lane,
) -> Result<Vec<Result<Option<Arc<UserState>>, Refusal>>, Refusal> {
    let mut of_user: BTreeMap<i64, Option<i64>> = BTreeMap::new();
    for (user, known) in &asked {
        let lowest = of_user.entry(*user).or_default();
        *lowest = [*lowest, *known].into_iter().flatten().min();
    }
    let (answers, too_large) = in_parts(of_user.into_iter().collect(), |part| ask_states(&core, part, lane)).await?;
    let states: HashMap<i64, Option<Arc<UserState>>> = answers.into_iter().collect();
    for (user, _) in &too_large {
        error!(user.id = user, limit_bytes = core.max_answer, "the state of a user is above core.max_answer");
    }
    let missing = |user: i64| match too_large.iter().any(|(large, _)| *large == user) {
        true => Refusal::new(Code::Internal, "there are too many memberships to be read"),
        false => Refusal::new(Code::NotFound, "the token's subject is no user any more"),
    };
    Ok(asked.iter().map(|(user, _)| states.get(user).cloned().ok_or_else(|| missing(*user))).collect())
}

/// By user; without a state where the row is locked. `None`: the answer is larger than `core.max_answer`.
async fn ask_states(
    core: &Core,
    asked: Vec<(i64, Option<i64>)>,
    lane: Lane,
) -> Result<Option<Vec<(i64, Option<Arc<UserState>>)>>, Refusal> {
    let known = asked.iter().filter_map(|(user_id, known)| Some(KnownUser { user_id: *user_id, user_seq: (*known)? }));
    let message = ReadUserStatesRequest {
        user_ids: asked.iter().map(|(user, _)| *user).collect(),
        known: known.collect(),
        locked: lane.locked_rows().into(),
    };
    let first = spread(message.user_ids.first().copied().unwrap_or(0), core.endpoints.count());
    let max = core.max_answer;
    let answer = core.endpoints.call(first, message, |channel, request| async move {
        let mut client = GatewayServiceClient::new(channel).max_decoding_message_size(max);
        match client.read_user_states(request).await {
            Ok(answer) => Ok(answer.map(Some)),
            // What tonic says of a message above the limit.
            Err(status) if status.code() == tonic::Code::OutOfRange => Ok(tonic::Response::new(None)),
            Err(status) => Err(status),
        }
    });
    Ok(answer.await?.map(|answer| {
        let read = answer.users.into_iter().map(|state| (state.user_id, Some(Arc::new(to_state(state)))));
        read.chain(answer.locked_user_ids.into_iter().map(|user| (user, None))).collect()
    }))
}

fn to_state(state: WireState) -> UserState {
    let open = state.memberships.into_iter().map(|membership| Membership {
        conversation: membership.conversation_id,
        joined_seq: membership.joined_seq,
        joined_user_seq: membership.joined_user_seq,
    });
    let mut memberships: Vec<Membership> = open.collect();
    memberships.sort_unstable_by_key(|membership| membership.conversation);
    let ended = state.ended.into_iter().map(|ended| Membership {
        conversation: ended.conversation_id,
        joined_seq: ended.joined_seq,
        joined_user_seq: ended.joined_user_seq,
    });
    UserState { user_seq: state.user_seq, memberships, ended: ended.collect() }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

#[cfg(test)]
pub(crate) mod tests {
    use proto::rpc::v1::{Failure, SeqRange};

    use super::*;

    type Answers = Result<Vec<Result<Option<Attached>, Refusal>>, Refusal>;

    /// A core whose attachments are answered by `answer`, and the future that makes the calls; nothing else is answered.
    pub(crate) fn attaching(
        endpoints: Endpoints,
        config: &config::Core,
        answer: impl Fn(Vec<(i64, i64)>, Lane) -> Answers,
    ) -> (Core, impl Future<Output = ()>) {
        let (mut core, _) = Core::new(endpoints, config, CancellationToken::new());
        let (attaches, runners) = Lanes::new();
        core.attaches = attaches;
        let (max, in_flight) = (config.batch, config.batches_in_flight);
        let run = async move {
            let call = |lane| {
                let answer = &answer;
                move |keys| std::future::ready(answer(keys, lane))
            };
            runners.run(max, in_flight, &CancellationToken::new(), call).await;
        };
        (core, run)
    }

    #[test]
    fn one_failed_item_of_a_batch_is_the_failure_of_that_one_alone() {
        let refused = |code: Code| Failure { code: code.as_str().to_owned(), ..Failure::default() };
        let subscriptions =
            [None, Some(Code::Unavailable), Some(Code::NotAMember), None].map(|code| AttachedSubscription {
                head_seq: 4,
                visible: vec![SeqRange { from: 1, to: 0 }],
                failure: code.map(refused),
                ..AttachedSubscription::default()
            });
        let answers = subscriptions.map(|attached| match to_attached(attached, 1) {
            Ok(Some(attached)) => attached.head.to_string(),
            Ok(None) => "locked".to_owned(),
            Err(refusal) => refusal.code.as_str().to_owned(),
        });
        assert_eq!(answers, ["4", "locked", "not_a_member", "4"]);
    }
}
