//! What librdkafka has to say, in our log. That no broker is there is told once by readiness; librdkafka tells it each
//! second, for each connection.

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tracing::{debug, warn};

/// The context of a client that needs no callbacks but these.
#[derive(Clone, Copy, Debug, Default)]
pub struct KafkaLog;

impl ClientContext for KafkaLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, failure: KafkaError, reason: &str) {
        error(&failure, reason);
    }
}

impl ConsumerContext for KafkaLog {}

/// A line of librdkafka's own log. Its errors come to [`error`] too.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Warning => warn!(facility, "librdkafka: {message}"),
        _ => debug!(facility, "librdkafka: {message}"),
    }
}

/// An error of a client that it goes on from by itself.
pub fn error(failure: &KafkaError, reason: &str) {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, PartitionEOF, Resolve};
    match failure.rdkafka_error_code() {
        // The end of a partition comes as an error to those who asked to be told.
        Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | PartitionEOF | Resolve) => {
            debug!("Kafka: {reason}");
        }
        _ => warn!(%failure, "Kafka: {reason}"),
    }
}
