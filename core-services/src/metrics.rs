//! What core counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
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
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            messages: Family::default(),
            batch_messages: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            batches_split: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
            ephemeral_dropped: Counter::default(),
        };
        registry.register("core_messages", "Messages by outcome", metrics.messages.clone());
        registry.register("core_batch_messages", "Messages of one group commit", metrics.batch_messages.clone());
        registry.register("core_batches_split", "Batches tried again singly", metrics.batches_split.clone());
        registry.register("core_commit_seconds", "One group commit, retries included", metrics.commit_seconds.clone());
        registry.register("core_ephemeral_dropped", "Unsequenced events dropped", metrics.ephemeral_dropped.clone());
        metrics
    }

    pub fn count_message(&self, outcome: &'static str) {
        self.messages.get_or_create(&Outcome { outcome }).inc();
    }
}
