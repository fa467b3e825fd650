//! What others know of this gateway: its incarnation and lease, its interest in conversations and users, and its
//! connections.
//!
//! An [`incarnation`] is one life of the gateway in Redis: a stream, a lease, a place in the set of gateways. At any
//! doubt about Redis another one is taken; [`interest`] then announces everything again, [`connections`] registers all
//! connections again, and the hub compares all heads. So Redis carries latency, not truth.

mod connections;
mod incarnation;
mod interest;

use proto::GatewayRef;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

pub use connections::{Connections, ConnectionsTask, Registered};
pub use incarnation::{Doubts, Incarnations};
pub use interest::{Interest, InterestTask, Key};

/// The incarnation that is alive, with its connection; `None` while there is none.
#[derive(Clone, Debug)]
pub struct Live {
    pub gateway: GatewayRef,
    pub redis: MultiplexedConnection,
}

/// Follows the incarnation.
pub type Lives = watch::Receiver<Option<Live>>;
