//! Steps as sentences: a counterexample is read by people.

use std::fmt;

use crate::{
    action::Action,
    redis::{Incarnation, Loss},
};

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gateway {} as incarnation {}", self.gateway + 1, self.no)
    }
}

/// Gateways, cores and clients are counted from 1.
fn no(index: u8) -> u8 {
    index + 1
}

fn topic(topic: u8) -> &'static str {
    if topic == 0 { "of the conversation" } else { "of the user" }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::Send => write!(f, "the sender's client SENDs its next message"),
            Action::RetryLane => write!(f, "the sender's gateway sends what failed again, in order, to the next core"),
            Action::WriteBatch { core } => {
                write!(f, "core {} locks the conversation, looks up retries, takes seqs, inserts rows", no(core))
            }
            Action::ChangeMembership => write!(f, "core locks the conversation and the user, and changes a membership"),
            Action::FlushBinlog => write!(f, "the transaction is in the binlog; no other session sees it yet"),
            Action::ShowCommit => write!(f, "its commit is visible, its lock is free, core knows"),
            Action::InsertOutboxRows { core } => {
                write!(f, "core {} inserts the outbox rows in a transaction of their own", no(core))
            }
            Action::HearAnswer { core } => write!(f, "the sender's gateway hears an answer of core {}", no(core)),
            Action::CrashCore { core } => write!(f, "FAULT: core {} is killed", no(core)),
            Action::BreakStream { core } => write!(f, "FAULT: the stream of messages to core {} breaks", no(core)),
            Action::TimeOutOnLock { core } => write!(f, "FAULT: core {} has waited for the row too long", no(core)),
            Action::CrashMysql => write!(f, "FAULT: MySQL is killed, and recovers"),
            Action::CaptureRecord => write!(f, "the connector brings the next record of the binlog to Kafka"),
            Action::RestartConnector { stored } => {
                write!(f, "FAULT: the connector is started again at its stored position, {stored}")
            }
            Action::TakeBatch { topic: of } => write!(f, "the worker takes a batch from the topic {}", topic(of)),
            Action::ReadInterest { topic: of } => write!(f, "the worker reads who is interested (topic {})", topic(of)),
            Action::AppendEntry { topic: of } => write!(f, "the worker's next XADD is done (topic {})", topic(of)),
            Action::AppendLate { topic: of } => {
                write!(f, "the worker that lost the partition does one more XADD (topic {})", topic(of))
            }
            Action::EndLate { topic: of } => {
                write!(f, "the worker that lost the partition notices (topic {})", topic(of))
            }
            Action::BuryRecord { topic: of } => {
                write!(f, "FAULT: a record can't be decoded, and goes to the dead letters (topic {})", topic(of))
            }
            Action::CrashWorker { topic: of, stored } => {
                write!(
                    f,
                    "FAULT: the worker is killed; another one goes on at the stored offset, {stored} (topic {})",
                    topic(of)
                )
            }
            Action::MovePartition { topic: of, stored } => {
                write!(
                    f,
                    "FAULT: the worker is paused; another one goes on at the stored offset, {stored} (topic {})",
                    topic(of)
                )
            }
            Action::ExpireLease { incarnation } => write!(f, "the lease of {incarnation} runs out"),
            Action::SweepGateway { incarnation } => write!(f, "a sweeper forgets {incarnation}"),
            Action::FlushRedis => write!(f, "FAULT: Redis is emptied"),
            Action::RestartRedis { loss: Loss::Entries } => {
                write!(f, "FAULT: Redis is killed; started again, it lacks the last entry of each stream")
            }
            Action::RestartRedis { loss: Loss::Interest } => {
                write!(f, "FAULT: Redis is killed; started again, it lacks the interest sets")
            }
            Action::DisconnectRedis { gateway } => {
                write!(f, "FAULT: gateway {} loses its connection to Redis", no(gateway))
            }
            Action::LoseLease { gateway } => {
                write!(f, "FAULT: gateway {} is paused for so long that its lease runs out", no(gateway))
            }
            Action::DoubtIncarnation { gateway } => {
                write!(f, "gateway {} finds its incarnation in doubt, and gives it up", no(gateway))
            }
            Action::TakeIncarnation { gateway } => {
                write!(f, "gateway {} takes a new incarnation: stream, lease, set of gateways", no(gateway))
            }
            Action::AnnounceHeld { gateway } => {
                write!(f, "gateway {} announces all of its interest to its new incarnation", no(gateway))
            }
            Action::ChangeInterest { gateway } => {
                write!(f, "gateway {} makes the next change of interest in Redis", no(gateway))
            }
            Action::CompareAll { gateway } => write!(f, "gateway {} asks for the heads of all it serves", no(gateway)),
            Action::CompareRound { gateway } => {
                write!(f, "gateway {} announces again and asks for heads, as it does periodically", no(gateway))
            }
            Action::ReadStream { gateway } => write!(f, "gateway {} reads its stream", no(gateway)),
            Action::TakeArrival { gateway } => {
                write!(f, "the shard of gateway {} takes the next entry that was read", no(gateway))
            }
            Action::ReadAccess { gateway, client } => {
                write!(f, "core reads head and membership for client {} at gateway {}", no(client), no(gateway))
            }
            Action::AttachSubscription { gateway, client } => {
                write!(
                    f,
                    "gateway {} has the answer, and lets the subscription of client {} begin",
                    no(gateway),
                    no(client)
                )
            }
            Action::ReadHead { gateway, .. } => write!(f, "core reads the head for gateway {}", no(gateway)),
            Action::CompareHead { gateway, .. } => {
                write!(f, "gateway {} compares the head with where it stands", no(gateway))
            }
            Action::ReadLog { gateway, .. } => {
                write!(f, "core reads a page of the event log for gateway {}", no(gateway))
            }
            Action::DeliverLog { gateway, .. } => {
                write!(f, "gateway {} has the page, and delivers from it", no(gateway))
            }
            Action::ReadUserSeq { gateway } => write!(f, "core reads the user_seq for gateway {}", no(gateway)),
            Action::ReadMemberships { gateway } => {
                write!(f, "core reads the memberships after it; gateway {} has the user's state", no(gateway))
            }
            Action::ReleaseInterest { gateway } => {
                write!(f, "gateway {} forgets the conversation, which nobody follows any more", no(gateway))
            }
            Action::CrashGateway { gateway } => write!(f, "FAULT: gateway {} is killed", no(gateway)),
            Action::StartGateway { gateway } => write!(f, "gateway {} is started again", no(gateway)),
            Action::Connect { client, gateway } => {
                write!(f, "client {} connects to gateway {}", no(client), no(gateway))
            }
            Action::Subscribe { client } => {
                write!(f, "client {} subscribes, behind the last seq that it has, if it has one", no(client))
            }
            Action::ReceiveFrame { client } => write!(f, "client {} handles the next frame", no(client)),
            Action::Unsubscribe { client } => write!(f, "client {} unsubscribes", no(client)),
            Action::DropConnection { client } => write!(f, "FAULT: client {} loses its connection", no(client)),
        }
    }
}
