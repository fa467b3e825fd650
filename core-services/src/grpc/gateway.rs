//! GatewayService: what socket gateways need beyond the public contract.

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    Code, ConversationId, EventType, GatewayRef, UserId,
    claims::{SCOPE_CONNECTIONS_WRITE, SCOPE_READ_ANY},
    rpc::v1::{
        AttachSubscriptionsRequest, AttachSubscriptionsResponse, AttachedSubscription, EndedMembership, Head,
        LockedRows, LoggedEvent, PublishEphemeralRequest, PublishEphemeralResponse, ReadEventsRequest,
        ReadEventsResponse, ReadHeadsRequest, ReadHeadsResponse, ReadUserStatesRequest, ReadUserStatesResponse,
        RegisterConnectionsRequest, RegisterConnectionsResponse, SeqRange, UnregisterConnectionsRequest,
        UnregisterConnectionsResponse, UserMembership, UserState, gateway_service_server::GatewayService,
    },
};
use tonic::{Request, Response, Status};
use tracing::debug;

use super::{caller, connections};
use crate::{
    app::App,
    conversation::{
        read::{self, Found, Held},
        visibility,
    },
    error::{Refusal, refuse},
};

/// Events of one answer; the request's own limit may be lower.
const MAX_EVENTS: usize = 500;
/// Subscriptions of one request.
const MAX_ATTACHED: usize = 10_000;
/// Bytes of payload after which an answer ends, though more events are there.
const MAX_EVENT_BYTES: usize = 2 << 20;

pub struct Gateway(pub Arc<App>);

fn held(locked: LockedRows) -> Held {
    match locked {
        LockedRows::Unspecified | LockedRows::Wait => Held::wait(),
        LockedRows::Skip => Held::Skip,
    }
}

/// What is locked, to be named in the answer. A caller that did not ask for it would take what is left out for unknown:
/// its call fails.
fn nameable(locked_rows: LockedRows, locked: Vec<i64>) -> Result<Vec<i64>, Refusal> {
    if locked_rows == LockedRows::Unspecified && !locked.is_empty() { Err(read::busy()) } else { Ok(locked) }
}

#[tonic::async_trait]
impl GatewayService for Gateway {
    async fn register_connections(
        &self,
        request: Request<RegisterConnectionsRequest>,
    ) -> Result<Response<RegisterConnectionsResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_CONNECTIONS_WRITE)?;
        // One user above the limit must not keep the others of the batch out: theirs is not registered, and is named by
        // the next ping.
        let (epoch, over) = connections::register(&self.0, request.into_inner().connections).await?;
        for connection in over {
            debug!(user.id = %connection.user_id, "a connection above the user's limit is not registered");
        }
        Ok(Response::new(RegisterConnectionsResponse { epoch }))
    }

    async fn unregister_connections(
        &self,
        request: Request<UnregisterConnectionsRequest>,
    ) -> Result<Response<UnregisterConnectionsResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_CONNECTIONS_WRITE)?;
        let request = request.into_inner();
        let gateway = GatewayRef { gateway: request.gateway_id, incarnation: request.incarnation };
        connections::unregister(&self.0, &gateway, &request.connection_ids).await?;
        Ok(Response::new(UnregisterConnectionsResponse {}))
    }

    async fn attach_subscriptions(
        &self,
        request: Request<AttachSubscriptionsRequest>,
    ) -> Result<Response<AttachSubscriptionsResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_READ_ANY)?;
        let request = request.into_inner();
        let held = held(request.locked());
        let asked = request.subscriptions;
        if asked.len() > MAX_ATTACHED {
            refuse(Code::InvalidBody, format!("subscriptions: at most {MAX_ATTACHED} are attached at once"))?;
        }
        let pairs: Vec<_> =
            asked.iter().map(|one| (UserId(one.user_id), ConversationId(one.conversation_id))).collect();
        let accesses = read::access(&self.0.db, &pairs, held).await?;
        let epoch = read::epoch(&self.0.db).await?;
        let subscriptions = pairs.iter().zip(accesses).map(|((user, conversation), access)| {
            let attached = AttachedSubscription {
                user_id: user.0,
                conversation_id: conversation.0,
                ..AttachedSubscription::default()
            };
            match access {
                Found::Locked => AttachedSubscription { failure: Some(read::busy().into()), ..attached },
                Found::Nothing => {
                    let refusal = Refusal::new(Code::NotFound, format!("there is no conversation {conversation}"));
                    AttachedSubscription { failure: Some(refusal.into()), ..attached }
                }
                Found::Row(access) if access.memberships.is_empty() => {
                    let refusal = Refusal::new(Code::NotAMember, format!("you are not a member of {conversation}"));
                    AttachedSubscription { failure: Some(refusal.into()), ..attached }
                }
                Found::Row(access) => AttachedSubscription {
                    kind: access.kind.as_str().to_owned(),
                    head_seq: access.head,
                    visible: access
                        .visible()
                        .into_iter()
                        .map(|range| SeqRange { from: range.from, to: range.to.unwrap_or(0) })
                        .collect(),
                    member: visibility::is_member(&access.memberships),
                    ..attached
                },
            }
        });
        Ok(Response::new(AttachSubscriptionsResponse { subscriptions: subscriptions.collect(), epoch }))
    }

    async fn read_heads(&self, request: Request<ReadHeadsRequest>) -> Result<Response<ReadHeadsResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_READ_ANY)?;
        let request = request.into_inner();
        let locked_rows = request.locked();
        let ids: Vec<_> = request.conversation_ids.into_iter().map(ConversationId).collect();
        let heads = read::heads(&self.0.db, &ids, held(locked_rows)).await?;
        let locked = nameable(locked_rows, heads.locked.into_iter().collect())?;
        let epoch = read::epoch(&self.0.db).await?;
        let heads =
            heads.of.into_iter().map(|(conversation_id, head_seq)| Head { conversation_id, head_seq }).collect();
        Ok(Response::new(ReadHeadsResponse { heads, epoch, locked_conversation_ids: locked }))
    }

    async fn read_user_states(
        &self,
        request: Request<ReadUserStatesRequest>,
    ) -> Result<Response<ReadUserStatesResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_READ_ANY)?;
        let request = request.into_inner();
        let locked_rows = request.locked();
        let ReadUserStatesRequest { user_ids, known, .. } = request;
        let users: Vec<_> = user_ids.into_iter().map(UserId).collect();
        let known = known.into_iter().map(|known| (UserId(known.user_id), known.user_seq)).collect();
        let held = held(locked_rows);
        // Who is told so can ask for a head that is locked when it needs it.
        let held_heads = if locked_rows == LockedRows::Unspecified { held } else { Held::Skip };
        let (states, locked) = read::user_states(&self.0.db, &users, &known, held, held_heads).await?;
        let locked = nameable(locked_rows, locked.into_iter().map(|user| user.0).collect())?;
        let heads_locked = states.iter().flat_map(|state| &state.memberships).filter(|m| m.head.is_none());
        nameable(locked_rows, heads_locked.map(|membership| membership.conversation.0).collect())?;
        let epoch = read::epoch(&self.0.db).await?;
        let users = states.into_iter().map(|state| UserState {
            user_id: state.user.0,
            user_seq: state.user_seq,
            memberships: state
                .memberships
                .into_iter()
                .map(|membership| UserMembership {
                    conversation_id: membership.conversation.0,
                    joined_seq: membership.joined_seq,
                    joined_user_seq: membership.joined_user_seq,
                    kind: membership.kind.as_str().to_owned(),
                    head_seq: membership.head.unwrap_or(0),
                    head_locked: membership.head.is_none(),
                })
                .collect(),
            ended: state
                .ended
                .into_iter()
                .map(|ended| EndedMembership {
                    conversation_id: ended.conversation.0,
                    joined_seq: ended.joined_seq,
                    joined_user_seq: ended.joined_user_seq,
                    left_seq: ended.left_seq,
                    left_user_seq: ended.left_user_seq,
                })
                .collect(),
        });
        Ok(Response::new(ReadUserStatesResponse { users: users.collect(), epoch, locked_user_ids: locked }))
    }

    async fn read_events(&self, request: Request<ReadEventsRequest>) -> Result<Response<ReadEventsResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_READ_ANY)?;
        let request = request.into_inner();
        let id = ConversationId(request.conversation_id);
        // The head first, under the lock: rows up to it are visible to the read behind it.
        let Some((_, head_seq)) = read::heads(&self.0.db, &[id], Held::wait()).await?.unlocked()?.pop_first() else {
            return Err(Refusal::new(Code::NotFound, format!("there is no conversation {id}")).into());
        };
        let epoch = read::epoch(&self.0.db).await?;
        let up_to = if request.up_to_seq > 0 { request.up_to_seq.min(head_seq) } else { head_seq };
        let limit = if request.limit > 0 { (request.limit as usize).min(MAX_EVENTS) } else { MAX_EVENTS };
        // Seqs begin at 1.
        let after_seq = request.after_seq.max(0);
        let max_bytes = match request.max_bytes as usize {
            0 => MAX_EVENT_BYTES,
            asked => asked.min(MAX_EVENT_BYTES),
        };
        let rows = read::events(&self.0.db, id, after_seq, up_to, limit).await?;
        let complete = match rows.first() {
            Some(first) => first.seq == after_seq + 1,
            None => after_seq >= up_to,
        };
        let mut bytes = 0;
        let events = rows.into_iter().take_while(|event| {
            let first = bytes == 0;
            bytes += event.payload.len();
            first || bytes <= max_bytes
        });
        let events = events.map(|event| LoggedEvent {
            event_id: event.event_id,
            r#type: event.event_type,
            seq: event.seq,
            epoch: event.epoch,
            actor_id: event.actor_id.unwrap_or(0),
            subject_id: event.subject_id.unwrap_or(0),
            target_seq: event.target_seq.unwrap_or(0),
            user_seq: event.user_seq.unwrap_or(0),
            payload: Bytes::from(event.payload),
        });
        Ok(Response::new(ReadEventsResponse { events: events.collect(), head_seq, epoch, complete }))
    }

    async fn publish_ephemeral(
        &self,
        request: Request<PublishEphemeralRequest>,
    ) -> Result<Response<PublishEphemeralResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_CONNECTIONS_WRITE)?;
        let request = request.into_inner();
        let (user, id) = (UserId(request.user_id), ConversationId(request.conversation_id));
        let published = async {
            if EventType::from_wire(&request.r#type) != Some(EventType::Typing) {
                return refuse(Code::InvalidBody, format!("type: {:?} is no ephemeral event", request.r#type));
            }
            read::require_member(&self.0.db, user, id).await?;
            self.0.producer.typing(id, user, read::epoch(&self.0.db).await?);
            Ok(())
        };
        let failure = published.await.err().map(|error| error.into_refusal().into());
        Ok(Response::new(PublishEphemeralResponse { failure }))
    }
}
