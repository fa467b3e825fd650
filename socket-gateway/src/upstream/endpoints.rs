//! The cores: connections to them, and the token for their calls.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context as _;
use chassis::service_token::ServiceToken;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use super::breaker::Breakers;
use crate::{config, metrics::Metrics, refusal::Refusal};

/// Connections are made when they are needed, and again after they broke. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endpoints {
    channels: Arc<[Channel]>,
    breakers: Arc<Breakers>,
    token: Arc<ServiceToken>,
    timeout: Duration,
}

impl Endpoints {
    pub fn new(config: &config::Core, token: Arc<ServiceToken>, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let channels = config.endpoints.iter().map(|url| connect(url, config)).collect::<anyhow::Result<Vec<_>>>()?;
        let breakers = Arc::new(Breakers::new(config, metrics));
        Ok(Self { channels: channels.into(), breakers, token, timeout: config.request_timeout })
    }

    pub fn count(&self) -> usize {
        self.channels.len()
    }

    pub fn channel(&self, core: usize) -> Channel {
        self.channels[core].clone()
    }

    pub fn breakers(&self) -> &Arc<Breakers> {
        &self.breakers
    }

    /// The message with the gateway's token.
    pub fn request<T>(&self, message: T) -> Result<Request<T>, Refusal> {
        let bearer = self.token.bearer().and_then(|bearer| bearer.parse().ok());
        let bearer = bearer.ok_or_else(|| Refusal::unavailable("the gateway has no token for core yet"))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }

    /// Calls a core, and the next one if that does not answer in time. Cores whose breakers are open come last.
    pub async fn call<M, A, F, C>(&self, first: usize, message: M, call: C) -> Result<A, Refusal>
    where
        M: Clone,
        F: Future<Output = Result<tonic::Response<A>, Status>>,
        C: Fn(Channel, Request<M>) -> F,
    {
        let count = self.count();
        let mut cores: Vec<usize> = (first..first + count).map(|core| core % count).collect();
        let mut last = Refusal::unavailable("no core was asked");
        for _ in 0..count.min(2) {
            let request = self.request(message.clone())?;
            let core = cores.remove(self.breakers.choose(&cores));
            match self.ask(core, call(self.channel(core), request)).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => last = refusal,
            }
            if !last.code.is_retryable() {
                break;
            }
        }
        Err(last)
    }

    /// Waits for a core's answer, and tells its breaker.
    pub async fn ask<A>(
        &self,
        core: usize,
        call: impl Future<Output = Result<tonic::Response<A>, Status>>,
    ) -> Result<A, Refusal> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => {
                self.breakers.answered(core);
                Ok(answer.into_inner())
            }
            Ok(Err(status)) => {
                tracing::debug!(core, %status, "a call to core failed");
                self.breakers.failed(core, &status);
                Err(status.into())
            }
            Err(_) => {
                self.breakers.timed_out(core);
                Err(Refusal::unavailable("the service behind the gateway did not answer in time"))
            }
        }
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
