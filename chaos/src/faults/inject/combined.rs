//! A process that is killed while a worker's link to Redis is bad: what it takes to see that the worker does nothing too
//! early, and leaves nothing behind.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use super::{Effect, Injector, KEY_PREFIX};
use crate::{
    faults::Role,
    links::Route,
    proxy::{Lost, Mode},
};

/// How long each piece takes on the way between the slow worker and Redis; below its `redis.response_timeout`, there and
/// back.
const SLOW: Duration = Duration::from_millis(400);
/// From a gateway's death until a worker has forgotten it: its lease of 5 s, and the sweep.
const SWEPT_LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

impl Injector<'_> {
    /// What the worker sends vanishes, while it reads on in Kafka; then it is killed, with all that it has in hand.
    pub(super) async fn kill_cut_off(&self, worker: &str, length: Duration) -> Result<Effect> {
        let link = self.links.of(worker, Route::WorkerRedis)?;
        let before = link.done();
        link.set(Mode::HalfOpen(Lost::Requests));
        sleep(length).await;
        let killed = self.end(&[worker.to_owned()]).await;
        link.set(Mode::Pass);
        let bytes = link.done().since(before).bytes;
        let Effect { took_effect, detail } = self.start_again(&killed?).await?;
        Ok(Effect { took_effect: took_effect && bytes > 0, detail: format!("{bytes} bytes lost, then {detail}") })
    }

    /// A gateway is killed, and forgotten by some worker while another still writes for it.
    pub(super) async fn kill_beside_slow_worker(&self, pick: u64) -> Result<Effect> {
        let (gateway, worker) = (self.process(Role::Gateway, pick), self.slow_worker(pick));
        let link = self.links.of(&worker, Route::WorkerRedis)?;
        let before = link.done();
        link.set(Mode::Delay(SLOW));
        let killed = self.end(std::slice::from_ref(&gateway)).await;
        let swept = self.until_swept(&gateway).await;
        // For what was on its way then to arrive: a question and its answer, then the write.
        sleep(SLOW * 3).await;
        link.set(Mode::Pass);
        let bytes = link.done().since(before).bytes;
        let Effect { took_effect, detail } = self.start_again(&killed?).await?;
        let detail = format!("{detail}; forgotten after {:.1} s, {bytes} bytes late", swept?.as_secs_f64());
        Ok(Effect { took_effect: took_effect && bytes > 0, detail })
    }

    pub(super) fn slow_worker(&self, pick: u64) -> String {
        self.process(Role::Worker, pick >> 8)
    }

    /// None of the gateway's incarnations is known any more.
    async fn until_swept(&self, gateway: &str) -> Result<Duration> {
        let began = Instant::now();
        let mut redis = self.redis().await?;
        while began.elapsed() < SWEPT_LIMIT {
            let known = redis::cmd("SMEMBERS").arg(format!("{KEY_PREFIX}gateways")).query_async(&mut redis).await;
            // On a busy machine Redis may be too slow for one look.
            if let Ok(known) = known {
                let known: Vec<String> = known;
                if !known.iter().any(|member| member.split(':').next() == Some(gateway)) {
                    return Ok(began.elapsed());
                }
            }
            sleep(LOOK).await;
        }
        bail!("{gateway} was not forgotten within {SWEPT_LIMIT:?}");
    }
}
