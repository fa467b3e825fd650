//! The order of one session's SENDs to one conversation.
//!
//! SENDs are pipelined. When one fails in a way that may pass (a core was killed, say), those behind it have failed or
//! will fail too, by core's rule; nothing is sent until the last of them was answered. Then, after a back-off, all are
//! sent again in order, to the next core: never is a lane in flight at two cores. A SEND that is not committed by its
//! deadline is refused as unavailable, and so is everything behind it, or that would come before the client's retry: what
//! is there, and for a while what the client sends before it can have heard of the refusal. If core committed one of them
//! unseen all the same, its `client_message_id` makes the client's retry a duplicate.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chassis::seeded::{self, Bug};
use proto::{
    Code,
    rpc::v1::{CreateMessageRequest, CreateMessageResponse},
};
use tokio::time::Instant;

use super::transactions::Due;
use crate::refusal::Refusal;

/// How long a lane stays closed behind a SEND that was refused by its deadline, when that one does not come again.
const REOPEN: Duration = Duration::from_secs(1);

/// What was put on the way since a lane's last failure. Whoever on the way fails one of a run breaks it, and lets none
/// through that comes behind: the lane hears of the failure later, and may have put others on the way meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Run(Arc<AtomicBool>);

impl Run {
    pub fn break_off(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn submission(&self, core: usize, item: &Item) -> Submission {
        Submission { core, run: self.clone(), no: item.no, request: item.request.clone() }
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A SEND to be put on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// Which core, counted from the conversation's own.
    pub core: usize,
    pub run: Run,
    pub no: u64,
    pub request: CreateMessageRequest,
}

/// A SEND's end.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    pub due: Due,
    pub result: Result<CreateMessageResponse, Refusal>,
}

/// What happens next.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    pub submit: Vec<Submission>,
    pub settled: Vec<Settled>,
}

#[derive(Debug)]
struct Item {
    no: u64,
    request: CreateMessageRequest,
    due: Due,
    deadline: Instant,
    in_flight: bool,
    /// Refused by its deadline while in flight: its answer is still awaited, for the order.
    given_up: bool,
}

#[derive(Debug, PartialEq)]
enum State {
    Flowing,
    /// Something failed: what is in flight is awaited.
    Failing {
        retry_after: Duration,
    },
    BackingOff {
        until: Instant,
    },
}

/// Refuses what would overtake SENDs that were refused by a deadline.
#[derive(Debug)]
struct Closed {
    /// Those, in order, by their `client_message_id`: they are let in again in this order, and nothing else before.
    refused: VecDeque<String>,
    until: Instant,
}

/// How long and how often is retried.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    pub deadline: Duration,
    pub base: Duration,
    pub max: Duration,
}

#[derive(Debug)]
pub struct Lane {
    items: VecDeque<Item>,
    state: State,
    closed: Option<Closed>,
    core: usize,
    run: Run,
    tries: u32,
    retry: Retry,
}

impl Lane {
    pub fn new(retry: Retry) -> Self {
        Self {
            items: VecDeque::new(),
            state: State::Flowing,
            closed: None,
            core: 0,
            run: Run::default(),
            tries: 0,
            retry,
        }
    }

    /// Nothing is awaited: the lane can be forgotten.
    pub fn is_idle(&self) -> bool {
        self.items.is_empty() && self.closed.is_none()
    }

    pub fn push(&mut self, no: u64, request: CreateMessageRequest, due: Due, now: Instant) -> Step {
        let mut step = Step::default();
        self.closed.take_if(|closed| closed.until <= now);
        if let Some(closed) = &mut self.closed {
            if closed.refused.front() != Some(&request.client_message_id) {
                let result = Err(behind_a_failed_one(closed.until - now));
                step.settled.push(Settled { due, result });
                if !closed.refused.contains(&request.client_message_id) {
                    closed.refused.push_back(request.client_message_id);
                }
                return step;
            }
            closed.refused.pop_front();
            if closed.refused.is_empty() {
                self.closed = None;
            }
        }
        let mut item =
            Item { no, request, due, deadline: now + self.retry.deadline, in_flight: false, given_up: false };
        if self.state == State::Flowing {
            item.in_flight = true;
            step.submit.push(self.run.submission(self.core, &item));
        }
        self.items.push_back(item);
        step
    }

    /// Core's answer to one SEND.
    pub fn answered(&mut self, no: u64, result: Result<CreateMessageResponse, Refusal>, now: Instant) -> Step {
        let mut step = Step::default();
        let Some(index) = self.items.iter().position(|item| item.no == no && item.in_flight) else { return step };
        match result {
            Err(refusal) if refusal.code.is_retryable() => {
                let hint = Duration::from_millis(refusal.retry_after_ms.unwrap_or(0).into());
                self.state = match self.state {
                    State::Failing { retry_after } => State::Failing { retry_after: retry_after.max(hint) },
                    _ => State::Failing { retry_after: hint },
                };
                self.items[index].in_flight = false;
            }
            result => {
                if result.is_ok() {
                    self.tries = 0;
                }
                if let Some(item) = self.items.remove(index)
                    && !item.given_up
                {
                    step.settled.push(Settled { due: item.due, result });
                }
            }
        }
        if let State::Failing { retry_after } = self.state
            && self.items.iter().all(|item| !item.in_flight)
        {
            self.items.retain(|item| !item.given_up);
            // Jitter is not needed here: lanes fail together, but each session's answers come at their own times.
            let delay = self.retry.base.saturating_mul(1 << self.tries.min(10)).min(self.retry.max).max(retry_after);
            self.tries += 1;
            self.core += 1;
            self.run = Run::default();
            self.state = if self.items.is_empty() { State::Flowing } else { State::BackingOff { until: now + delay } };
        }
        step
    }

    /// The next time [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let first = self.items.iter().find(|item| !item.given_up).map(|item| item.deadline);
        let retry = match self.state {
            State::BackingOff { until } => Some(until),
            State::Flowing | State::Failing { .. } => None,
        };
        let opens = self.closed.as_ref().map(|closed| closed.until);
        [first, retry, opens].into_iter().flatten().min()
    }

    pub fn tick(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        self.closed.take_if(|closed| closed.until <= now);
        if let Some(late) = self.items.iter().position(|item| !item.given_up && item.deadline <= now) {
            let closed = self.closed.get_or_insert(Closed { refused: VecDeque::new(), until: now });
            closed.until = now + REOPEN;
            let mut refusal = Refusal::new(Code::Unavailable, "the message could not be stored in time; send it again");
            for item in self.items.iter_mut().skip(late) {
                let result = Err(std::mem::replace(&mut refusal, behind_a_failed_one(Duration::ZERO)));
                step.settled.push(Settled { due: std::mem::take(&mut item.due), result });
                closed.refused.push_back(item.request.client_message_id.clone());
                item.given_up = true;
            }
            self.items.retain(|item| item.in_flight || !item.given_up);
        }
        if self.items.is_empty() {
            self.state = State::Flowing;
        }
        if let State::BackingOff { until } = self.state
            && until <= now
        {
            self.state = State::Flowing;
            for item in &mut self.items {
                if seeded::on(Bug::FreshMessageId) {
                    item.request.client_message_id = uuid::Uuid::now_v7().to_string();
                }
                item.in_flight = true;
                step.submit.push(self.run.submission(self.core, item));
            }
        }
        step
    }
}

/// What a SEND behind a refused one is answered; `wait`: when it is taken by itself.
fn behind_a_failed_one(wait: Duration) -> Refusal {
    let refusal = Refusal::new(Code::Unavailable, "a message before this one failed; send both again, in order");
    match u32::try_from(wait.as_millis()) {
        Ok(0) | Err(_) => refusal,
        Ok(ms) => refusal.retry_after_ms(ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry =
        Retry { deadline: Duration::from_secs(10), base: Duration::from_millis(50), max: Duration::from_secs(1) };

    fn request(n: u64) -> CreateMessageRequest {
        CreateMessageRequest { client_message_id: format!("m-{n}"), ..CreateMessageRequest::default() }
    }

    fn created() -> Result<CreateMessageResponse, Refusal> {
        Ok(CreateMessageResponse::default())
    }

    fn unavailable() -> Result<CreateMessageResponse, Refusal> {
        Err(Refusal::unavailable("core is away"))
    }

    fn numbers(step: &Step) -> Vec<(usize, u64)> {
        step.submit.iter().map(|submission| (submission.core, submission.no)).collect()
    }

    fn lane(now: Instant, pushed: u64) -> Lane {
        let mut lane = Lane::new(RETRY);
        for no in 1..=pushed {
            assert_eq!(numbers(&lane.push(no, request(no), Some(no.to_string()).into(), now)), [(0, no)]);
        }
        lane
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_retryable_failure_all_are_sent_again_in_order_once_none_is_in_flight() {
        let now = Instant::now();
        let mut lane = lane(now, 3);
        assert_eq!(lane.answered(1, created(), now).settled.len(), 1);
        assert_eq!(lane.answered(2, unavailable(), now), Step::default());
        // Behind a failure nothing is sent, until the last in flight has failed too.
        assert_eq!(lane.push(4, request(4), Due::default(), now), Step::default());
        assert_eq!(lane.answered(3, unavailable(), now), Step::default());
        let retry_at = lane.deadline().unwrap();
        assert_eq!(retry_at - now, RETRY.base);
        let again = lane.tick(retry_at);
        assert_eq!(numbers(&again), [(1, 2), (1, 3), (1, 4)]);
        assert!(again.submit.iter().all(|submission| submission.run == again.submit[0].run));
        for no in 2..=4 {
            assert_eq!(lane.answered(no, created(), retry_at).settled.len(), 1);
        }
        assert!(lane.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_message_leaves_the_others_where_they_are() {
        let now = Instant::now();
        let mut lane = lane(now, 2);
        let refused = Refusal::new(Code::Conflict, "another content");
        let step = lane.answered(1, Err(refused.clone()), now);
        assert_eq!(step.settled, [Settled { due: Some("1".to_owned()).into(), result: Err(refused) }]);
        assert_eq!(lane.answered(2, created(), now).settled.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_committed_by_its_deadline_is_refused_as_unavailable() {
        let now = Instant::now();
        let mut lane = lane(now, 2);
        let late = now + RETRY.deadline;
        let step = lane.tick(late);
        assert_eq!(step.settled.len(), 2);
        assert!(step.settled.iter().all(|s| s.result.as_ref().unwrap_err().code == Code::Unavailable));
        // Answers are still awaited, so that nothing overtakes at another core.
        assert_eq!(lane.answered(1, unavailable(), late), Step::default());
        let later = late + REOPEN;
        assert_eq!(lane.tick(later), Step::default());
        assert!(!lane.is_idle() && lane.deadline().is_none());
        assert_eq!(lane.push(3, request(3), Due::default(), later), Step::default());
        assert_eq!(lane.answered(2, unavailable(), later), Step::default());
        assert_eq!(numbers(&lane.tick(later + RETRY.max)), [(1, 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_overtakes_the_retry_of_what_was_refused_by_its_deadline() {
        let began = Instant::now();
        let mut lane = lane(began, 1);
        lane.answered(1, unavailable(), began);
        let later = began + Duration::from_secs(3);
        assert_eq!(numbers(&lane.tick(later)), [(1, 1)]);
        lane.push(2, request(2), Due::default(), later);
        lane.answered(2, unavailable(), later);

        let late = began + RETRY.deadline;
        assert_eq!(lane.tick(late).settled.len(), 2, "the second one's own deadline is not over");
        // Sent before the refusal can have been heard.
        let step = lane.push(3, request(3), Due::default(), late);
        assert_eq!((step.submit.len(), step.settled.len()), (0, 1));
        // The answer that was awaited for the order.
        lane.answered(1, unavailable(), late);
        assert!(!lane.is_idle());
        let mut push = |no: u64, n| lane.push(no, request(n), Due::default(), late).submit.len();
        assert_eq!(push(4, 1), 1);
        assert_eq!(push(5, 4), 0, "a new one, before the refusals of the others were heard");
        assert_eq!([push(6, 2), push(7, 3), push(8, 4)], [1; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_gives_a_refused_one_up_can_go_on_after_a_while() {
        let mut lane = lane(Instant::now(), 1);
        lane.answered(1, unavailable(), Instant::now());
        let late = Instant::now() + RETRY.deadline;
        lane.tick(late);
        assert_eq!(lane.deadline(), Some(late + REOPEN));
        assert_eq!(lane.push(2, request(2), Due::default(), late + REOPEN).submit.len(), 1);
        lane.answered(2, created(), late + REOPEN);
        assert!(lane.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_of_core_lengthens_the_back_off() {
        let now = Instant::now();
        let mut lane = lane(now, 1);
        lane.answered(1, Err(Refusal::new(Code::RateLimited, "slow down").retry_after_ms(700)), now);
        assert_eq!(lane.deadline().unwrap() - now, Duration::from_millis(700));
    }
}
