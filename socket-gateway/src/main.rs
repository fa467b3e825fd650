//! The binary; see the library for what it does.

use std::process::ExitCode;

use socket_gateway::app;

fn main() -> ExitCode {
    let spec = chassis::Spec {
        name: "socket-gateway",
        version: env!("CARGO_PKG_VERSION"),
        about: "Holds client connections: STOMP over WebSocket in, events of the gateway's Redis stream out",
        defaults: include_str!("../config/default.yaml"),
    };
    chassis::run(spec, app::serve)
}
