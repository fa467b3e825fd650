//! RFC 6455 and RFC 7692 byte by byte against a real gateway, and what stands in the way of a connection.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod client;
#[path = "../sockjs/gateway.rs"]
#[allow(dead_code, reason = "the tests of SockJS use the rest")]
mod gateway;
#[path = "../sockjs/http.rs"]
#[allow(dead_code, reason = "the tests of SockJS use the rest")]
mod http;
mod limits;
mod protocol;

/// STOMP that is refused: the answer is ERROR with its receipt id, then close 4400.
const REFUSED: &[u8] = b"SEND\nreceipt:r-1\n\n\0";
