//! The two pipelined streams: messages in, and positions in.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    Code, ConversationId, UserId,
    claims::{SCOPE_MESSAGES_READ, SCOPE_SEND_AS},
    rpc::v1::{AckKind, AckOffset, AckOffsetResult, CreateMessageRequest, CreateMessageResult, create_message_result},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::transport;
use crate::{
    app::App,
    auth::tokens::Caller,
    conversation::read::{self, Access, Found, Held},
    error::{Error, Refusal, Result, refuse},
    message::{
        self, Committed,
        acks::{self, Position, Positions},
        lane::{self, Lanes},
        writer::{Answer, Job},
    },
};

/// Positions of one write, at most.
const ACK_BATCH: usize = 128;

/// Answers wait here for the transport; a full queue stops the reading of requests.
const ANSWERS: usize = 256;

/// Reads requests while fewer than the limit are in flight, and answers as they commit.
pub fn create_messages(
    app: Arc<App>,
    caller: Caller,
    requests: Streaming<CreateMessageRequest>,
) -> impl Stream<Item = Result<CreateMessageResult, Status>> {
    let (out, answers) = mpsc::channel(ANSWERS);
    let lifecycle = app.lifecycle.clone();
    let draining = lifecycle.draining();
    lifecycle.spawn("message stream", pump(app, caller, requests, out, draining));
    ReceiverStream::new(answers)
}

async fn pump(
    app: Arc<App>,
    caller: Caller,
    mut requests: Streaming<CreateMessageRequest>,
    out: mpsc::Sender<Result<CreateMessageResult, Status>>,
    draining: CancellationToken,
) {
    let limit = app.config.messages.max_in_flight;
    // Room for every message in flight, so that a writer never waits for a stream.
    let (answers, mut answered) = mpsc::channel::<Answer>(limit);
    let mut lanes = Lanes::default();
    let mut in_flight = 0;
    let mut open = true;
    // What the stream ends with; nothing at an end in peace.
    let mut end = None;
    let expiry = expiry(&caller);
    tokio::pin!(expiry);
    while open || in_flight > 0 {
        tokio::select! {
            // Answers first: they make room, and open lanes.
            biased;
            Some(answer) = answered.recv(), if in_flight > 0 => {
                in_flight -= 1;
                lanes.leave(answer.sender, answer.conversation, Instant::now());
                if out.send(Ok(result(answer.tag, answer.client_message_id, answer.outcome))).await.is_err() {
                    return;
                }
            }
            // What was accepted is answered; the peer finds the stream at its end and goes elsewhere.
            () = draining.cancelled(), if open => open = false,
            refusal = &mut expiry, if open => {
                open = false;
                end = Some(refusal.into());
            }
            request = requests.next(), if open && in_flight < limit => {
                let request = match request {
                    Some(Ok(request)) => request,
                    // The peer is done, or gone, or what it sent is no message: what is in flight commits all the same.
                    ended => {
                        open = false;
                        end = ended.and_then(Result::err).map(|status| transport::refused(&status));
                        continue;
                    }
                };
                let (tag, client_message_id) = (request.request_no, request.client_message_id.clone());
                match message::validate(&caller, request, &app.config.messages, None) {
                    Ok(message) => {
                        let id = &message.client_message_id;
                        let entered = lanes.enter(message.sender, message.conversation, id, Instant::now());
                        let Some(lane) = entered else {
                            let refused = result(tag, message.client_message_id, Err(lane::refusal()));
                            if out.send(Ok(refused)).await.is_err() {
                                return;
                            }
                            continue;
                        };
                        let job = Job { message, lane, tag, answers: answers.clone() };
                        in_flight += 1;
                        if app.writers.submit(job).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let refused = result(tag, client_message_id, Err(error.into_refusal()));
                        if out.send(Ok(refused)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }
    if let Some(status) = end {
        // The peer may be gone.
        let _ = out.send(Err(status)).await;
    }
}

/// Resolves when a user's token expires. A service's stream goes on: it opens another with the next token anyway.
async fn expiry(caller: &Caller) -> Refusal {
    if caller.is_service() {
        std::future::pending::<()>().await;
    }
    let left_us = caller.claims.exp.saturating_mul(1_000_000) - chassis::now_us();
    tokio::time::sleep(Duration::from_micros(left_us.max(0).unsigned_abs())).await;
    Refusal::new(Code::TokenExpired, "the token has expired; open another stream with a new one")
}

fn result(request_no: u64, client_message_id: String, outcome: Result<Committed, Refusal>) -> CreateMessageResult {
    let result = match outcome {
        Ok(committed) => create_message_result::Result::Created(committed.into_response()),
        Err(refusal) => create_message_result::Result::Failure(refusal.into()),
    };
    CreateMessageResult { client_message_id, result: Some(result), request_no }
}

/// Takes what waits of positions, checks and stores them together, and answers each.
pub fn ack_offsets(
    app: Arc<App>,
    caller: Caller,
    mut offsets: Streaming<AckOffset>,
) -> impl Stream<Item = Result<AckOffsetResult, Status>> {
    let (waiting, mut queue) = mpsc::channel(ACK_BATCH);
    let (out, answers) = mpsc::channel(ANSWERS);
    let lifecycle = app.lifecycle.clone();
    let draining = lifecycle.draining();
    let of_intake = caller.clone();
    let (ended, end) = oneshot::channel();
    lifecycle.spawn("position stream, intake", async move {
        let expiry = expiry(&of_intake);
        tokio::pin!(expiry);
        let status = loop {
            tokio::select! {
                () = draining.cancelled() => break None,
                refusal = &mut expiry => break Some(refusal.into()),
                offset = offsets.next() => match offset {
                    Some(Ok(offset)) => if waiting.send(offset).await.is_err() { return },
                    ended => break ended.and_then(Result::err).map(|status| transport::refused(&status)),
                }
            }
        };
        // Nobody waits for it when the peer is gone.
        let _ = ended.send(status);
    });
    lifecycle.spawn("position stream", async move {
        let mut batch = Vec::with_capacity(ACK_BATCH);
        while queue.recv_many(&mut batch, ACK_BATCH).await > 0 {
            for answer in store_batch(&app, &caller, &batch).await {
                if out.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            batch.clear();
        }
        if let Ok(Some(status)) = end.await {
            // The peer may be gone.
            let _ = out.send(Err(status)).await;
        }
    });
    ReceiverStream::new(answers)
}

async fn store_batch(app: &App, caller: &Caller, batch: &[AckOffset]) -> Vec<AckOffsetResult> {
    let mut checked = Vec::with_capacity(batch.len());
    for offset in batch {
        checked.push(whose(caller, offset));
    }
    let pairs: Vec<_> = checked.iter().filter_map(|pair| pair.as_ref().ok().copied()).collect();
    let accesses = accesses(app, &pairs, batch).await;
    let epoch = read::epoch(&app.db).await;
    let mut positions = Positions::new();
    let mut failures = Vec::with_capacity(batch.len());
    match (accesses, epoch) {
        (Ok(accesses), Ok(epoch)) => {
            let mut accesses = accesses.into_iter();
            for (offset, pair) in batch.iter().zip(checked) {
                let outcome = pair.and_then(|pair| {
                    let access = accesses.next().map_or(Ok(None), Found::unlocked)?;
                    let position = position(offset, access.as_ref(), epoch)?;
                    acks::raise(&mut positions, pair.0, pair.1, position);
                    Ok(())
                });
                failures.push(outcome.err().map(Error::into_refusal));
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            let refusal = error.into_refusal();
            failures
                .extend(checked.into_iter().map(|pair| Some(pair.err().map_or(refusal.clone(), Error::into_refusal))));
        }
    }
    if let Err(error) = acks::store(&app.db, &positions).await {
        let refusal = error.into_refusal();
        for failure in &mut failures {
            failure.get_or_insert_with(|| refusal.clone());
        }
    }
    let answer = |(offset, failure): (&AckOffset, Option<Refusal>)| AckOffsetResult {
        request_no: offset.request_no,
        failure: failure.map(Into::into),
    };
    batch.iter().zip(failures).map(answer).collect()
}

/// Plain reads suffice, unless a head seems to be below a position: a commit is routed before it is visible to all.
async fn accesses(app: &App, pairs: &[(UserId, ConversationId)], batch: &[AckOffset]) -> Result<Vec<Found<Access>>> {
    let plain = read::access_plain(&app.db, pairs).await?;
    let mut accesses: Vec<_> = plain.into_iter().map(|access| access.map_or(Found::Nothing, Found::Row)).collect();
    let highest = |id: ConversationId| batch.iter().filter(|ack| ack.conversation_id == id.0).map(|ack| ack.seq).max();
    let is_behind = |((_, id), access): (&(UserId, ConversationId), &Found<Access>)| match access {
        Found::Row(access) => highest(*id).is_some_and(|seq| seq > access.head),
        Found::Nothing | Found::Locked => false,
    };
    let behind: Vec<bool> = pairs.iter().zip(&accesses).map(is_behind).collect();
    let again: Vec<_> = pairs.iter().zip(&behind).filter(|(_, behind)| **behind).map(|(pair, _)| *pair).collect();
    let again = read::access(&app.db, &again, Held::wait()).await?;
    let old = accesses.iter_mut().zip(behind).filter(|(_, behind)| *behind).map(|(access, _)| access);
    old.zip(again).for_each(|(old, new)| *old = new);
    Ok(accesses)
}

/// Whose position it is: the caller's own, or that of a gateway's user.
fn whose(caller: &Caller, offset: &AckOffset) -> Result<(UserId, ConversationId)> {
    let user = match caller.claims.user_id() {
        Some(user) if offset.user_id == 0 || offset.user_id == user.0 => {
            caller.require(SCOPE_MESSAGES_READ)?;
            user
        }
        Some(user) => return refuse(Code::SpoofedSender, format!("the token is {user}'s")),
        None => {
            caller.require_service(SCOPE_SEND_AS)?;
            match UserId::try_from(offset.user_id) {
                Ok(user) => user,
                Err(_) => return refuse(Code::InvalidBody, "user_id: a service names the user"),
            }
        }
    };
    match ConversationId::try_from(offset.conversation_id) {
        Ok(conversation) => Ok((user, conversation)),
        Err(_) => refuse(Code::NotFound, format!("there is no conversation {}", offset.conversation_id)),
    }
}

/// The position, if it is one that the user can have.
fn position(offset: &AckOffset, access: Option<&read::Access>, epoch: i64) -> Result<Position> {
    let Some(access) = access else {
        return refuse(Code::NotFound, format!("there is no conversation {}", offset.conversation_id));
    };
    if access.memberships.is_empty() {
        return refuse(Code::NotAMember, format!("not a member of {}", offset.conversation_id));
    }
    if offset.epoch != 0 && offset.epoch != epoch {
        return refuse(Code::Conflict, format!("epoch: {} is not the epoch of now, {epoch}", offset.epoch));
    }
    if offset.seq < 0 || offset.seq > access.head {
        return refuse(Code::InvalidBody, format!("seq: {} is not within 0 and the head {}", offset.seq, access.head));
    }
    match offset.kind() {
        AckKind::Delivered => Ok(Position { delivered_seq: offset.seq, read_seq: 0 }),
        AckKind::Read => Ok(Position { delivered_seq: offset.seq, read_seq: offset.seq }),
        AckKind::Unspecified => refuse(Code::InvalidBody, "kind: expected DELIVERED or READ"),
    }
}
