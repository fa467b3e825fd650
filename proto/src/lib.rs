//! Everything that crosses a process boundary, in one place and without I/O: the gRPC contract, identifiers,
//! the event envelope, Debezium's record types, the names of topics, headers, Redis keys and stream fields,
//! token claims and error codes. A change of anything here is a change of a wire contract: golden files say so.

pub mod claims;
pub mod code;
pub mod debezium;
pub mod event;
pub mod hops;
pub mod id;
pub mod record;
pub mod redis_keys;
pub mod rpc;
pub mod stream_entry;
pub mod topics;

pub use claims::Claims;
pub use code::Code;
pub use event::{Envelope, EventType};
pub use id::{ConversationId, MessageId, UserId, WorkspaceId};
pub use record::{Record, RecordError, Routing};
pub use redis_keys::{GatewayRef, Keys};
pub use stream_entry::{Scope, StreamEntry, StreamEntryError};
