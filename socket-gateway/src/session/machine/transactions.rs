//! BEGIN, COMMIT, ABORT, and what frames of a transaction come to.

use tokio::time::Instant;

use super::Machine;
use crate::{
    disconnect::Disconnect,
    refusal::Refusal,
    session::{
        frames::About,
        transactions::{Committed, Due, Held, Work},
    },
    stomp::Transaction,
};

/// The answer to a frame that names a transaction that was not begun, or is over.
pub(super) fn no_transaction(id: &str) -> Disconnect {
    Disconnect::protocol(format!("there is no transaction {id:?}: BEGIN it first"))
}

impl Machine {
    pub(super) fn begin(&mut self, transaction: Transaction) {
        let Transaction { id, receipt } = transaction;
        if self.transactions.is_open(&id) {
            let message = format!("there is a transaction {id:?} already");
            return self.end(Disconnect::protocol(message).receipt(receipt));
        }
        match self.transactions.begin(id) {
            Ok(()) => self.receipt(receipt),
            Err(refusal) => self.refuse(&refusal, About { receipt, ..About::default() }),
        }
    }

    pub(super) fn abort(&mut self, transaction: Transaction) {
        let Transaction { id, receipt } = transaction;
        if !self.transactions.abort(&id) {
            return self.end(no_transaction(&id).receipt(receipt));
        }
        self.receipt(receipt);
    }

    /// Nothing more is read until all its frames are applied, so that those behind it stay behind it.
    pub(super) fn commit(&mut self, transaction: Transaction) {
        let Transaction { id, receipt } = transaction;
        self.next_no += 1;
        let no = self.next_no;
        match self.transactions.commit(&id, no, receipt.clone()) {
            None => self.end(no_transaction(&id).receipt(receipt)),
            Some(Err(refusal)) => self.refuse(&refusal, About { receipt, ..About::default() }),
            Some(Ok(held)) => {
                self.applying.extend(held.into_iter().map(|held| (no, held)));
                self.end_commit(no);
            }
        }
    }

    /// Keeps a frame for its COMMIT.
    pub(super) fn hold(&mut self, id: &str, work: Work, receipt: Option<String>, size: usize) {
        let held = Held { work, receipt: receipt.clone() };
        if let Err(refusal) = self.transactions.hold(id, held, size) {
            self.transactions.lose(id, &refusal);
            self.refuse(&refusal, About { receipt, ..About::default() });
        }
    }

    /// Applies frames of COMMITs, as many as may be in flight.
    pub(super) fn go_on_applying(&mut self, now: Instant) {
        while self.in_flight < self.settings.sends_in_flight
            && !self.has_ended()
            && let Some((no, Held { work, receipt })) = self.applying.pop_front()
        {
            let due = Due { receipt, commit: Some(no) };
            match work {
                Work::Send(request) => self.apply_send(request, due, now),
                Work::Ack(acknowledged) => self.apply_ack(acknowledged, due),
            }
        }
    }

    /// A frame has done what it asked for.
    pub(super) fn done(&mut self, due: Due) {
        self.receipt(due.receipt);
        self.settled(due.commit, None);
    }

    /// A frame could not be done. Where only an ERROR can tell, it has the receipt id of the COMMIT, if need be.
    pub(super) fn failed(&mut self, due: Due, refusal: &Refusal, conversation: Option<i64>) {
        let Due { mut receipt, commit } = due;
        if receipt.is_none() && self.errors().is_none() {
            receipt = commit.and_then(|no| self.transactions.receipt_of(no));
        }
        self.refuse(refusal, About { receipt, conversation, subscription: None });
        self.settled(commit, Some(refusal));
    }

    fn settled(&mut self, commit: Option<u64>, refused: Option<&Refusal>) {
        if let Some(no) = commit {
            self.transactions.settled(no, refused);
            self.end_commit(no);
        }
    }

    /// Answers a COMMIT of which nothing is left.
    fn end_commit(&mut self, no: u64) {
        match self.transactions.committed(no) {
            None => {}
            Some(Committed { receipt, result: Ok(()) }) => self.receipt(receipt),
            // Each refused frame was told of by itself; who waits for the COMMIT must not wait for ever.
            Some(Committed { receipt: None, .. }) => {}
            Some(Committed { receipt, result: Err(refusal) }) => {
                self.refuse(&refusal, About { receipt, ..About::default() });
            }
        }
    }
}
