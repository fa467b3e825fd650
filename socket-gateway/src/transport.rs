//! How clients reach the gateway.

pub mod listener;
pub mod websocket;
