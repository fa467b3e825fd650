//! Round trip 2 of a batch: the entries into the gateways' streams.

use chassis::seeded::{self, Bug};
use proto::{Keys, StreamEntry};
use redis::{Cmd, Pipeline, RedisResult, Value};
use tracing::{debug, error, warn};

use crate::{
    metrics::Metrics,
    redis_link::{RedisLink, is_wrong_type},
    route::{self, Outcome, Write},
};

/// Appends to streams.
#[derive(Clone, Debug)]
pub struct Publisher {
    pub link: RedisLink,
    pub keys: Keys,
    pub metrics: Metrics,
    /// Entries kept in a stream, approximately.
    pub stream_max_len: usize,
    /// Bytes of commands sent at once; one entry may be larger.
    pub pipeline_bytes: usize,
}

impl Publisher {
    /// Appends `writes` in their order and forgets the interest of incarnations that are gone.
    ///
    /// `Err`: some of them may not have been appended; the caller tries all of them again.
    pub async fn publish(&self, writes: &[Write<'_>]) -> RedisResult<()> {
        let mut outcomes = Vec::with_capacity(writes.len());
        let mut pipeline = Pipeline::new();
        let mut bytes = 0;
        for write in writes {
            let size = approximate_size(write.entry);
            if bytes + size > self.pipeline_bytes && !pipeline.is_empty() {
                self.send(std::mem::take(&mut pipeline), &mut outcomes).await?;
                bytes = 0;
            }
            pipeline.add_command(self.append(write));
            bytes += size;
        }
        self.send(pipeline, &mut outcomes).await?;
        self.forget_gone(writes, &outcomes).await;
        Ok(())
    }

    fn append(&self, write: &Write<'_>) -> Cmd {
        let mut command = redis::cmd("XADD");
        command.arg(self.keys.stream(write.gateway));
        if !seeded::on(Bug::XaddMakesStreams) {
            command.arg("NOMKSTREAM");
        }
        command.arg("MAXLEN").arg("~").arg(self.stream_max_len).arg("*");
        write.entry.encode(|name, value| {
            command.arg(name).arg(value);
        });
        command
    }

    async fn send(&self, pipeline: Pipeline, outcomes: &mut Vec<Outcome>) -> RedisResult<()> {
        for answer in self.link.run(pipeline).await? {
            outcomes.push(match answer {
                Ok(Value::Nil) => Outcome::Gone,
                Ok(_) => {
                    self.metrics.appended.inc();
                    Outcome::Appended
                }
                // Trying again would hold the partition for as long as that key lives.
                Err(error) if is_wrong_type(&error) => {
                    self.metrics.refused_keys.inc();
                    error!(%error, "the key of a gateway's stream is no stream; delete it");
                    Outcome::Gone
                }
                Err(error) => return Err(error),
            });
        }
        Ok(())
    }

    /// Only housekeeping: what fails here is found gone again by the next entry for that key.
    async fn forget_gone(&self, writes: &[Write<'_>], outcomes: &[Outcome]) {
        let gone = route::gone(writes, outcomes);
        if gone.is_empty() {
            return;
        }
        let mut pipeline = Pipeline::with_capacity(gone.len());
        for (interest, gateway) in &gone {
            debug!(?interest, %gateway, "the gateway is gone; its interest is removed");
            pipeline.cmd("SREM").arg(interest.key(&self.keys)).arg(gateway.to_string());
        }
        self.metrics.gone.inc_by(gone.len() as u64);
        if let Err(error) = self.link.run(pipeline).await {
            warn!(%error, "the interest of a gateway that is gone could not be removed");
        }
    }
}

/// Payload, the fields around it, and the command.
fn approximate_size(entry: &StreamEntry) -> usize {
    const COMMAND_AND_FIELDS: usize = 512;
    entry.payload.len() + COMMAND_AND_FIELDS
}
