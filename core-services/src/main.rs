//! core-services: REST and gRPC in front of MySQL.

use std::process::ExitCode;

use core_services::app;

fn main() -> ExitCode {
    let spec = chassis::Spec {
        name: "core-services",
        version: env!("CARGO_PKG_VERSION"),
        about: "REST and gRPC: accounts, conversations, messages, the outbox, connections",
        defaults: include_str!("../config/default.yaml"),
    };
    chassis::run_command(spec, app::serve, app::command)
}
