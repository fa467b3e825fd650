//! gRPC clients of core, and the tokens of services.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::Method;
use proto::rpc::{
    CODE_METADATA,
    v1::{
        auth_service_client::AuthServiceClient, connection_manager_client::ConnectionManagerClient,
        gateway_service_client::GatewayServiceClient, message_service_client::MessageServiceClient,
    },
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{endpoints::Endpoints, rest::Rest};

/// The service whose credentials the stack makes: the gateways'.
const SERVICE_CLIENT: &str = "socket-gateway";

/// Puts a bearer token on every call.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A channel to one core with one identity.
#[derive(Clone, Debug)]
pub struct Grpc {
    channel: Channel,
    bearer: Bearer,
}

type Bound = InterceptedService<Channel, Bearer>;

impl Grpc {
    /// Connects to the core at `url`; no token sends no `authorization`.
    pub async fn connect(url: &str, token: Option<&str>) -> Result<Self> {
        let channel = Channel::from_shared(url.to_owned())?.connect().await.with_context(|| url.to_owned())?;
        let value = token.map(|token| format!("Bearer {token}").parse()).transpose()?;
        Ok(Self { channel, bearer: Bearer(value) })
    }

    pub fn auth(&self) -> AuthServiceClient<Bound> {
        AuthServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn messages(&self) -> MessageServiceClient<Bound> {
        MessageServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn connections(&self) -> ConnectionManagerClient<Bound> {
        ConnectionManagerClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn gateways(&self) -> GatewayServiceClient<Bound> {
        GatewayServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }
}

/// A token of the gateways' service client; `scope` asks for less than all that it may have.
pub async fn service_token(endpoints: &Endpoints, scope: Option<&str>) -> Result<String> {
    let file = endpoints.folder.join(format!("secrets/{SERVICE_CLIENT}.secret"));
    let secret = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut form = format!("grant_type=client_credentials&client_id={SERVICE_CLIENT}&client_secret={}", secret.trim());
    if let Some(scope) = scope {
        form += &format!("&scope={}", scope.replace(':', "%3A").replace(' ', "+"));
    }
    let content_type = Some("application/x-www-form-urlencoded");
    let rest = Rest::new(&endpoints.core);
    let answer = rest.raw(Method::POST, "/oauth2/token", None, content_type, Bytes::from(form)).await?;
    let token = answer.body["access_token"].as_str();
    Ok(token.with_context(|| format!("no token: {} {}", answer.status, answer.body))?.to_owned())
}

/// The stable code in the trailers of a failed call.
pub fn code_of(status: &Status) -> &str {
    status.metadata().get(CODE_METADATA).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
