//! SENDs of a session.

use proto::{
    Code,
    rpc::v1::{AckKind, CreateMessageRequest, CreateMessageResponse},
};
use serde_json::Value;
use tokio::time::Instant;

use super::{Asked, Machine, Output, transactions::no_transaction};
use crate::{
    refusal::Refusal,
    session::{
        destination::SendTo,
        frames::{self, About},
        lane::{Lane, Settled, Step},
        rate,
        request::{self, Message, Read, Resume, Token},
        transactions::{Due, Work},
    },
    stomp::Send,
};

/// Conversations of which a session's last TYPING is remembered.
const TYPING_REMEMBERED: usize = 64;

/// A SEND that was found good.
#[derive(Debug)]
pub enum Request {
    Message(i64, Message),
    Typing(i64),
    Read(i64, Read),
    Token(Token),
    Resume(Resume),
}

impl Machine {
    pub(super) fn send(&mut self, send: Send, now: Instant) {
        let Send { receipt, transaction, .. } = &send;
        let (receipt, transaction) = (receipt.clone(), transaction.clone());
        if let Some(id) = transaction.as_deref().filter(|id| !self.transactions.is_open(id)) {
            return self.end(no_transaction(id).receipt(receipt));
        }
        let size = send.size();
        match (self.check(send, now), transaction) {
            (Ok(request), None) => self.apply_send(request, receipt.into(), now),
            (Ok(request), Some(id)) => self.hold(&id, Work::Send(request), receipt, size),
            (Err((refusal, conversation)), transaction) => {
                if let Some(id) = transaction {
                    self.transactions.lose(&id, &refusal);
                }
                self.refuse(&refusal, About { receipt, conversation, subscription: None });
            }
        }
    }

    /// Everything that can be said of a SEND by looking at it.
    fn check(&mut self, send: Send, now: Instant) -> Result<Request, (Refusal, Option<i64>)> {
        let to = SendTo::parse(&send.destination).map_err(|refusal| (refusal, None))?;
        let conversation = match to {
            SendTo::Messages(id) | SendTo::Typing(id) | SendTo::Read(id) => Some(id),
            SendTo::Token | SendTo::Resume => None,
        };
        let refused = |refusal| (refusal, conversation);
        self.check_send(&send, to, now).map_err(refused)?;
        let (body, subject) = (&send.body, self.user);
        let request = match to {
            SendTo::Messages(id) => request::parse(body, subject).map(|message| Request::Message(id, message)),
            SendTo::Typing(id) => request::parse::<Value>(body, subject).map(|_| Request::Typing(id)),
            SendTo::Read(id) => request::parse(body, subject).map(|read| Request::Read(id, read)),
            SendTo::Token => request::parse(body, subject).map(Request::Token),
            SendTo::Resume => request::parse(body, subject).map(Request::Resume),
        };
        request.map_err(refused)
    }

    /// Does what a SEND asks for, now or when its transaction is committed.
    pub(super) fn apply_send(&mut self, request: Request, due: Due, now: Instant) {
        match request {
            Request::Message(id, message) => self.send_message(id, message, due, now),
            Request::Typing(id) => self.send_typing(id, due, now),
            Request::Read(id, Read { seq, epoch }) => {
                let no = self.ask(id, due);
                let (kind, epoch) = (AckKind::Read, epoch.unwrap_or(0));
                self.outputs.put(Output::Position { no, conversation: id, kind, seq, epoch });
            }
            Request::Token(token) => {
                self.renewing = Some(due.receipt);
                self.outputs.put(Output::Verify { token: token.access_token });
            }
            Request::Resume(resume) => match self.resume(resume) {
                Ok(()) => self.done(due),
                Err(refusal) => self.failed(due, &refusal, None),
            },
        }
    }

    fn check_send(&mut self, send: &Send, to: SendTo, now: Instant) -> Result<(), Refusal> {
        if let Some(named) = &send.claimed_sender {
            request::check_sender("a header", named, self.user)?;
        }
        let max = self.settings.message_body;
        if send.body.len() > max {
            let message = format!("the body has {} bytes; at most {max} are taken", send.body.len());
            return Err(Refusal::new(Code::BodyTooLarge, message));
        }
        if to == SendTo::Token && send.transaction.is_some() {
            let message = "a new token can't wait for a COMMIT: send it outside of transactions";
            return Err(Refusal::new(Code::InvalidDestination, message));
        }
        let writes = matches!(to, SendTo::Messages(_) | SendTo::Typing(_));
        if writes && !self.may_write {
            return Err(Refusal::new(Code::Forbidden, "the token lacks the scope messages:write"));
        }
        // What is held for a transaction is counted as it comes, and not when it is committed.
        let per_second = self.settings.sends_per_second;
        self.send_bucket.take(now).map_err(|wait| rate::limited(format!("more than {per_second} SENDs a second"), wait))
    }

    fn send_message(&mut self, conversation: i64, message: Message, due: Due, now: Instant) {
        let request = CreateMessageRequest {
            conversation_id: conversation,
            body: message.body,
            // So that the gateway's own retries are safe.
            client_message_id: message.client_message_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
            thread_root_id: message.thread_root_id.map_or(0, |id| id.0),
            kind: message.kind.unwrap_or_default(),
            attachment_ids: message.attachment_ids.into_iter().map(|id| id.0).collect(),
            sender_id: self.user,
            traceparent: String::new(),
            request_no: 0,
        };
        self.next_no += 1;
        self.in_flight += 1;
        let retry = self.settings.retry;
        let lane = self.lanes.entry(conversation).or_insert_with(|| Lane::new(retry));
        let step = lane.push(self.next_no, request, due, now);
        self.step(conversation, step);
    }

    fn send_typing(&mut self, conversation: i64, due: Due, now: Instant) {
        let interval = self.settings.typing_interval;
        if self.typed_at.get(&conversation).is_some_and(|at| now.duration_since(*at) < interval) {
            // Coalesced: the one before says it already.
            return self.done(due);
        }
        if self.typed_at.len() >= TYPING_REMEMBERED {
            self.typed_at.retain(|_, at| now.duration_since(*at) < interval);
        }
        self.typed_at.insert(conversation, now);
        let no = self.ask(conversation, due);
        self.outputs.put(Output::Typing { no, conversation });
    }

    fn ask(&mut self, conversation: i64, due: Due) -> u64 {
        self.next_no += 1;
        self.in_flight += 1;
        self.asked.insert(self.next_no, Asked::Request { due, conversation });
        self.next_no
    }

    pub(super) fn sent(
        &mut self,
        conversation: i64,
        no: u64,
        result: Result<CreateMessageResponse, Refusal>,
        now: Instant,
    ) {
        if let Some(lane) = self.lanes.get_mut(&conversation) {
            let step = lane.answered(no, result, now);
            self.step(conversation, step);
        }
    }

    pub(super) fn tick_lanes(&mut self, now: Instant) {
        let due = self.lanes.iter().filter(|(_, lane)| lane.deadline().is_some_and(|at| at <= now));
        let due: Vec<i64> = due.map(|(id, _)| *id).collect();
        for conversation in due {
            if let Some(lane) = self.lanes.get_mut(&conversation) {
                let step = lane.tick(now);
                self.step(conversation, step);
            }
        }
    }

    fn step(&mut self, conversation: i64, step: Step) {
        for settled in step.settled {
            self.in_flight -= 1;
            let Settled { mut due, result } = settled;
            match result {
                Ok(created) => {
                    if let Some(id) = due.receipt.take() {
                        self.outputs.put(Output::Write(frames::message_receipt(self.version, &id, &created)));
                    }
                    self.done(due);
                }
                Err(refusal) => self.failed(due, &refusal, Some(conversation)),
            }
        }
        for submission in step.submit {
            self.outputs.put(Output::Submit { conversation, submission });
        }
        if self.lanes.get(&conversation).is_some_and(Lane::is_idle) {
            self.lanes.remove(&conversation);
        }
    }
}
