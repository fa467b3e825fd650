//! socket-gateway: holds client connections.

pub mod stomp;
