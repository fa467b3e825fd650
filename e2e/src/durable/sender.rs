//! Messages in: pipelined gRPC streams, or SENDs on subscribers' sessions.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use proto::rpc::v1::{CreateMessageRequest, create_message_result};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Plan,
    crowd::Crowd,
    subscriber::{Half, put_frame},
    tally::{TAG, Tally, us},
};
use crate::{endpoints::Endpoints, grpc::Grpc};

/// A paced sender wakes this often and sends what is due: a timer for each message would cost more than the message.
const TICK: Duration = Duration::from_millis(1);

/// The part of the schedule that one of `of` senders has: its `nth`, `nth + of`, … message.
struct Schedule {
    begun: Instant,
    until: Instant,
    rate: f64,
    nth: usize,
    of: usize,
}

impl Schedule {
    /// The number of the next message and when it is due; `None` at the end.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 messages")]
    fn next(&mut self) -> Option<(usize, Instant)> {
        let number = self.nth;
        let due = if self.rate > 0.0 {
            self.begun + Duration::from_secs_f64(number as f64 / self.rate)
        } else {
            Instant::now()
        };
        self.nth += self.of;
        (due < self.until).then_some((number, due))
    }
}

fn text(size: usize) -> String {
    "switchboard ".chars().cycle().take(size).collect()
}

fn client_message_id(run: &str, number: usize, due: Instant) -> String {
    format!("{TAG}{}-{run}-{number}", us(due))
}

/// Starts the streams; room `r` goes to core `r % cores`, as a gateway's hash would split them.
pub async fn grpc(
    endpoints: &Endpoints,
    plan: &Plan,
    crowd: &Arc<Crowd>,
    tally: &Arc<Tally>,
    (begun, until): (Instant, Instant),
    senders: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let streams = plan.streams * endpoints.core.len();
    for stream in 0..streams {
        let client = Grpc::connect(&endpoints.core[stream % endpoints.core.len()], Some(&crowd.service_token)).await?;
        let schedule = Schedule { begun, until, rate: plan.rate, nth: stream, of: streams };
        let (crowd, tally, plan) = (Arc::clone(crowd), Arc::clone(tally), plan.clone());
        senders.spawn(async move { stream_messages(client, schedule, plan, crowd, tally).await });
    }
    Ok(())
}

async fn stream_messages(
    client: Grpc,
    mut schedule: Schedule,
    plan: Plan,
    crowd: Arc<Crowd>,
    tally: Arc<Tally>,
) -> Result<()> {
    let (out, requests) = mpsc::channel::<CreateMessageRequest>(plan.in_flight);
    let requests = futures_util::stream::unfold(requests, |mut requests| async move {
        let request = requests.recv().await?;
        Some((request, requests))
    });
    let room_for = Arc::new(Semaphore::new(plan.in_flight));
    let in_flight = Arc::new(Mutex::new(HashMap::<u64, i64>::new()));
    let (limits, waiting, sent) = (Arc::clone(&room_for), Arc::clone(&in_flight), Arc::clone(&tally));
    let sending = tokio::spawn(async move {
        let body = text(plan.size);
        while let Some((number, due)) = schedule.next() {
            if due > Instant::now() {
                sleep_until(due.max(Instant::now() + TICK)).await;
            }
            limits.acquire().await?.forget();
            let room = number % crowd.rooms.len();
            let sender = &crowd.people[room * plan.members + number / crowd.rooms.len() % plan.members];
            waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number as u64, us(due));
            let request = CreateMessageRequest {
                conversation_id: crowd.rooms[room],
                body: body.clone(),
                client_message_id: client_message_id(&crowd.run, number, due),
                sender_id: sender.id,
                request_no: number as u64,
                ..CreateMessageRequest::default()
            };
            sent.sent.fetch_add(1, Ordering::Relaxed);
            if out.send(request).await.is_err() {
                break;
            }
        }
        anyhow::Ok(())
    });
    let mut answers = client.messages().stream_create_messages(requests).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        room_for.add_permits(1);
        let due = in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&answer.request_no);
        let created = matches!(answer.result, Some(create_message_result::Result::Created(_)));
        if let Some(create_message_result::Result::Failure(failure)) = &answer.result {
            let _ = tally.complaint.set(format!("{}: {}", failure.code, failure.message));
        }
        tally.answered(created, due.unwrap_or_default(), us(Instant::now()));
    }
    sending.await?.context("sending")
}

/// Starts one task for all sessions: each message is written by a member of its room, rooms in turn.
pub fn stomp(
    plan: &Plan,
    crowd: &Arc<Crowd>,
    tally: &Arc<Tally>,
    (begun, until): (Instant, Instant),
    sessions: Vec<Half>,
    senders: &mut JoinSet<Result<()>>,
) {
    let mut schedule = Schedule { begun, until, rate: plan.rate, nth: 0, of: 1 };
    let (crowd, tally, plan) = (Arc::clone(crowd), Arc::clone(tally), plan.clone());
    senders.spawn(async move {
        let body = text(plan.size);
        let mut bytes = Vec::new();
        while let Some((number, due)) = schedule.next() {
            if due > Instant::now() {
                sleep_until(due.max(Instant::now() + TICK)).await;
            }
            let room = number % crowd.rooms.len();
            let member = room * plan.members + number / crowd.rooms.len() % plan.members;
            let id = client_message_id(&crowd.run, number, due);
            let frame = format!(
                "SEND\ndestination:/app/conversations/{}/messages\nreceipt:{}\ncontent-type:application/json\n\n\
                 {{\"body\":\"{body}\",\"client_message_id\":\"{id}\"}}\0",
                crowd.rooms[room],
                us(due),
            );
            bytes.clear();
            put_frame(&mut bytes, &frame);
            tally.sent.fetch_add(1, Ordering::Relaxed);
            sessions[member].lock().await.write_all(&bytes).await.context("a gateway closed a session")?;
        }
        Ok(())
    });
}
