//! SUBSCRIBE, UNSUBSCRIBE, `/app/resume`, and what the hub says of subscriptions.

use std::{sync::Arc, time::Duration};

use proto::Code;
use tokio::time::Instant;

use super::{Machine, Output};
use crate::{
    disconnect::Disconnect,
    hub::{Scope, Start, UserState},
    refusal::Refusal,
    session::{
        acks::{Acks, Message},
        destination::Topic,
        frames::{self, About},
        rate,
        request::Resume,
        subscriptions::{Plan, Subscription, UserQueue},
    },
    stomp::Subscribe,
};

/// A conversation of the user's queue that could not be attached is tried again after this.
const QUEUE_RETRY: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, now: Instant) {
        let Subscribe { id, has_id, destination, ack, after_seq, after_epoch, receipt } = subscribe;
        if self.subscriptions.iter().any(|subscription| subscription.id == id) {
            let message = format!("there is a subscription {id:?} already");
            return self.end(Disconnect::protocol(message).receipt(receipt));
        }
        let topic = match self.check_subscribe(&destination, now) {
            Ok(topic) => topic,
            Err(refusal) => {
                self.over.add(id.clone(), false);
                let about = About { receipt, subscription: Some(id), conversation: None };
                return self.refuse(&refusal, about);
            }
        };
        self.over.remove(&id);
        self.next_subscription += 1;
        let no = self.next_subscription;
        let head = frames::message_head(self.version, has_id.then_some(id.as_str()), &destination, (ack, no));
        let acks = Acks::new(ack, topic == Topic::UserEvents, self.settings.unacknowledged).map(Box::new);
        let mut subscription = Subscription { no, id, topic, head: head.clone(), receipt, queue: None, acks };
        self.metrics.subscriptions.inc();
        match topic {
            Topic::Conversation(conversation) => {
                let after = after_seq.map(|seq| Start::After { seq, epoch: after_epoch });
                let start = after.or_else(|| self.resumed.start(conversation)).unwrap_or(Start::Head);
                let (user_seq, joined_user_seq) = (None, None);
                self.outputs.put(Output::Attach {
                    subscription: no,
                    conversation,
                    scope: Scope::Topic,
                    start,
                    head,
                    user_seq,
                    joined_user_seq,
                });
                self.subscriptions.push(subscription);
            }
            Topic::UserEvents => {
                let queue = Box::<UserQueue>::default();
                self.outputs.put(Output::WatchUser { subscription: no, known: queue.known(&self.resumed) });
                subscription.queue = Some(queue);
                self.subscriptions.push(subscription);
            }
            Topic::Errors => {
                let receipt = subscription.receipt.take();
                self.subscriptions.push(subscription);
                self.receipt(receipt);
            }
        }
    }

    fn check_subscribe(&mut self, destination: &str, now: Instant) -> Result<Topic, Refusal> {
        // One that is refused later has cost the hub and core as much, and its place is free again at once.
        let per_second = self.settings.subscribes_per_second;
        self.subscribe_bucket
            .take(now)
            .map_err(|wait| rate::limited(format!("more than {per_second} SUBSCRIBEs a second"), wait))?;
        let topic = Topic::parse(destination)?;
        if !self.may_read {
            return Err(Refusal::new(Code::Forbidden, "the token lacks the scope messages:read"));
        }
        let max = self.settings.subscriptions;
        if self.subscriptions.len() >= max {
            return Err(Refusal::new(Code::TooManySubscriptions, format!("a session may have {max} subscriptions")));
        }
        Ok(topic)
    }

    pub(super) fn unsubscribe(&mut self, id: &str, receipt: Option<String>) {
        let Some(index) = self.subscriptions.iter().position(|subscription| subscription.id == id) else {
            if self.over.unsubscribe(id) {
                return self.receipt(receipt);
            }
            return self.end(Disconnect::protocol(format!("there is no subscription {id:?}")).receipt(receipt));
        };
        let mut subscription = self.remove(index);
        self.over.add(std::mem::take(&mut subscription.id), true);
        // It was taken; that it is attached does not matter any more.
        let subscribed = subscription.receipt.take();
        self.receipt(subscribed);
        let conversations = Self::conversations(&subscription);
        if subscription.queue.is_some() {
            self.outputs.put(Output::UnwatchUser { subscription: subscription.no });
        }
        if conversations.is_empty() {
            return self.receipt(receipt);
        }
        self.detaching.insert(subscription.no, (0, receipt));
        self.outputs.put(Output::Detach { subscription: subscription.no, conversations });
    }

    /// Conversations that the hub may know a subscription by.
    pub(super) fn conversations(subscription: &Subscription) -> Vec<i64> {
        match (&subscription.queue, subscription.topic) {
            (Some(queue), _) => queue.conversations(),
            (None, Topic::Conversation(id)) => vec![id],
            (None, _) => Vec::new(),
        }
    }

    fn remove(&mut self, index: usize) -> Subscription {
        self.metrics.subscriptions.dec();
        self.subscriptions.swap_remove(index)
    }

    /// An answer to UNSUBSCRIBE, or how many there will be; nothing comes of the subscription after the last.
    pub(super) fn detached(&mut self, no: u32, expected: Option<usize>) {
        let Some((left, _)) = self.detaching.get_mut(&no) else { return };
        match expected {
            Some(answers) => *left = answers,
            None => *left = left.saturating_sub(1),
        }
        if *left == 0
            && let Some((_, receipt)) = self.detaching.remove(&no)
        {
            self.receipt(receipt);
        }
    }

    pub(super) fn resume(&mut self, resume: Resume) -> Result<(), Refusal> {
        let covered = self.subscriptions.iter().any(|subscription| match subscription.topic {
            Topic::Conversation(id) => resume.conversations.contains_key(&proto::ConversationId(id)),
            Topic::UserEvents => true,
            Topic::Errors => false,
        });
        if covered {
            let message = "a subscription covers what is to be resumed: send /app/resume before SUBSCRIBE";
            return Err(Refusal::new(Code::ResumeTooLate, message));
        }
        let max = self.settings.resumed_conversations;
        if !self.resumed.add(resume, max) {
            let message = format!("a session may resume {max} conversations");
            return Err(Refusal::new(Code::TooManySubscriptions, message));
        }
        Ok(())
    }

    /// A message is queued for a subscription that acknowledges.
    pub(super) fn delivered(&mut self, no: u32, message: Message) {
        if let Some(acks) = self.subscription(no).and_then(|subscription| subscription.acks.as_mut()) {
            acks.sent(message);
        }
    }

    fn subscription(&mut self, no: u32) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.no == no)
    }

    pub(super) fn attached_to(&mut self, no: u32, conversation: i64, head: i64) {
        let Some(subscription) = self.subscription(no) else { return };
        let Some(queue) = &mut subscription.queue else {
            let receipt = subscription.receipt.take();
            return self.receipt(receipt);
        };
        let next = queue.attached(conversation, head);
        self.go_on_with_queue(no, next);
    }

    pub(super) fn attach_refused(&mut self, no: u32, conversation: i64, refusal: &Refusal, now: Instant) {
        let Some(index) = self.subscriptions.iter().position(|subscription| subscription.no == no) else { return };
        let subscription = &mut self.subscriptions[index];
        if conversation != 0
            && let Some(queue) = &mut subscription.queue
        {
            let next = queue.refused(conversation, now + QUEUE_RETRY);
            return self.go_on_with_queue(no, next);
        }
        let subscription = self.remove(index);
        if subscription.queue.is_some() {
            // It may have asked for the state again meanwhile, and its conversations are attached still.
            self.outputs.put(Output::UnwatchUser { subscription: no });
            let conversations = Self::conversations(&subscription);
            if !conversations.is_empty() {
                self.outputs.put(Output::Detach { subscription: no, conversations });
            }
        }
        let Subscription { id, receipt, .. } = subscription;
        self.over.add(id.clone(), false);
        let conversation = (conversation != 0).then_some(conversation);
        self.refuse(refusal, About { receipt, subscription: Some(id), conversation });
    }

    pub(super) fn subscription_ended(&mut self, no: u32, conversation: i64, at_seq: i64, removed: bool) {
        let Some(index) = self.subscriptions.iter().position(|subscription| subscription.no == no) else { return };
        if let Some(queue) = &mut self.subscriptions[index].queue {
            let next = queue.ended(conversation, at_seq);
            return self.go_on_with_queue(no, next);
        }
        let Subscription { id, receipt, .. } = self.remove(index);
        self.over.add(id.clone(), false);
        self.receipt(receipt);
        // A former member who resumed was told so by RESUMED; a member who was removed is told here.
        if removed {
            let message = format!("you are no member of conversation {conversation} any more");
            let about = About { receipt: None, subscription: Some(id), conversation: Some(conversation) };
            self.refuse(&Refusal::new(Code::SubscriptionEnded, message), about);
        }
    }

    pub(super) fn user_state(&mut self, no: u32, state: Arc<UserState>) {
        let Some(index) = self.subscriptions.iter().position(|subscription| subscription.no == no) else { return };
        let Some(queue) = &mut self.subscriptions[index].queue else { return };
        let plans = queue.state_changed(state, &self.resumed);
        self.go_on_with_queue(no, plans);
    }

    pub(super) fn retry_queues(&mut self, now: Instant) {
        for subscription in &mut self.subscriptions {
            if let Some(queue) = &mut subscription.queue
                && queue.retry_at.is_some_and(|at| at <= now)
            {
                queue.retry_at = None;
                let known = queue.known(&self.resumed);
                self.outputs.put(Output::WatchUser { subscription: subscription.no, known });
            }
        }
    }

    /// Attaches what is next; the SUBSCRIBE's receipt is due when all of the first state is attached.
    fn go_on_with_queue(&mut self, no: u32, plans: impl IntoIterator<Item = Plan>) {
        let Some(index) = self.subscriptions.iter().position(|subscription| subscription.no == no) else { return };
        let head = self.subscriptions[index].head.clone();
        for Plan { conversation, start, user_seq, membership } in plans {
            // CONVERSATION_CREATED is the join of initial members only.
            let joined_user_seq = membership.filter(|m| m.joined_seq == 1).map(|m| m.joined_user_seq);
            self.outputs.put(Output::Attach {
                subscription: no,
                conversation,
                scope: Scope::UserQueue,
                start,
                head: head.clone(),
                user_seq: Some(user_seq),
                joined_user_seq,
            });
        }
        let subscription = &mut self.subscriptions[index];
        if subscription.queue.as_ref().is_some_and(|queue| queue.is_settled()) {
            let receipt = subscription.receipt.take();
            self.receipt(receipt);
        }
    }
}
