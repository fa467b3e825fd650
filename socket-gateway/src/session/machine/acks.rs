//! ACK and NACK.

use proto::{Code, rpc::v1::AckKind};
use tokio::time::Instant;

use super::{Asked, Machine, Output, transactions::no_transaction};
use crate::{
    disconnect::Disconnect,
    refusal::Refusal,
    session::{
        acks::Message,
        subscriptions::Subscription,
        transactions::{Acknowledged, Due, Work},
    },
    stomp::{Ack, AckOf},
};

/// What an ACK costs to keep beside the names in it, bytes.
const ACK_BYTES: usize = 64;

impl Machine {
    pub(super) fn ack(&mut self, ack: Ack) {
        let Ack { positive, of, transaction, receipt } = ack;
        if let Some(id) = transaction.as_deref().filter(|id| !self.transactions.is_open(id)) {
            return self.end(no_transaction(id).receipt(receipt));
        }
        let acknowledged = match self.acknowledged(&of, positive) {
            Ok(acknowledged) => acknowledged,
            Err(message) => return self.end(Disconnect::protocol(message).receipt(receipt)),
        };
        match transaction {
            None => self.apply_ack(acknowledged, receipt.into()),
            Some(id) => {
                let size = ACK_BYTES + receipt.as_ref().map_or(0, String::len);
                self.hold(&id, Work::Ack(acknowledged), receipt, size);
            }
        }
    }

    /// Finds what is acknowledged, or says why that can't be. What was sent on a subscription that is over may still be
    /// acknowledged, to no effect.
    fn acknowledged(&self, of: &AckOf, positive: bool) -> Result<Acknowledged, String> {
        let (message_id, no, subscription) = match of {
            AckOf::Id(id) => {
                let (no, message_id) = parse_id(id).ok_or_else(|| {
                    format!("there is no message with the ack header {id:?}: expected that of a MESSAGE")
                })?;
                if no == 0 || no > self.next_subscription {
                    return Err(format!("the ack header {id:?} was never sent: there is no such subscription"));
                }
                (message_id, Some(no), self.subscriptions.iter().find(|s| s.no == no))
            }
            AckOf::Message { message_id, subscription: Some(id) } => {
                let subscription = self.subscriptions.iter().find(|s| s.id == *id);
                if subscription.is_none() && !self.over.knows(id) {
                    return Err(format!("there is no subscription {id:?}"));
                }
                // Of one that is over there is no number: none has 0.
                (message_id.as_str(), Some(subscription.map_or(0, |s| s.no)), subscription)
            }
            AckOf::Message { message_id, subscription: None } => (message_id.as_str(), None, None),
        };
        let message = Message::parse(message_id)
            .ok_or_else(|| format!("there is no message {message_id:?}: expected the message-id of a MESSAGE"))?;
        if let Some(subscription) = subscription {
            let Some(acks) = &subscription.acks else {
                return Err(format!(
                    "the subscription {:?} has ack:auto: nothing is to be acknowledged",
                    subscription.id
                ));
            };
            if message.is_some_and(|message| !acks.was_sent(message)) {
                return Err(format!("{message_id} was never sent on the subscription {:?}", subscription.id));
            }
        } else if let (None, Some(message)) = (no, message)
            && !self.subscriptions.iter().any(|s| s.acks.as_ref().is_some_and(|acks| acks.was_sent(message)))
        {
            return Err(format!("{message_id} was never sent on a subscription with another ack than auto"));
        }
        Ok(Acknowledged { subscription: no, message, positive })
    }

    pub(super) fn apply_ack(&mut self, acknowledged: Acknowledged, due: Due) {
        let Acknowledged { subscription: no, message, positive } = acknowledged;
        if !positive {
            self.metrics.nacks.inc();
        }
        let Some(message) = message.filter(|_| positive) else { return self.done(due) };
        let max = self.settings.unacknowledged;
        let gaps: usize = self.subscriptions.iter().filter_map(|s| Some(s.acks.as_ref()?.gaps())).sum();
        let mut moved = Vec::new();
        let chosen = |s: &&mut Subscription| no.is_none_or(|no| s.no == no);
        for acks in self.subscriptions.iter_mut().filter(chosen).filter_map(|s| s.acks.as_mut()) {
            match acks.acknowledge(message, max.saturating_sub(gaps)) {
                Ok(prefixes) => moved.extend(prefixes),
                Err(_) => {
                    let text = format!("a session may leave {max} gaps between acknowledged messages; fill some first");
                    let refusal = Refusal::new(Code::TooManyUnacknowledged, text);
                    return self.failed(due, &refusal, Some(message.conversation));
                }
            }
        }
        for prefix in moved {
            let now = self.reports.report(prefix);
            self.report(now);
        }
        self.done(due);
    }

    /// Tells core how far this user has got.
    pub(super) fn report(&mut self, prefix: impl IntoIterator<Item = Message>) {
        for message in prefix {
            self.next_no += 1;
            let no = self.next_no;
            self.asked.insert(no, Asked::Delivered(message));
            let Message { conversation, seq } = message;
            self.outputs.put(Output::Position { no, conversation, kind: AckKind::Delivered, seq, epoch: 0 });
        }
    }

    /// Core has taken a prefix or refused it; who is no member any more has none.
    pub(super) fn reported(&mut self, message: Message, result: Result<(), Refusal>, now: Instant) {
        let again = result.is_err_and(|refusal| refusal.code.is_retryable());
        let next = self.reports.answered(message, again, now);
        self.report(next);
    }

    pub(super) fn retry_reports(&mut self, now: Instant) {
        if self.reports.retry_at.is_some_and(|at| at <= now) {
            let again = self.reports.retry();
            self.report(again);
        }
    }
}

/// An `ack` header: the number of the subscription and the message id.
fn parse_id(id: &str) -> Option<(u32, &str)> {
    let (no, message_id) = id.split_once('-')?;
    let digits = no.bytes().all(|byte| byte.is_ascii_digit());
    Some((no.parse().ok().filter(|_| digits)?, message_id))
}
