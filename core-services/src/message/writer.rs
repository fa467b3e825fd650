//! Group commit: writers that each take what waits and commit it in one transaction.
//!
//! A conversation belongs to one writer (by its id), so its messages commit in the order in which they were queued. A
//! batch that fails is rolled back whole and tried again message by message, so that one bad message costs its
//! neighbours a round trip and nothing else. Under load a writer lets a batch gather (see [`super::pace`]). Queues are bounded: a stream waits for room, a unary call is refused.

use std::{collections::HashSet, iter, sync::Arc};

use chassis::hops::HopRing;
use proto::{ConversationId, MessageId, UserId, hops::CommitHop};
use tokio::{sync::mpsc, time::Instant};
use tracing::debug;

use super::{
    Committed, NewMessage,
    acks::Acks,
    batch,
    lane::{self, Lane},
    pace::Pace,
};
use crate::{
    config,
    db::{Db, Session, TRIES},
    error::{Error, Refusal, Result, is_deadlock, is_passing},
    metrics::Metrics,
    snowflake::Snowflakes,
};

/// A message on its way, with where its answer goes.
pub struct Job {
    pub message: NewMessage,
    pub lane: Lane,
    /// Comes back with the answer.
    pub tag: u64,
    /// Has room for every job of its sender that is in flight.
    pub answers: mpsc::Sender<Answer>,
}

/// What became of a job.
#[derive(Debug)]
pub struct Answer {
    pub tag: u64,
    pub sender: UserId,
    pub conversation: ConversationId,
    pub client_message_id: String,
    pub outcome: Result<Committed, Refusal>,
}

/// The writers. Cheap to clone.
#[derive(Clone)]
pub struct Writers {
    queues: Arc<[mpsc::Sender<Job>]>,
}

/// What a writer works with. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub db: Db,
    pub ids: Arc<Snowflakes>,
    pub metrics: Metrics,
    pub hops: HopRing<CommitHop>,
    pub acks: Acks,
    pub max_batch: usize,
    /// Texts of one transaction.
    pub max_batch_bytes: usize,
    pub pace: config::Pace,
}

impl Writers {
    /// Starts the writers; they end when every `Writers` is gone and what was queued is answered.
    pub fn start(lifecycle: &chassis::Lifecycle, config: &config::Messages, context: &Context) -> Self {
        let queues = (0..config.writers).map(|_| {
            let (queue, jobs) = mpsc::channel(config.writer_queue);
            let writer = write(jobs, context.clone());
            // One that ended early would leave its conversations without a writer.
            lifecycle.spawn_critical("message writer", async move {
                writer.await;
                Ok(())
            });
            queue
        });
        Self { queues: queues.collect() }
    }

    fn queue(&self, conversation: ConversationId) -> &mpsc::Sender<Job> {
        // Fibonacci hashing: snowflakes differ in their low bits least.
        let hash = (conversation.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.queues[hash as usize % self.queues.len()]
    }

    /// Queues a job; waits while its writer's queue is full.
    pub async fn submit(&self, job: Job) -> Result<()> {
        let queue = self.queue(job.message.conversation);
        queue.send(job).await.map_err(|_| Refusal::unavailable("the server is stopping").into())
    }

    /// Commits one message on its own behalf; refused at once when its writer's queue is full.
    pub async fn commit(&self, message: NewMessage) -> Result<Committed> {
        let (answers, mut answer) = mpsc::channel(1);
        let queue = self.queue(message.conversation);
        let job = Job { message, lane: Lane::default(), tag: 0, answers };
        queue.try_send(job).map_err(|_| Refusal::unavailable("too many messages wait to be written"))?;
        let answer = answer.recv().await.ok_or_else(|| Refusal::unavailable("the server is stopping"))?;
        Ok(answer.outcome?)
    }
}

async fn write(mut jobs: mpsc::Receiver<Job>, context: Context) {
    let mut session = context.db.session();
    let mut pace = Pace::new(context.pace.clone());
    let mut batch = Vec::with_capacity(context.max_batch);
    while jobs.recv_many(&mut batch, context.max_batch).await > 0 {
        if let Some(until) = pace.wait(batch.len(), Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
        while batch.len() < context.max_batch
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        pace.began(batch.len(), Instant::now());
        while !batch.is_empty() {
            let mut part = take_bytes(&mut batch, context.max_batch_bytes);
            commit(&context, &mut session, &mut part).await;
        }
    }
}

/// The first of them whose texts have so many bytes together, and at least one.
fn take_bytes(batch: &mut Vec<Job>, limit: usize) -> Vec<Job> {
    let mut bytes = 0;
    let fit = batch.iter().take_while(|job| {
        bytes += job.message.body.len();
        bytes <= limit
    });
    let count = fit.count().max(1);
    batch.drain(..count).collect()
}

/// Answers every job of the batch and empties it; those of one lane in their order.
async fn commit(context: &Context, session: &mut Session, batch: &mut Vec<Job>) {
    // One that follows a failed one of its lane must not be written at all.
    for job in batch.extract_if(.., |job| job.lane.is_closed()) {
        answer(context, job, Err(lane::refusal()));
    }
    if batch.is_empty() {
        return;
    }
    context.metrics.batch_messages.observe(batch.len() as f64);
    let messages: Vec<NewMessage> = batch.iter().map(|job| job.message.clone()).collect();
    match transact(context, session, &messages).await {
        Ok(outcomes) => {
            for (job, outcome) in batch.drain(..).zip(outcomes) {
                answer(context, job, outcome);
            }
        }
        Err(error) if is_away(&error) => fail_all(context, batch.drain(..), error),
        Err(error) if batch.len() > 1 => {
            context.metrics.batches_split.inc();
            debug!(batch.messages = batch.len(), %error, "a batch was rolled back; its messages are tried singly");
            commit_singly(context, session, batch).await;
        }
        Err(error) => {
            if let Some(job) = batch.pop() {
                fail(context, job, error);
            }
        }
    }
}

/// Each next try would wait as long, and senders could go to another core meanwhile.
fn is_away(error: &Error) -> bool {
    matches!(error, Error::Database(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut))
}

fn fail_all(context: &Context, jobs: impl Iterator<Item = Job>, error: Error) {
    let refusal = error.into_refusal();
    for job in jobs {
        fail(context, job, refusal.clone().into());
    }
}

async fn commit_singly(context: &Context, session: &mut Session, batch: &mut Vec<Job>) {
    // A conversation whose row somebody holds costs the batch one wait, not one a message.
    let mut held = HashSet::new();
    let mut jobs = batch.drain(..);
    while let Some(job) = jobs.next() {
        if job.lane.is_closed() {
            answer(context, job, Err(lane::refusal()));
        } else if held.contains(&job.message.conversation) {
            fail(context, job, Refusal::unavailable("the conversation is locked; try again").into());
        } else {
            match transact(context, session, std::slice::from_ref(&job.message)).await {
                Ok(mut outcomes) => {
                    let outcome = outcomes.pop().expect("one message has one outcome");
                    answer(context, job, outcome);
                }
                Err(error) if is_away(&error) => fail_all(context, iter::once(job).chain(jobs.by_ref()), error),
                Err(error) => {
                    if matches!(&error, Error::Database(error) if is_passing(error)) {
                        held.insert(job.message.conversation);
                    }
                    fail(context, job, error);
                }
            }
        }
    }
}

async fn transact(context: &Context, session: &mut Session, messages: &[NewMessage]) -> Result<Vec<batch::Outcome>> {
    let ids = messages.iter().map(|_| context.ids.next().map(MessageId)).collect::<Result<Vec<_>, _>>();
    let ids = ids.map_err(|error| Refusal::unavailable(error.to_string()))?;
    let started = std::time::Instant::now();
    let read = batch::read(messages);
    let mut tried = 0;
    let outcomes = loop {
        tried += 1;
        let decide = |sets| batch::decide(messages, &ids, sets, crate::now());
        match session.transact(&read, decide).await {
            Ok(outcomes) => break outcomes,
            // Several are split after a failure, which is better than to try them together again. A row that somebody
            // holds is waited for once: the sender tries again, and the other conversations of this writer go on.
            Err(Error::Database(error)) if messages.len() == 1 && is_deadlock(&error) && tried < TRIES => {
                debug!(tried, %error, "rolled back, trying again");
            }
            Err(error) => return Err(error),
        }
    };
    context.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
    let committed_us = chassis::now_us();
    for (message, outcome) in messages.iter().zip(&outcomes) {
        if let Ok(committed) = outcome
            && !committed.duplicate
        {
            context.acks.sent(message.sender, message.conversation, committed.seq);
            context.hops.push(CommitHop {
                conversation_id: message.conversation.0,
                seq: committed.seq,
                received_us: message.received_us,
                committed_us,
            });
        }
    }
    Ok(outcomes)
}

fn fail(context: &Context, job: Job, error: Error) {
    let refusal = error.into_refusal();
    if refusal.code.is_retryable() {
        job.lane.close(&job.message.client_message_id);
    }
    answer(context, job, Err(refusal));
}

fn answer(context: &Context, job: Job, outcome: batch::Outcome) {
    match &outcome {
        Ok(committed) => context.metrics.count_message(if committed.duplicate { "duplicate" } else { "created" }),
        Err(refusal) => context.metrics.count_message(refusal.code.as_str()),
    }
    let (sender, conversation) = (job.message.sender, job.message.conversation);
    // A sender that is gone needs no answer.
    let client_message_id = job.message.client_message_id;
    let _ = job.answers.try_send(Answer { tag: job.tag, sender, conversation, client_message_id, outcome });
}
