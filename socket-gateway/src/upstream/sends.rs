//! The streams of SENDs: one to each core, pipelined.
//!
//! A SEND goes through a core's queue into its stream and is matched with its answer by `request_no`. When the stream
//! breaks, everything in flight there fails as unavailable at once, and so does what comes while it is down, or while the
//! core's breaker is open and another's is not: the sessions' lanes decide when and where it is sent again. A core that is
//! away or silent costs nobody a wait, once that is known: a stream that is open and silent breaks with the connection's
//! keep-alive, and one that is being opened may take `core.open_timeout` before what is queued fails.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chassis::{Backoff, Dependency};
use proto::rpc::v1::{
    CreateMessageRequest, CreateMessageResponse, CreateMessageResult, create_message_result,
    message_service_client::MessageServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{info, warn};

use super::{Endpoints, breaker::Breakers};
use crate::{
    config,
    hub::spread,
    metrics::Metrics,
    refusal::Refusal,
    session::{Event, Outgoing, Run},
};

/// A SEND on its way.
#[derive(Debug)]
pub struct Outbound {
    pub conversation: i64,
    /// Broken where one before it in its lane has failed: it must not overtake that one's retry.
    pub run: Run,
    /// The session's number of it.
    pub no: u64,
    pub request: CreateMessageRequest,
    /// Where the answer goes.
    pub outgoing: Arc<Outgoing>,
}

impl Outbound {
    fn settle(&self, result: Result<CreateMessageResponse, Refusal>) {
        if result.as_ref().is_err_and(|refusal| refusal.code.is_retryable()) {
            self.run.break_off();
        }
        self.outgoing.notify(Event::Sent { conversation: self.conversation, no: self.no, result });
    }

    fn fail(&self) {
        self.settle(Err(Refusal::unavailable("the service behind the gateway is away")));
    }
}

/// Where SENDs are submitted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sends {
    queues: Arc<[mpsc::Sender<Outbound>]>,
    breakers: Arc<Breakers>,
}

/// The two ends of a stream that is open.
type Opened = (mpsc::Sender<CreateMessageRequest>, Streaming<CreateMessageResult>);

/// One core's stream.
pub struct Stream {
    core: usize,
    queue: mpsc::Receiver<Outbound>,
    endpoints: Endpoints,
    in_flight: usize,
    open_timeout: Duration,
    backoff_max: Duration,
    metrics: Arc<Metrics>,
    /// How many cores' streams are up; shared.
    up: Arc<AtomicUsize>,
    dependency: Dependency,
}

impl Sends {
    /// The handle, and a stream for each core.
    pub fn new(
        endpoints: &Endpoints,
        config: &config::Core,
        metrics: &Arc<Metrics>,
        dependency: &Dependency,
    ) -> (Self, Vec<Stream>) {
        let up = Arc::new(AtomicUsize::new(0));
        let (queues, streams) = (0..endpoints.count())
            .map(|core| {
                let (sender, queue) = mpsc::channel(config.sends_queued);
                let stream = Stream {
                    core,
                    queue,
                    endpoints: endpoints.clone(),
                    in_flight: config.sends_in_flight,
                    open_timeout: config.open_timeout,
                    // Not longer than the breaker is open: the next try is an opening, and no call that would wait.
                    backoff_max: config.breaker_time,
                    metrics: Arc::clone(metrics),
                    up: Arc::clone(&up),
                    dependency: dependency.clone(),
                };
                (sender, stream)
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        (Self { queues: queues.into(), breakers: Arc::clone(endpoints.breakers()) }, streams)
    }

    /// Puts a SEND on its way; `core` counts from the conversation's own. A full queue is a failure like any other.
    pub fn submit(&self, core: usize, outbound: Outbound) {
        let index = (spread(outbound.conversation, self.queues.len()) + core) % self.queues.len();
        if outbound.run.is_broken() || self.breakers.holds_back(index) {
            return outbound.fail();
        }
        if let Err(refused) = self.queues[index].try_send(outbound) {
            refused.into_inner().fail();
        }
    }
}

impl Stream {
    /// Keeps the stream up until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), self.backoff_max);
        loop {
            let opened = tokio::select! {
                () = stop.cancelled() => return,
                opened = self.open() => opened,
            };
            match opened {
                Ok((requests, answers)) => {
                    backoff.reset();
                    self.up.fetch_add(1, Ordering::Relaxed);
                    self.dependency.up();
                    info!(core = self.core, "the stream of messages to core is open");
                    let why = self.pump(requests, answers, &stop).await;
                    let left = self.up.fetch_sub(1, Ordering::Relaxed) - 1;
                    if stop.is_cancelled() {
                        return;
                    }
                    warn!(core = self.core, reason = why, "the stream of messages to core broke");
                    if left == 0 {
                        self.dependency.down(why);
                    }
                }
                Err(refusal) if self.up.load(Ordering::Relaxed) == 0 => self.dependency.down(&refusal),
                Err(_) => {}
            }
            let wait = tokio::time::sleep(backoff.next_delay());
            tokio::select! {
                () = stop.cancelled() => return,
                () = fail_all(&mut self.queue, wait) => {}
            }
        }
    }

    /// What is queued waits for an opening that is quick, as the first one is, and not for a core that was silent.
    async fn open(&mut self) -> Result<Opened, Refusal> {
        let breakers = Arc::clone(self.endpoints.breakers());
        let opening = open(self.endpoints.clone(), self.core, self.in_flight);
        tokio::pin!(opening);
        if breakers.is_closed(self.core)
            && let Ok(opened) = tokio::time::timeout(self.open_timeout, &mut opening).await
        {
            return opened;
        }
        breakers.waiting(self.core);
        fail_all(&mut self.queue, opening).await
    }

    /// Moves SENDs and answers until the stream ends; what is in flight then has failed. Says why it ended.
    async fn pump(
        &mut self,
        requests: mpsc::Sender<CreateMessageRequest>,
        mut answers: Streaming<CreateMessageResult>,
        stop: &CancellationToken,
    ) -> String {
        let mut waiting: HashMap<u64, Outbound> = HashMap::new();
        let mut next_no = 0;
        let why = loop {
            tokio::select! {
                // Answers first: each makes room for a request.
                biased;
                () = stop.cancelled() => break "the gateway stops".to_owned(),
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        self.endpoints.breakers().answered(self.core);
                        if let Some(outbound) = waiting.remove(&answer.request_no) {
                            self.metrics.sends_in_flight.dec();
                            outbound.settle(outcome(answer));
                        }
                    }
                    Ok(None) => break "core ended it".to_owned(),
                    Err(status) => {
                        self.endpoints.breakers().failed(self.core, &status);
                        break status.to_string();
                    }
                },
                Some(mut outbound) = self.queue.recv(), if waiting.len() < self.in_flight => {
                    // One before it failed in an earlier life of the stream, or in this one: sent now, it would overtake.
                    if outbound.run.is_broken() {
                        outbound.fail();
                        continue;
                    }
                    next_no += 1;
                    let mut request = std::mem::take(&mut outbound.request);
                    request.request_no = next_no;
                    // There is room for all that may be in flight; a closed channel is a broken stream.
                    if requests.try_send(request).is_err() {
                        outbound.fail();
                        break "the stream takes nothing more".to_owned();
                    }
                    self.metrics.sends_in_flight.inc();
                    waiting.insert(next_no, outbound);
                }
            }
        };
        self.metrics.sends_in_flight.dec_by(waiting.len() as i64);
        waiting.into_values().for_each(|outbound| outbound.fail());
        why
    }
}

async fn open(endpoints: Endpoints, core: usize, in_flight: usize) -> Result<Opened, Refusal> {
    let (sender, receiver) = mpsc::channel(in_flight);
    let request = endpoints.request(ReceiverStream::new(receiver))?;
    let mut client = MessageServiceClient::new(endpoints.channel(core));
    let answers = endpoints.ask(core, client.stream_create_messages(request)).await?;
    Ok((sender, answers))
}

/// What is queued, and what comes, has failed, `until` that is ready.
async fn fail_all<T>(queue: &mut mpsc::Receiver<Outbound>, until: impl Future<Output = T>) -> T {
    tokio::pin!(until);
    loop {
        tokio::select! {
            done = &mut until => return done,
            Some(outbound) = queue.recv() => outbound.fail(),
        }
    }
}

fn outcome(answer: CreateMessageResult) -> Result<CreateMessageResponse, Refusal> {
    match answer.result {
        Some(create_message_result::Result::Created(created)) => Ok(created),
        Some(create_message_result::Result::Failure(failure)) => Err(failure.into()),
        None => Err(Refusal::unavailable("core's answer says nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_a_failed_send_is_failed_too_until_the_lane_sends_all_again() {
        let (sender, mut queue) = mpsc::channel(1);
        let config = config::tests::load(&[]).unwrap().core;
        let breakers = Breakers::new(&config, &Arc::new(Metrics::new(chassis::hops::HopRing::new(0))));
        let sends = Sends { queues: [sender].into(), breakers: Arc::new(breakers) };
        let outgoing = crate::session::outgoing_tests::queue(1 << 10, 1);
        let submit = |run: &Run, no| {
            let (request, outgoing) = (CreateMessageRequest::default(), Arc::clone(&outgoing));
            sends.submit(0, Outbound { conversation: 7, run: run.clone(), no, request, outgoing });
        };
        let (run, other) = (Run::default(), Run::default());
        submit(&run, 1);
        submit(&run, 2);
        assert!(run.is_broken(), "there was no room for the second");
        assert_eq!(queue.try_recv().unwrap().no, 1);
        submit(&run, 3);
        submit(&other, 4);
        assert_eq!(queue.try_recv().unwrap().no, 4);
        let taken = crate::session::outgoing_tests::news(&outgoing);
        let failed = |event: &Event| matches!(event, Event::Sent { no: 2 | 3, result: Err(_), .. });
        assert!(taken.events.len() == 2 && taken.events.iter().all(failed), "{:?}", taken.events);
    }
}
