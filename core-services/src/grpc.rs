//! The gRPC services of `chat.v1`: authentication first, then the call.

pub mod auth;
pub mod connections;
pub mod gateway;
pub mod messages;
mod stream;
pub mod transport;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use proto::rpc::{DESCRIPTORS, v1};
use tonic::{Request, metadata::MetadataMap, service::Routes};
use tonic_health::server::HealthReporter;

use crate::{app::App, auth::tokens::Caller, error::Result};

/// All services, with reflection (v1 and v1alpha) and health.
pub fn routes(app: &Arc<App>) -> anyhow::Result<(Routes, HealthReporter)> {
    use v1::{
        auth_service_server::AuthServiceServer, connection_manager_server::ConnectionManagerServer,
        gateway_service_server::GatewayServiceServer, message_service_server::MessageServiceServer,
    };
    let limit = app.config.server.max_body;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::builder();
    routes
        .add_service(AuthServiceServer::new(auth::Auth(Arc::clone(app))).max_decoding_message_size(limit))
        .add_service(MessageServiceServer::new(messages::Messages(Arc::clone(app))).max_decoding_message_size(limit))
        .add_service(
            ConnectionManagerServer::new(connections::Connections(Arc::clone(app))).max_decoding_message_size(limit),
        )
        .add_service(GatewayServiceServer::new(gateway::Gateway(Arc::clone(app))).max_decoding_message_size(limit))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((routes.routes(), reporter))
}

/// Who calls; refused before anything else is looked at.
async fn caller<T>(app: &App, request: &Request<T>) -> Result<Caller> {
    app.tokens.check_bearer(header(request.metadata(), "authorization")).await
}

fn header<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).and_then(|value| value.to_str().ok())
}

/// A time as protobuf has it.
pub fn timestamp(at: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos().try_into().unwrap_or_default() }
}

fn timestamp_ms(ms: i64) -> Timestamp {
    timestamp(DateTime::from_timestamp_millis(ms).unwrap_or_default())
}
