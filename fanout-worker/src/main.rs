//! The fanout worker: routes each event from Kafka to the gateways that need it.

fn main() -> std::process::ExitCode {
    chassis::run_command(
        chassis::Spec {
            name: "fanout-worker",
            version: env!("CARGO_PKG_VERSION"),
            about: "Routes each event from Kafka to the Redis streams of the gateways that need it",
            defaults: fanout_worker::config::DEFAULTS,
        },
        fanout_worker::app::serve,
        fanout_worker::app::command,
    )
}
