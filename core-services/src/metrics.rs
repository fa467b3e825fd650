//! What core counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `created`, `duplicate`, or the code of the refusal.
    outcome: &'static str,
}

/// The counters; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    messages: Family<Outcome, Counter>,
    pub batch_messages: Histogram,
    pub batches_split: Counter,
    pub commit_seconds: Histogram,
    pub ephemeral_dropped: Counter,
    pub outbox_partitions: Gauge,
    pub outbox_ahead_seconds: Gauge,
    pub outbox_catch_all_used: Gauge,
    pub outbox_partitions_made: Counter,
    pub outbox_partitions_dropped: Counter,
    pub outbox_drops_postponed: Counter,
    pub outbox_failures: Counter,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            messages: Family::default(),
            batch_messages: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            batches_split: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
            ephemeral_dropped: Counter::default(),
            outbox_partitions: Gauge::default(),
            outbox_ahead_seconds: Gauge::default(),
            outbox_catch_all_used: Gauge::default(),
            outbox_partitions_made: Counter::default(),
            outbox_partitions_dropped: Counter::default(),
            outbox_drops_postponed: Counter::default(),
            outbox_failures: Counter::default(),
        };
        registry.register("core_messages", "Messages by outcome", metrics.messages.clone());
        registry.register("core_batch_messages", "Messages of one group commit", metrics.batch_messages.clone());
        registry.register("core_batches_split", "Batches tried again singly", metrics.batches_split.clone());
        registry.register("core_commit_seconds", "One group commit, retries included", metrics.commit_seconds.clone());
        registry.register("core_ephemeral_dropped", "Unsequenced events dropped", metrics.ephemeral_dropped.clone());
        metrics.register_outbox(registry);
        metrics
    }

    fn register_outbox(&self, registry: &mut Registry) {
        let outbox = registry.sub_registry_with_prefix("core_outbox");
        outbox.register(
            "partitions",
            "Partitions of the outbox, the catch-all included",
            self.outbox_partitions.clone(),
        );
        let ahead = "Until rows would go to the catch-all, if no partition were made";
        outbox.register("ahead_seconds", ahead, self.outbox_ahead_seconds.clone());
        outbox.register("catch_all_used", "1: the catch-all has rows", self.outbox_catch_all_used.clone());
        outbox.register("partitions_made", "Partitions made", self.outbox_partitions_made.clone());
        outbox.register("partitions_dropped", "Partitions dropped", self.outbox_partitions_dropped.clone());
        let postponed = "Drops put off, because a consumer was not past the partition";
        outbox.register("drops_postponed", postponed, self.outbox_drops_postponed.clone());
        outbox.register("maintenance_failures", "Looks at the partitions that failed", self.outbox_failures.clone());
    }

    pub fn count_message(&self, outcome: &'static str) {
        self.messages.get_or_create(&Outcome { outcome }).inc();
    }
}
