//! The partitions of this worker: starts their executors, hands them records, drains them, knows what may be stored.
//!
//! Owned by the poll thread, which alone calls it; the admin listener sees [`View`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
    time::Duration,
};

use proto::Scope;
use tokio::{runtime::Handle, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    config,
    metrics::{Metrics, PartitionLabel},
    partition::{self, Executor, PartitionId, Progress, Queue},
    polled::Polled,
};

/// The partitions as the admin listener shows them.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<RwLock<BTreeMap<PartitionId, Arc<Progress>>>>);

impl View {
    pub fn partitions(&self) -> Vec<(PartitionId, Arc<Progress>)> {
        let partitions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().map(|(id, progress)| (id.clone(), Arc::clone(progress))).collect()
    }

    fn insert(&self, id: PartitionId, progress: Arc<Progress>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, progress);
    }

    fn remove(&self, id: &PartitionId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// A position to store or commit.
pub type Position = (PartitionId, i64);

struct Owned {
    queue: Queue,
    /// What came while the queue was full; at most one record, but for what was on its way when the pause was asked.
    held: VecDeque<Polled>,
    progress: Arc<Progress>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// What the poll thread owns.
pub struct Coordinator {
    topics: Vec<(Arc<str>, Scope)>,
    limits: config::Partition,
    drain_deadline: Duration,
    executor: Executor,
    runtime: Handle,
    metrics: Metrics,
    view: View,
    owned: BTreeMap<PartitionId, Owned>,
}

impl Coordinator {
    /// Executors are started on `runtime`.
    pub fn new(
        kafka: &config::Kafka,
        limits: config::Partition,
        executor: Executor,
        view: View,
        runtime: Handle,
    ) -> Self {
        Self {
            topics: kafka.topics.sources().map(|(name, scope)| (Arc::from(name), scope)).to_vec(),
            limits,
            drain_deadline: kafka.drain_deadline,
            metrics: executor.metrics.clone(),
            executor,
            runtime,
            view,
            owned: BTreeMap::new(),
        }
    }

    /// Starts the executor of a partition.
    pub fn assign(&mut self, topic: &str, partition: i32) {
        let Some((id, scope)) = self.identify(topic, partition) else { return };
        let progress = Arc::new(Progress::default());
        let (queue, receiver) = partition::queue(&self.limits, &progress);
        let cancel = CancellationToken::new();
        let work = self.executor.clone().run(id.clone(), scope, receiver, Arc::clone(&progress));
        let cancelled = cancel.clone();
        let task = self.runtime.spawn(async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = work => {}
            }
        });
        self.view.insert(id.clone(), Arc::clone(&progress));
        let before = self.owned.insert(id, Owned { queue, held: VecDeque::new(), progress, cancel, task });
        if let Some(stale) = before {
            stale.cancel.cancel();
        }
        self.metrics.assigned.set(self.owned.len() as i64);
    }

    /// Hands a record to its executor. `true`: the queue is full, the partition has to be paused.
    pub fn route(&mut self, topic: &str, partition: i32, record: Polled) -> bool {
        let owned = self.identify(topic, partition).and_then(|(id, _)| self.owned.get_mut(&id));
        let Some(owned) = owned else {
            // Not stored, so its owner reads it.
            warn!(
                kafka.topic = topic,
                kafka.partition = partition,
                kafka.offset = record.offset,
                "a record came for a partition that is not ours; left to its owner"
            );
            return false;
        };
        if owned.held.is_empty() {
            let Err(record) = owned.queue.push(record) else { return false };
            owned.held.push_back(*record);
        } else {
            owned.held.push_back(record);
        }
        owned.progress.paused.store(true, Ordering::Relaxed);
        self.metrics.paused.set(self.owned.values().filter(|owned| owned.is_paused()).count() as i64);
        true
    }

    /// Gives held records to queues that have room again, and returns the partitions to resume.
    pub fn resumable(&mut self) -> Vec<PartitionId> {
        let mut resumable = Vec::new();
        for (id, owned) in self.owned.iter_mut().filter(|(_, owned)| owned.is_paused()) {
            if !owned.queue.is_half_empty() {
                continue;
            }
            while let Some(record) = owned.held.pop_front() {
                if let Err(record) = owned.queue.push(record) {
                    owned.held.push_front(*record);
                    break;
                }
            }
            if owned.held.is_empty() {
                owned.progress.paused.store(false, Ordering::Relaxed);
                resumable.push(id.clone());
            }
        }
        self.metrics.paused.set(self.owned.values().filter(|owned| owned.is_paused()).count() as i64);
        resumable
    }

    pub fn has_paused(&self) -> bool {
        self.owned.values().any(Owned::is_paused)
    }

    /// Positions that were acknowledged and not stored yet; marked as stored.
    pub fn take_unstored(&mut self) -> Vec<Position> {
        let unstored = self.owned.iter().filter_map(|(id, owned)| {
            let next = owned.progress.watermark.unstored()?;
            owned.progress.watermark.mark_stored(next);
            Some((id.clone(), next))
        });
        unstored.collect()
    }

    /// A partition whose executor has ended although nobody asked: it panicked.
    pub fn failed(&self) -> Option<&PartitionId> {
        self.owned.iter().find(|(_, owned)| owned.task.is_finished()).map(|(id, _)| id)
    }

    /// The head of a partition, for its lag.
    pub fn observe_head(&self, topic: &str, partition: i32, head: i64) {
        let Some((id, _)) = self.identify(topic, partition) else { return };
        let Some(owned) = self.owned.get(&id) else { return };
        owned.progress.head.store(head, Ordering::Relaxed);
        self.metrics.lag.get_or_create(&label(&id)).set(owned.progress.lag());
    }

    pub fn all(&self) -> Vec<PartitionId> {
        self.owned.keys().cloned().collect()
    }

    /// Lets the executors of `partitions` finish what they hold, within the deadline, and returns what may be
    /// committed. What is not finished then is left to the next owner. Blocks the calling thread, which must not be
    /// one of the runtime's.
    pub fn drain(&mut self, partitions: &[PartitionId]) -> Vec<Position> {
        let removed: Vec<_> = partitions.iter().filter_map(|id| self.remove(id)).collect();
        // Dropping a queue closes it: the executor ends once it is empty.
        let mut draining: Vec<_> = removed
            .into_iter()
            .map(|(id, Owned { progress, cancel, task, .. })| (id, progress, cancel, task))
            .collect();
        let runtime = self.runtime.clone();
        let all_ended = runtime.block_on(async {
            let end_of_all = async {
                for (_, _, _, task) in &mut draining {
                    // A panic is no reason to wait for it; its watermark stands where it stood.
                    let _ = task.await;
                }
            };
            timeout(self.drain_deadline, end_of_all).await
        });
        if all_ended.is_err() {
            let left = draining.iter().filter(|(.., task)| !task.is_finished()).count();
            warn!(
                partitions = left,
                deadline_ms = self.drain_deadline.as_millis() as u64,
                "partitions were not drained in time; their next owner repeats a little"
            );
        }
        let positions = draining.into_iter().filter_map(|(id, progress, cancel, _)| {
            cancel.cancel();
            progress.watermark.next().map(|next| (id, next))
        });
        positions.collect()
    }

    /// Ends the executors of partitions that belong to somebody else already. Nothing of theirs may be committed.
    pub fn abandon(&mut self, partitions: &[PartitionId]) {
        for id in partitions {
            if let Some((id, owned)) = self.remove(id) {
                owned.cancel.cancel();
                debug!(kafka.topic = %id.topic, kafka.partition = id.partition, "the partition is lost");
            }
        }
    }

    fn remove(&mut self, id: &PartitionId) -> Option<(PartitionId, Owned)> {
        let removed = self.owned.remove_entry(id)?;
        self.view.remove(id);
        self.metrics.lag.remove(&label(id));
        self.metrics.assigned.set(self.owned.len() as i64);
        self.metrics.paused.set(self.owned.values().filter(|owned| owned.is_paused()).count() as i64);
        Some(removed)
    }

    fn identify(&self, topic: &str, partition: i32) -> Option<(PartitionId, Scope)> {
        let (topic, scope) = self.topics.iter().find(|(name, _)| &**name == topic)?;
        Some((PartitionId { topic: Arc::clone(topic), partition }, *scope))
    }
}

impl Owned {
    fn is_paused(&self) -> bool {
        self.progress.paused.load(Ordering::Relaxed)
    }
}

fn label(id: &PartitionId) -> PartitionLabel {
    PartitionLabel { topic: id.topic.to_string(), partition: id.partition }
}
