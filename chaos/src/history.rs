//! What a run writes down, and what the checker reads: one JSON object a line.
//!
//! Each client has a file of its own and writes to it in the order in which things happened to it, so within a file
//! the order is exact, also where two records have the same time. Across files only times tell an order, and all
//! come from one monotonic clock ([`Clock`]).
//!
//! Two times bound what can't be seen: a message is committed after its first [`ClientRecord::Send`] was written, and
//! before its [`ClientRecord::Acknowledged`]. So a record of something that a client *does* is written before it is
//! done (`Subscribed`, `Send`), and a record of something that *happens* to it after it was read off the socket.

mod client;
mod file;
mod run;

pub use client::{ClientRecord, Cursor, Resume};
pub use file::{Clock, Histories, History, Writer, clients_folder, read, run_file};
pub use run::{Change, Floors, OnPurpose, Outcome, RunRecord};

use serde::{Deserialize, Serialize};

/// A record and when it was written, in µs since the run's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct At<R> {
    pub at: u64,
    #[serde(flatten)]
    pub record: R,
}

/// A short name for content, to compare it without keeping it: FNV-1a of 64 bits, in hexadecimal. Chosen because it
/// takes five lines; nobody forges messages here.
pub fn digest(content: &[u8]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in content {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests;
