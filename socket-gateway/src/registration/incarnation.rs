//! The incarnation: taken, held by renewing its lease, and given up at any doubt.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use chassis::{Backoff, Dependency};
use proto::{GatewayRef, Keys};
use redis::{AsyncConnectionConfig, Client, RedisError, Value, aio::MultiplexedConnection, pipe};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Live;
use crate::{
    config::Config,
    inbox::{Inbox, Progress, Reader, StreamId},
    metrics::Metrics,
};

/// Where a doubt about Redis is told; the incarnation is given up. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Doubts(mpsc::Sender<String>);

impl Doubts {
    /// One doubt is enough: more are dropped until it was looked at.
    pub fn tell(&self, why: impl Into<String>) {
        let _ = self.0.try_send(why.into());
    }
}

/// Takes incarnations, one after the other.
pub struct Incarnations {
    config: Config,
    keys: Keys,
    client: Client,
    live: watch::Sender<Option<Live>>,
    doubts: mpsc::Receiver<String>,
    doubt: Doubts,
    inbox: Inbox,
    dependency: Dependency,
    metrics: Arc<Metrics>,
}

impl Incarnations {
    pub fn new(config: &Config, inbox: Inbox, dependency: Dependency, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let client = Client::open(config.redis.url.as_str()).context("redis.url")?;
        let (sender, doubts) = mpsc::channel(1);
        Ok(Self {
            config: config.clone(),
            keys: Keys::new(&config.redis.key_prefix),
            client,
            live: watch::Sender::new(None),
            doubts,
            doubt: Doubts(sender),
            inbox,
            dependency,
            metrics,
        })
    }

    pub fn lives(&self) -> super::Lives {
        self.live.subscribe()
    }

    pub fn doubts(&self) -> Doubts {
        self.doubt.clone()
    }

    /// Runs until `stop`, then takes the gateway out of Redis.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut before: Option<GatewayRef> = None;
        loop {
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = self.take(before.as_ref()) => taken,
            };
            match taken {
                Ok(live) => {
                    backoff.reset();
                    self.dependency.up();
                    self.metrics.incarnations.inc();
                    info!(gateway.incarnation = live.gateway.incarnation, "a new incarnation");
                    let why = self.hold(&live, &stop).await;
                    if stop.is_cancelled() {
                        return self.retire(live).await;
                    }
                    warn!(reason = why, "this incarnation is in doubt: taking another");
                    self.dependency.down(why);
                    self.live.send_replace(None);
                    before = Some(live.gateway);
                }
                Err(failure) => self.dependency.down(format!("{failure:#}")),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// A connection that answers within the settings.
    async fn connect(&self, response_timeout: Duration) -> anyhow::Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.redis.connect_timeout))
            .set_response_timeout(Some(response_timeout));
        self.client.get_multiplexed_async_connection_with_config(&config).await.context("connecting to Redis")
    }

    /// A new incarnation: stream, lease, set of gateways, in this order. Of the one before only the stream is removed: its
    /// lease runs out, and then the workers' sweepers forget those of its connections that are not registered again.
    async fn take(&mut self, before: Option<&GatewayRef>) -> anyhow::Result<Live> {
        let mut redis = self.connect(self.config.redis.response_timeout).await?;
        check_eviction(&mut redis).await;
        let gateway = GatewayRef {
            gateway: self.config.gateway.id.clone(),
            incarnation: uuid::Uuid::now_v7().simple().to_string(),
        };
        // All or nothing: a stream that is in no set would be swept by nobody.
        let mut pipe = pipe();
        pipe.atomic();
        pipe.cmd("XADD").arg(self.keys.stream(&gateway)).arg("*").arg("hello").arg(1).ignore();
        pipe.cmd("SET").arg(self.keys.lease(&gateway)).arg(1).arg("PX").arg(self.lease_ms()).ignore();
        pipe.sadd(self.keys.gateways(), gateway.to_string()).ignore();
        if let Some(before) = before {
            pipe.del(self.keys.stream(before)).ignore();
        }
        pipe.exec_async(&mut redis).await.context("creating the stream and the lease")?;
        while self.doubts.try_recv().is_ok() {}
        Ok(Live { gateway, redis })
    }

    fn lease_ms(&self) -> u64 {
        self.config.registration.lease_ttl.as_millis() as u64
    }

    /// Reads the stream and renews the lease until something is in doubt; says what.
    async fn hold(&mut self, live: &Live, stop: &CancellationToken) -> String {
        let reading = match self.connect(crate::inbox::BLOCK + self.config.redis.response_timeout).await {
            Ok(connection) => connection,
            Err(failure) => return format!("{failure:#}"),
        };
        let (progress, read) = watch::channel(Progress::default());
        let reader = Reader {
            redis: reading,
            stream: self.keys.stream(&live.gateway),
            inbox: self.inbox.clone(),
            count: self.config.registration.read_count,
            trim_interval: self.config.registration.trim_interval,
            progress,
            metrics: Arc::clone(&self.metrics),
        };
        self.live.send_replace(Some(live.clone()));
        let mut renewals = interval(self.config.registration.lease_renewal);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reading = reader.run();
        tokio::pin!(reading);
        let mut redis = live.redis.clone();
        let mut replication_id = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return "the gateway stops".to_owned(),
                failure = &mut reading => return format!("reading the stream: {failure}"),
                Some(why) = self.doubts.recv() => return why,
                _ = renewals.tick() => match self.renew(&mut redis, &live.gateway).await {
                    Ok(renewal) => {
                        let read = *read.borrow();
                        if let Some(why) = renewal.doubt(&mut replication_id, read) {
                            return why;
                        }
                    }
                    Err(failure) => return format!("renewing the lease: {failure}"),
                },
            }
        }
    }

    async fn renew(&self, redis: &mut MultiplexedConnection, gateway: &GatewayRef) -> Result<Renewal, RedisError> {
        let mut pipe = pipe();
        pipe.cmd("SET").arg(self.keys.lease(gateway)).arg(1).arg("XX").arg("PX").arg(self.lease_ms());
        pipe.cmd("XINFO").arg("STREAM").arg(self.keys.stream(gateway));
        pipe.cmd("INFO").arg("replication");
        let (lease, stream, replication): (Option<String>, HashMap<String, Value>, String) =
            pipe.query_async(redis).await?;
        let number = |field: &str| match stream.get(field) {
            Some(Value::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let last = match stream.get("last-generated-id") {
            Some(Value::BulkString(id)) => StreamId::parse(id),
            _ => None,
        };
        let id = replication.lines().find_map(|line| line.strip_prefix("master_replid:"));
        Ok(Renewal {
            lease_held: lease.is_some(),
            added: number("entries-added"),
            left: number("length").unwrap_or(0),
            last: last.unwrap_or_default(),
            replication_id: id.unwrap_or_default().trim().to_owned(),
        })
    }

    /// Nothing is routed here any more, and nobody has to wait for the lease to run out. The sweepers remove the rest,
    /// also the connections that core could not be told of.
    async fn retire(&self, live: Live) {
        let Live { gateway, mut redis } = live;
        let mut pipe = pipe();
        pipe.del(self.keys.lease(&gateway)).ignore();
        pipe.del(self.keys.stream(&gateway)).ignore();
        if let Err(failure) = pipe.exec_async(&mut redis).await {
            warn!(%failure, "the gateway could not be taken out of Redis; its lease will run out");
        }
    }
}

/// What a renewal found.
#[derive(Debug)]
struct Renewal {
    lease_held: bool,
    /// Of the stream: how many entries were ever added and how many there are, and the newest. Those that are missing were
    /// taken out by this gateway, or by a worker that found the stream too long.
    added: Option<u64>,
    left: u64,
    last: StreamId,
    replication_id: String,
}

impl Renewal {
    /// Why this incarnation can't be relied on; `replication_id` is the one seen first, `read` what was read when the answer
    /// was there.
    fn doubt(self, replication_id: &mut Option<String>, read: Progress) -> Option<String> {
        if !self.lease_held {
            return Some("the lease ran out".to_owned());
        }
        let Some(added) = self.added else {
            return Some("Redis does not count what is added to a stream: it must be 7.0 or newer".to_owned());
        };
        // They go from the start, and they are read from the start. What was read since may hide that some went unread,
        // until everything is read.
        let removed = added.saturating_sub(self.left);
        if removed > read.entries || self.last == read.last && added > read.entries {
            return Some("entries were trimmed from the stream before they were read".to_owned());
        }
        let first = replication_id.get_or_insert_with(|| self.replication_id.clone());
        (*first != self.replication_id).then(|| "Redis has another replication id: it failed over".to_owned())
    }
}

/// Redis must not drop keys by itself.
async fn check_eviction(redis: &mut MultiplexedConnection) {
    let policy: Result<Vec<String>, _> =
        redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(redis).await;
    match policy.ok().and_then(|mut pair| pair.pop()) {
        Some(policy) if policy != "noeviction" => {
            error!(redis.maxmemory_policy = policy, "Redis may evict keys: set maxmemory-policy to noeviction");
        }
        // Where CONFIG is not allowed it can't be known.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(no: u64) -> StreamId {
        StreamId { ms: 5, no }
    }

    /// Of a stream whose entries have the numbers from 1 on.
    fn renewal(lease_held: bool, (added, left): (u64, u64), replication: &str) -> Renewal {
        Renewal { lease_held, added: Some(added), left, last: id(added), replication_id: replication.to_owned() }
    }

    #[test]
    fn every_doubt_ends_the_incarnation() {
        let mut first = None;
        let read = |last, entries| Progress { last: id(last), entries };
        assert_eq!(renewal(true, (30, 20), "a").doubt(&mut first, read(10, 10)), None);
        assert_eq!(renewal(true, (30, 21), "a").doubt(&mut first, read(10, 10)), None);
        assert_eq!(renewal(true, (30, 0), "a").doubt(&mut first, read(30, 30)), None);
        assert_eq!(renewal(true, (30, 0), "a").doubt(&mut first, read(31, 31)), None);
        assert!(renewal(false, (0, 0), "a").doubt(&mut first, read(10, 10)).unwrap().contains("lease"));
        assert!(renewal(true, (30, 19), "a").doubt(&mut first, read(10, 10)).unwrap().contains("trimmed"));
        assert!(renewal(true, (0, 0), "b").doubt(&mut first, read(10, 10)).unwrap().contains("replication"));
        let old = Renewal { added: None, ..renewal(true, (0, 0), "a") };
        assert!(old.doubt(&mut first, read(10, 10)).unwrap().contains("7.0"));
    }

    #[test]
    fn that_entries_were_trimmed_unread_shows_at_the_latest_when_all_is_read() {
        let mut first = None;
        // 1 to 15 were trimmed when 10 was the last that was read.
        let behind = Progress { last: id(29), entries: 24 };
        assert_eq!(renewal(true, (30, 15), "a").doubt(&mut first, behind), None);
        let level = Progress { last: id(30), entries: 25 };
        assert!(renewal(true, (30, 15), "a").doubt(&mut first, level).unwrap().contains("trimmed"));
    }
}
