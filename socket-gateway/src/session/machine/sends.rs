//! SENDs of a session.

use std::time::Duration;

use proto::{
    Code,
    rpc::v1::{CreateMessageRequest, CreateMessageResponse},
};
use tokio::time::Instant;

use super::{Asked, Machine, Output};
use crate::{
    refusal::Refusal,
    session::{
        destination::SendTo,
        frames::{self, About},
        lane::{Lane, Step},
        request::{self, Message, Read, Resume, Token},
    },
    stomp::Send,
};

/// Conversations of which a session's last TYPING is remembered.
const TYPING_REMEMBERED: usize = 64;

impl Machine {
    pub(super) fn send(&mut self, send: Send, now: Instant) {
        let receipt = send.receipt.clone();
        if let Err((refusal, conversation)) = self.try_send(send, now) {
            self.refuse(&refusal, About { receipt, conversation, subscription: None });
        }
    }

    fn try_send(&mut self, send: Send, now: Instant) -> Result<(), (Refusal, Option<i64>)> {
        if send.transaction.is_some() {
            let message = "SEND names a transaction, but transactions are not served";
            self.end(crate::disconnect::Disconnect::protocol(message).receipt(send.receipt));
            return Ok(());
        }
        let to = SendTo::parse(&send.destination).map_err(|refusal| (refusal, None))?;
        let conversation = match to {
            SendTo::Messages(id) | SendTo::Typing(id) | SendTo::Read(id) => Some(id),
            SendTo::Token | SendTo::Resume => None,
        };
        self.check_send(&send, to, now).map_err(|refusal| (refusal, conversation))?;
        let subject = self.user;
        let done = match to {
            SendTo::Messages(id) => {
                request::parse(&send.body, subject).map(|message| self.send_message(id, message, send.receipt, now))
            }
            SendTo::Typing(id) => request::parse::<serde_json::Value>(&send.body, subject)
                .map(|_| self.send_typing(id, send.receipt, now)),
            SendTo::Read(id) => request::parse::<Read>(&send.body, subject).map(|read| {
                let no = self.ask(id, send.receipt);
                let epoch = read.epoch.unwrap_or(0);
                self.outputs.push(Output::Read { no, conversation: id, seq: read.seq, epoch });
            }),
            SendTo::Token => request::parse::<Token>(&send.body, subject).map(|token| {
                self.renewing = Some(send.receipt);
                self.outputs.push(Output::Verify { token: token.access_token });
            }),
            SendTo::Resume => {
                request::parse::<Resume>(&send.body, subject).and_then(|resume| self.resume(resume, send.receipt))
            }
        };
        done.map_err(|refusal| (refusal, conversation))
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
        let writes = matches!(to, SendTo::Messages(_) | SendTo::Typing(_));
        if writes && !self.may_write {
            return Err(Refusal::new(Code::Forbidden, "the token lacks the scope messages:write"));
        }
        self.bucket.take(now).map_err(|wait: Duration| {
            let per_second = self.settings.sends_per_second;
            let message = format!("more than {per_second} SENDs a second");
            let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
            Refusal::new(Code::RateLimited, message).retry_after_ms(ms)
        })
    }

    fn send_message(&mut self, conversation: i64, message: Message, receipt: Option<String>, now: Instant) {
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
        let step = lane.push(self.next_no, request, receipt, now);
        self.step(conversation, step);
    }

    fn send_typing(&mut self, conversation: i64, receipt: Option<String>, now: Instant) {
        let interval = self.settings.typing_interval;
        if self.typed_at.get(&conversation).is_some_and(|at| now.duration_since(*at) < interval) {
            // Coalesced: the one before says it already.
            return self.receipt(receipt);
        }
        if self.typed_at.len() >= TYPING_REMEMBERED {
            self.typed_at.retain(|_, at| now.duration_since(*at) < interval);
        }
        self.typed_at.insert(conversation, now);
        let no = self.ask(conversation, receipt);
        self.outputs.push(Output::Typing { no, conversation });
    }

    fn ask(&mut self, conversation: i64, receipt: Option<String>) -> u64 {
        self.next_no += 1;
        self.in_flight += 1;
        self.asked.insert(self.next_no, Asked { receipt, conversation });
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
            match (settled.result, settled.receipt) {
                (Ok(created), Some(id)) => {
                    self.outputs.push(Output::Write(frames::message_receipt(self.version, &id, &created)));
                }
                (Ok(_), None) => {}
                (Err(refusal), receipt) => {
                    self.refuse(&refusal, About { receipt, conversation: Some(conversation), subscription: None });
                }
            }
        }
        let submit = step.submit.into_iter().map(|submission| Output::Submit { conversation, submission });
        self.outputs.extend(submit);
        if self.lanes.get(&conversation).is_some_and(Lane::is_idle) {
            self.lanes.remove(&conversation);
        }
    }
}
