//! Does the delivery promise hold while processes are killed, links cut, Redis emptied? Clients write down what they
//! sent and got ([`history`]); a checker that shares no code with the services, nor with the clients, judges that.
//!
//! A run is a folder: `run.ndjson` (faults, conversations, memberships, in the order in which they were seen),
//! `clients/NAME.ndjson` (one client each), and what is made of them.

pub mod bugs;
pub mod checker;
pub mod control;
pub mod faults;
pub mod history;
pub mod links;
pub mod options;
pub mod proxy;
pub mod recovery;
pub mod run;
pub mod stack;
pub mod truth;
pub mod verdict;
pub mod workload;
