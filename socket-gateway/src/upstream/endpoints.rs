//! The cores: connections to them, and the token for their calls.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context as _;
use chassis::service_token::ServiceToken;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use crate::{config, refusal::Refusal};

/// Connections are made when they are needed, and again after they broke. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endpoints {
    channels: Arc<[Channel]>,
    token: Arc<ServiceToken>,
    timeout: Duration,
}

impl Endpoints {
    pub fn new(config: &config::Core, token: Arc<ServiceToken>) -> anyhow::Result<Self> {
        let channels = config.endpoints.iter().map(|url| connect(url, config)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { channels: channels.into(), token, timeout: config.request_timeout })
    }

    pub fn count(&self) -> usize {
        self.channels.len()
    }

    pub fn channel(&self, core: usize) -> Channel {
        self.channels[core % self.channels.len()].clone()
    }

    /// The message with the gateway's token.
    pub fn request<T>(&self, message: T) -> Result<Request<T>, Refusal> {
        let bearer = self.token.bearer().and_then(|bearer| bearer.parse().ok());
        let bearer = bearer.ok_or_else(|| Refusal::unavailable("the gateway has no token for core yet"))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }

    /// Calls a core, and the next one if that does not answer in time.
    pub async fn call<M, A, F, C>(&self, first: usize, message: M, call: C) -> Result<A, Refusal>
    where
        M: Clone,
        F: Future<Output = Result<tonic::Response<A>, Status>>,
        C: Fn(Channel, Request<M>) -> F,
    {
        let tries = self.channels.len().min(2);
        let mut last = Refusal::unavailable("no core was asked");
        for core in first..first + tries {
            let request = self.request(message.clone())?;
            match tokio::time::timeout(self.timeout, call(self.channel(core), request)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => {
                    tracing::debug!(core, %status, "a call to core failed");
                    last = Refusal::from(status);
                }
                Err(_) => last = Refusal::unavailable("the service behind the gateway did not answer in time"),
            }
            if !last.code.is_retryable() {
                break;
            }
        }
        Err(last)
    }
}

fn connect(url: &str, config: &config::Core) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("core.endpoints: {url:?}"))?;
    Ok(endpoint
        .connect_timeout(config.connect_timeout)
        .http2_keep_alive_interval(config.keep_alive_interval)
        .keep_alive_timeout(config.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect_lazy())
}
