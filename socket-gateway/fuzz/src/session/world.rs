//! What a session has asked of the rest of the gateway, and the answers that it may get.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chassis::jwt::TokenError;
use proto::{Code, rpc::v1::CreateMessageResponse};
use socket_gateway::{
    hub::{Membership, UserState},
    refusal::Refusal,
    session::{Event, Input, Output, Verified},
};

/// Of attaching reads: they show every membership that a state may tell of, because nothing here ends for another.
const HEAD: i64 = i64::MAX;

/// Something that will be answered.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    Verify,
    Attach {
        subscription: u32,
        conversation: i64,
    },
    /// Attached: messages may come, or the end.
    Follow {
        subscription: u32,
        conversation: i64,
    },
    Detach {
        subscription: u32,
    },
    Send {
        conversation: i64,
        no: u64,
    },
    Done {
        no: u64,
    },
}

impl Request {
    /// Nothing waits for it.
    pub fn is_follow(&self) -> bool {
        matches!(self, Request::Follow { .. })
    }
}

#[derive(Debug, Default)]
pub struct World {
    pub requests: Vec<Request>,
    /// Subscriptions that follow the user, and whether they were told the state since they have asked.
    pub watching: BTreeMap<u32, bool>,
    user_seq: i64,
}

impl World {
    /// Takes note of what is to be done. Detaching is answered at once, with how many answers will come.
    pub fn asked(&mut self, output: &Output) -> Option<Input> {
        match *output {
            Output::Verify { .. } => self.requests.push(Request::Verify),
            Output::Attach { subscription, conversation, .. } => {
                self.requests.push(Request::Attach { subscription, conversation });
            }
            Output::Detach { subscription, ref conversations } => {
                let answers = conversations.len().min(2);
                self.requests.extend((0..answers).map(|_| Request::Detach { subscription }));
                return Some(Input::Detaching { subscription, answers });
            }
            Output::WatchUser { subscription, .. } => drop(self.watching.insert(subscription, false)),
            Output::UnwatchUser { subscription } => drop(self.watching.remove(&subscription)),
            Output::Submit { conversation, ref submission } => {
                self.requests.push(Request::Send { conversation, no: submission.no });
            }
            Output::Typing { no, .. } | Output::Position { no, .. } => self.requests.push(Request::Done { no }),
            Output::Write(_) | Output::Opened { .. } | Output::Disconnect(_) => {}
        }
        None
    }

    /// The answer to one request; `how` 0 is the best.
    pub fn answer(&mut self, which: usize, how: usize) -> Option<Input> {
        if self.requests.is_empty() {
            return None;
        }
        let request = self.requests.swap_remove(which % self.requests.len());
        Some(match request {
            Request::Verify => Input::Verified(verified(how)),
            Request::Attach { subscription, conversation } => Input::Event(match how % 4 {
                0 => {
                    self.requests.push(Request::Follow { subscription, conversation });
                    Event::Attached { subscription, conversation, head: HEAD }
                }
                1 => Event::Refused { subscription, conversation, refusal: refusal(3) },
                2 => Event::Refused { subscription, conversation, refusal: refusal(1) },
                _ => Event::Ended { subscription, conversation, at_seq: 2, removed: false },
            }),
            Request::Follow { subscription, conversation } => Input::Event(match how {
                0 | 1 => Event::Ended { subscription, conversation, at_seq: 4, removed: how == 0 },
                _ => {
                    self.requests.push(request);
                    Event::Delivered { subscription, conversation, seq: how as i64 }
                }
            }),
            Request::Detach { subscription } => Input::Event(Event::Detached { subscription }),
            Request::Send { conversation, no } => {
                let created = CreateMessageResponse { conversation_id: conversation, ..Default::default() };
                let result = if how == 0 { Ok(created) } else { Err(refusal(how)) };
                Input::Event(Event::Sent { conversation, no, result })
            }
            Request::Done { no } => {
                let result = if how == 0 { Ok(()) } else { Err(refusal(how)) };
                Input::Event(Event::Done { no, result })
            }
        })
    }

    /// A state of `members`, each a conversation and the seq of the join, for one that watches.
    pub fn user_state(&mut self, which: usize, mut members: Vec<(i64, i64)>) -> Option<Input> {
        let at = which.checked_rem(self.watching.len())?;
        let (subscription, told) = self.watching.iter_mut().nth(at)?;
        *told = true;
        members.sort_unstable();
        members.dedup_by_key(|member| member.0);
        let members = members.into_iter().filter(|member| member.0 > 0);
        let memberships: Vec<Membership> = members
            .map(|(conversation, joined_seq)| {
                self.user_seq += 1;
                Membership { conversation, joined_seq: joined_seq.max(1), joined_user_seq: self.user_seq }
            })
            .collect();
        let state = Arc::new(UserState { user_seq: self.user_seq, memberships, ended: Vec::new() });
        Some(Input::Event(Event::UserState { subscription: *subscription, state }))
    }
}

fn verified(how: usize) -> Result<Verified, TokenError> {
    let good =
        Verified { user: 5, expires_in: Duration::from_secs(3600), may_read: true, may_write: true, admitted: true };
    match how {
        1 => Err(TokenError::Expired),
        2 => Ok(Verified { admitted: false, ..good }),
        3 => Ok(Verified { may_read: false, ..good }),
        4 => Ok(Verified { may_write: false, ..good }),
        5 => Ok(Verified { expires_in: Duration::ZERO, ..good }),
        6 => Ok(Verified { user: 6, ..good }),
        7 => Err(TokenError::Malformed("it is none")),
        _ => Ok(good),
    }
}

/// One that may pass, without a hint when to try again or with one; or one that stays.
pub fn refusal(how: usize) -> Refusal {
    match how {
        1 => Refusal::unavailable("away"),
        2 => Refusal::unavailable("away for long").retry_after_ms(5_000),
        3 => Refusal::new(Code::NotAMember, "not yours"),
        _ => Refusal::new(Code::Forbidden, "no\nnever: \\"),
    }
}

/// An event that nobody has asked for.
pub fn unasked(what: usize, subscription: usize, conversation: usize) -> Input {
    let (no, subscription, conversation) = (subscription as u64, subscription as u32, conversation as i64);
    Input::Event(match what % 13 {
        0 => Event::Attached { subscription, conversation, head: 1 },
        1 => Event::Refused { subscription, conversation, refusal: refusal(1) },
        2 => Event::Ended { subscription, conversation, at_seq: 2, removed: true },
        3 => Event::Ended { subscription, conversation, at_seq: 0, removed: false },
        4 => Event::Detached { subscription },
        5 => Event::Sent { conversation, no, result: Ok(CreateMessageResponse::default()) },
        6 => Event::Sent { conversation, no, result: Err(refusal(1)) },
        7 => Event::Done { no, result: Err(refusal(3)) },
        8 => Event::UserRefused { subscription, refusal: refusal(1) },
        9 => return Input::Detaching { subscription, answers: no as usize },
        10 => return Input::Verified(verified(conversation as usize)),
        11 => Event::Delivered { subscription, conversation, seq: 3 },
        _ => Event::Done { no, result: Ok(()) },
    })
}
