//! What a session holds back until a COMMIT, and what its COMMITs wait for.
//!
//! Pure. Frames of a transaction are checked as they come and kept, bounded in number and bytes over all transactions
//! of the session. A COMMIT hands them out one by one; it is over when each was answered. A transaction of which a frame
//! was refused before its COMMIT is *lost*: nothing of it is applied.

use std::collections::HashMap;

use proto::Code;

use super::acks::Message;
use super::machine::Request;
use crate::refusal::Refusal;

/// Who waits for the end of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub receipt: Option<String>,
    /// The number of the COMMIT that has applied it.
    pub commit: Option<u64>,
}

impl From<Option<String>> for Due {
    fn from(receipt: Option<String>) -> Self {
        Self { receipt, commit: None }
    }
}

/// An ACK or NACK that was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The number of the subscription; none where a 1.0 client did not say.
    pub subscription: Option<u32>,
    /// None: of something that has no place in a conversation.
    pub message: Option<Message>,
    pub positive: bool,
}

/// What a frame of a transaction does when it is applied.
#[derive(Debug)]
pub enum Work {
    Send(Request),
    Ack(Acknowledged),
}

/// A frame of a transaction.
#[derive(Debug)]
pub struct Held {
    pub work: Work,
    pub receipt: Option<String>,
}

/// What a session may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub transactions: usize,
    pub frames: usize,
    pub bytes: usize,
}

#[derive(Debug)]
struct Open {
    id: String,
    held: Vec<Held>,
    bytes: usize,
    /// Why it is lost.
    refused: Option<Refusal>,
}

/// The transactions of a session that were begun and not ended.
#[derive(Debug)]
pub struct Transactions {
    limits: Limits,
    open: Vec<Open>,
    commits: HashMap<u64, Commit>,
}

/// A COMMIT whose frames are not all answered.
#[derive(Debug)]
struct Commit {
    receipt: Option<String>,
    frames: usize,
    left: usize,
    refused: usize,
    /// The first refusal.
    why: Option<Refusal>,
}

/// How a COMMIT has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Committed {
    pub receipt: Option<String>,
    pub result: Result<(), Refusal>,
}

impl Transactions {
    pub fn new(limits: Limits) -> Self {
        Self { limits, open: Vec::new(), commits: HashMap::new() }
    }

    pub fn is_open(&self, id: &str) -> bool {
        self.open.iter().any(|open| open.id == id)
    }

    /// COMMITs that wait for answers.
    pub fn is_committing(&self) -> bool {
        !self.commits.is_empty()
    }

    pub fn begin(&mut self, id: String) -> Result<(), Refusal> {
        let max = self.limits.transactions;
        if self.open.len() >= max {
            let message = format!("a session may have {max} transactions open");
            return Err(Refusal::new(Code::TooManyTransactions, message));
        }
        let bytes = id.len();
        self.open.push(Open { id, held: Vec::new(), bytes, refused: None });
        Ok(())
    }

    /// Keeps a frame that costs so many bytes. Of a transaction that is lost nothing is kept.
    pub fn hold(&mut self, id: &str, held: Held, bytes: usize) -> Result<(), Refusal> {
        let Limits { frames, bytes: max, .. } = self.limits;
        let (held_frames, held_bytes) =
            self.open.iter().fold((0, 0), |sum, open| (sum.0 + open.held.len(), sum.1 + open.bytes));
        let Some(open) = self.open.iter_mut().find(|open| open.id == id && open.refused.is_none()) else {
            return Ok(());
        };
        let too_much = if held_frames >= frames {
            Some(format!("a session may hold {frames} frames in transactions"))
        } else if held_bytes + bytes > max {
            Some(format!("a session may hold {max} bytes in transactions; this frame would make it more"))
        } else {
            None
        };
        if let Some(message) = too_much {
            return Err(Refusal::new(Code::TooManyTransactions, message));
        }
        open.held.push(held);
        open.bytes += bytes;
        Ok(())
    }

    /// One of its frames was refused: nothing of it will be applied.
    pub fn lose(&mut self, id: &str, refusal: &Refusal) {
        if let Some(open) = self.open.iter_mut().find(|open| open.id == id) {
            (open.held, open.bytes) = (Vec::new(), open.id.len());
            open.refused.get_or_insert_with(|| refusal.clone());
        }
    }

    /// Ends a transaction and forgets what it holds; false if there is none.
    pub fn abort(&mut self, id: &str) -> bool {
        let before = self.open.len();
        self.open.retain(|open| open.id != id);
        self.open.len() < before
    }

    /// Ends a transaction: its frames, in order, are to be applied for the COMMIT `no`, which is over when
    /// [`Self::settled`] was called for each. `None`: there is no such transaction.
    pub fn commit(&mut self, id: &str, no: u64, receipt: Option<String>) -> Option<Result<Vec<Held>, Refusal>> {
        let index = self.open.iter().position(|open| open.id == id)?;
        let Open { held, refused, .. } = self.open.remove(index);
        if let Some(refusal) = refused {
            let message = format!("nothing of the transaction {id:?} was applied: {}", refusal.message);
            return Some(Err(Refusal { message: message.into(), ..refusal }));
        }
        let frames = held.len();
        self.commits.insert(no, Commit { receipt, frames, left: frames, refused: 0, why: None });
        Some(Ok(held))
    }

    /// The receipt that a COMMIT asked for.
    pub fn receipt_of(&self, no: u64) -> Option<String> {
        self.commits.get(&no)?.receipt.clone()
    }

    /// A frame of the COMMIT was answered.
    pub fn settled(&mut self, no: u64, refused: Option<&Refusal>) {
        if let Some(commit) = self.commits.get_mut(&no) {
            commit.left -= 1;
            commit.refused += usize::from(refused.is_some());
            commit.why = commit.why.take().or_else(|| refused.cloned());
        }
    }

    /// How the COMMIT has ended, if it has.
    pub fn committed(&mut self, no: u64) -> Option<Committed> {
        if self.commits.get(&no)?.left > 0 {
            return None;
        }
        let Commit { receipt, frames, refused, why, .. } = self.commits.remove(&no)?;
        let result = why.map_or(Ok(()), |why| {
            let message =
                format!("{refused} of {frames} frames of the transaction were refused, the first: {}", why.message);
            Err(Refusal { message: message.into(), ..why })
        });
        Some(Committed { receipt, result })
    }
}

#[cfg(test)]
mod tests;
