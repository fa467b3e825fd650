//! One assigned partition: the bounded queue that the poll thread fills, and the executor that empties it.
//!
//! The executor takes what waits as one batch, writes its dead letters, then reads the interests and appends to the
//! streams, again and again until Redis has taken everything; only then does the watermark move. It ends when the
//! queue is closed and empty (drained) or when it is cancelled (deadline over, partition lost), and cancelling it at
//! any point is safe: what was not acknowledged is read again by the next owner.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
};

use chassis::{
    Backoff,
    seeded::{self, Bug},
};
use proto::{Scope, StreamEntry};
use redis::RedisResult;
use tokio::sync::mpsc::{self, error::TrySendError};
use tracing::warn;

use crate::{
    audience, config,
    dead_letter::DeadLetters,
    metrics::{Metrics, TopicLabel},
    polled::Polled,
    publish::Publisher,
    route,
    watermark::Watermark,
};

/// A topic and a partition of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// Where a partition stands; shared by the poll thread, the executor and the admin listener.
#[derive(Debug, Default)]
pub struct Progress {
    pub watermark: Watermark,
    /// Bytes of the records in the queue and in the batch at work.
    pub queued_bytes: AtomicUsize,
    /// Records in the queue and in the batch at work.
    pub queued_records: AtomicUsize,
    pub paused: AtomicBool,
    /// The partition's head on the broker, as last heard; 0 before.
    pub head: AtomicI64,
}

impl Progress {
    /// Records between the watermark and the head; 0 before the first acknowledgement.
    pub fn lag(&self) -> i64 {
        let head = self.head.load(Ordering::Relaxed);
        self.watermark.next().map_or(0, |next| head.saturating_sub(next).max(0))
    }

    fn add(&self, record: &Polled) {
        self.queued_bytes.fetch_add(record.size(), Ordering::Relaxed);
        self.queued_records.fetch_add(1, Ordering::Relaxed);
    }

    fn subtract(&self, records: &[Polled]) {
        self.queued_bytes.fetch_sub(records.iter().map(Polled::size).sum(), Ordering::Relaxed);
        self.queued_records.fetch_sub(records.len(), Ordering::Relaxed);
    }
}

/// The poll thread's end of a queue: bounded in records and in bytes. Full: the record comes back, and the partition
/// has to be paused.
#[derive(Debug)]
pub struct Queue {
    sender: mpsc::Sender<Polled>,
    limits: config::Partition,
    progress: Arc<Progress>,
}

/// The queue of a partition: both ends.
pub fn queue(limits: &config::Partition, progress: &Arc<Progress>) -> (Queue, mpsc::Receiver<Polled>) {
    let (sender, receiver) = mpsc::channel(limits.queue_records);
    (Queue { sender, limits: limits.clone(), progress: Arc::clone(progress) }, receiver)
}

impl Queue {
    /// Takes the record, or gives it back when the queue is full. A record larger than the whole queue is taken by an
    /// empty one.
    pub fn push(&self, record: Polled) -> Result<(), Box<Polled>> {
        let queued = self.progress.queued_bytes.load(Ordering::Relaxed);
        if queued > 0 && queued + record.size() > self.limits.queue_bytes {
            return Err(Box::new(record));
        }
        // Counted first: the executor may be done with it before this thread goes on.
        self.progress.add(&record);
        self.sender.try_send(record).map_err(|error| {
            let (TrySendError::Full(record) | TrySendError::Closed(record)) = error;
            self.progress.subtract(std::slice::from_ref(&record));
            Box::new(record)
        })
    }

    /// Whether so much was drained that reading on is worth a new fetch.
    pub fn is_half_empty(&self) -> bool {
        self.progress.queued_bytes.load(Ordering::Relaxed) <= self.limits.queue_bytes / 2
            && self.sender.capacity() >= self.limits.queue_records.div_ceil(2)
    }
}

/// What every executor has in common. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    pub batch: config::Batch,
    pub backoff: Backoff,
    pub publisher: Publisher,
    pub dead_letters: DeadLetters,
    pub metrics: Metrics,
}

impl Executor {
    /// Works until the queue is closed and empty.
    pub async fn run(
        self,
        id: PartitionId,
        scope: Scope,
        mut records: mpsc::Receiver<Polled>,
        progress: Arc<Progress>,
    ) {
        while let Some(batch) = take(&mut records, &self.batch).await {
            if let Some(last) = batch.last().filter(|_| seeded::on(Bug::OffsetBeforeXadd)) {
                progress.watermark.acknowledge_through(last.offset);
            }
            let entries = self.decode(&id, scope, &batch).await;
            self.deliver(&id, scope, entries).await;
            if let Some(last) = batch.last() {
                progress.watermark.acknowledge_through(last.offset);
            }
            progress.subtract(&batch);
            self.metrics.batches.inc();
            self.metrics.batch_records.observe(batch.len() as f64);
            self.metrics.records.get_or_create(&TopicLabel { topic: id.topic.to_string() }).inc_by(batch.len() as u64);
        }
    }

    /// What can be routed, in order; the rest is a dead letter when this returns.
    async fn decode(&self, id: &PartitionId, scope: Scope, batch: &[Polled]) -> Vec<StreamEntry> {
        let mut entries = Vec::with_capacity(batch.len());
        for record in batch {
            match record.decode(scope, self.batch.max_record_bytes) {
                Ok(entry) => entries.push(entry),
                Err(poison) => self.dead_letters.bury(&id.topic, id.partition, record, &poison).await,
            }
        }
        entries
    }

    /// Returns once every entry is in every stream that it belongs to, or is ephemeral and too old to matter.
    async fn deliver(&self, id: &PartitionId, scope: Scope, mut entries: Vec<StreamEntry>) {
        let mut backoff = self.backoff.clone();
        while let Err(error) = self.try_deliver(scope, &mut entries).await {
            // The link says when Redis is away; this tells which partitions it holds up.
            warn!(kafka.topic = %id.topic, kafka.partition = id.partition, batch.records = entries.len(), %error,
                  "Redis did not take a batch; it is tried again");
            self.metrics.batch_retries.inc();
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn try_deliver(&self, scope: Scope, entries: &mut Vec<StreamEntry>) -> RedisResult<()> {
        let Publisher { link, keys, .. } = &self.publisher;
        let audience = audience::read(link, keys, &self.metrics, &route::interests(entries)).await?;
        if scope == Scope::Ephemeral {
            // Not before: the read may have waited long for Redis.
            self.drop_stale(entries);
        }
        self.publisher.publish(&route::plan(entries, &audience)).await
    }

    fn drop_stale(&self, entries: &mut Vec<StreamEntry>) {
        let oldest_ms = (chassis::now_us() - self.batch.ephemeral_max_age.as_micros() as i64) / 1000;
        let before = entries.len();
        entries.retain(|entry| entry.kafka_ms >= oldest_ms);
        self.metrics.stale_ephemeral.inc_by((before - entries.len()) as u64);
    }
}

/// Takes what waits, up to the limits of a batch (the last record may exceed the bytes); waits only for the first.
/// `None`: the queue is closed and empty.
async fn take(records: &mut mpsc::Receiver<Polled>, limits: &config::Batch) -> Option<Vec<Polled>> {
    let first = records.recv().await?;
    let mut bytes = first.size();
    let mut batch = vec![first];
    while batch.len() < limits.records && bytes < limits.bytes {
        let Ok(record) = records.try_recv() else { break };
        bytes += record.size();
        batch.push(record);
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn record(offset: i64, bytes: usize) -> Polled {
        let payload = Some(Bytes::from(vec![b'x'; bytes]));
        Polled { offset, kafka_ms: 0, taken_us: 0, key: None, headers: None, header_bytes: Some(0), payload }
    }

    fn limits(queue_records: usize, queue_bytes: usize) -> config::Partition {
        config::Partition { queue_records, queue_bytes }
    }

    fn batch(records: usize, bytes: usize) -> config::Batch {
        config::Batch { records, bytes, max_record_bytes: 1024, ephemeral_max_age: Duration::from_secs(6) }
    }

    #[tokio::test]
    async fn a_full_queue_gives_the_record_back() {
        let progress = Arc::default();
        let (queue, _receiver) = queue(&limits(2, 100), &progress);
        queue.push(record(0, 60)).unwrap();
        assert_eq!(queue.push(record(1, 50)).unwrap_err().offset, 1, "bytes");
        queue.push(record(1, 40)).unwrap();
        assert_eq!(queue.push(record(2, 0)).unwrap_err().offset, 2, "records");
        assert_eq!(progress.queued_records.load(Ordering::Relaxed), 2);
        assert_eq!(progress.queued_bytes.load(Ordering::Relaxed), 100);
    }

    #[tokio::test]
    async fn an_empty_queue_takes_a_record_larger_than_itself() {
        let (queue, _receiver) = queue(&limits(2, 100), &Arc::default());
        queue.push(record(0, 1000)).unwrap();
        assert!(!queue.is_half_empty());
    }

    #[tokio::test]
    async fn a_batch_is_what_waits_up_to_its_limits() {
        let (queue, mut receiver) = queue(&limits(10, 1000), &Arc::default());
        for offset in 0..5 {
            queue.push(record(offset, 10)).unwrap();
        }
        assert_eq!(take(&mut receiver, &batch(2, 1000)).await.unwrap().len(), 2);
        assert_eq!(take(&mut receiver, &batch(10, 15)).await.unwrap().len(), 2);
        drop(queue);
        assert_eq!(take(&mut receiver, &batch(10, 1000)).await.unwrap().len(), 1);
        assert!(take(&mut receiver, &batch(10, 1000)).await.is_none());
    }
}
