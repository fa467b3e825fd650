//! What tests and tools need to use a running stack from outside: clients of its public interfaces, a record of
//! what was promised and what came, and the tools of the binary `probe`.
//!
//! Nothing here shares code with the services except the names of the wire contract (`proto`): the STOMP client
//! has a codec of its own, so that a fault of one side does not hide behind the same fault of the other.

pub mod bench;
pub mod demo;
pub mod durable;
pub mod endpoints;
pub mod grpc;
pub mod history;
pub mod hops;
pub mod kafka;
pub mod load;
pub mod metrics;
pub mod own_gateway;
pub mod people;
pub mod percentiles;
pub mod probe;
pub mod processes;
pub mod rest;
pub mod stomp;
pub mod table;
pub mod testing;
pub mod tokens;
