//! What the worker counts. Names and labels are listed once, here.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TopicLabel {
    pub topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabel {
    pub topic: String,
    pub partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}

/// Cheap to clone: every handle counts into the same registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub records: Family<TopicLabel, Counter>,
    pub batches: Counter,
    pub batch_records: Histogram,
    pub batch_retries: Counter,
    pub redis_round_trip: Histogram,
    pub appended: Counter,
    pub gone: Counter,
    pub refused_keys: Counter,
    pub dead_letters: Family<ReasonLabel, Counter>,
    pub stale_ephemeral: Counter,
    pub lag: Family<PartitionLabel, Gauge>,
    pub assigned: Gauge,
    pub paused: Gauge,
    pub swept_gateways: Counter,
    pub swept_connections: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("fanout");
        let metrics = Self {
            records: Family::default(),
            batches: Counter::default(),
            batch_records: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            batch_retries: Counter::default(),
            redis_round_trip: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            appended: Counter::default(),
            gone: Counter::default(),
            refused_keys: Counter::default(),
            dead_letters: Family::default(),
            stale_ephemeral: Counter::default(),
            lag: Family::default(),
            assigned: Gauge::default(),
            paused: Gauge::default(),
            swept_gateways: Counter::default(),
            swept_connections: Counter::default(),
        };
        registry.register("records", "Records acknowledged, by topic", metrics.records.clone());
        registry.register("batches", "Batches acknowledged", metrics.batches.clone());
        registry.register("batch_records", "Records in a batch", metrics.batch_records.clone());
        registry.register(
            "batch_retries",
            "Batches tried again because Redis did not take them",
            metrics.batch_retries.clone(),
        );
        registry.register_with_unit(
            "redis_round_trip",
            "Time of one pipeline",
            Unit::Seconds,
            metrics.redis_round_trip.clone(),
        );
        registry.register("stream_entries", "Entries appended to gateways' streams", metrics.appended.clone());
        registry.register(
            "gone_gateways",
            "Appends answered with nil: the incarnation is gone, its interest was removed",
            metrics.gone.clone(),
        );
        registry.register(
            "refused_keys",
            "Keys of another type than ours: somebody else writes under our prefix",
            metrics.refused_keys.clone(),
        );
        registry.register("dead_letters", "Records written to the dead-letter topic", metrics.dead_letters.clone());
        registry.register(
            "stale_ephemeral",
            "Typing and receipts dropped because they were too old",
            metrics.stale_ephemeral.clone(),
        );
        registry.register("partition_lag", "Records behind the head of the partition", metrics.lag.clone());
        registry.register("assigned_partitions", "Partitions of this worker", metrics.assigned.clone());
        registry.register(
            "paused_partitions",
            "Partitions whose queue is full: Redis is slow or away",
            metrics.paused.clone(),
        );
        registry.register(
            "swept_gateways",
            "Gateways forgotten because their lease was gone",
            metrics.swept_gateways.clone(),
        );
        registry.register("swept_connections", "Connections forgotten with them", metrics.swept_connections.clone());
        metrics
    }

    pub fn observe_round_trip(&self, elapsed: Duration) {
        self.redis_round_trip.observe(elapsed.as_secs_f64());
    }
}
