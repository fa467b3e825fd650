//! The member of the consumer group, and its poll thread.
//!
//! The thread only moves records to the partitions' queues, and never waits for them: a full queue pauses its
//! partition, so that polling goes on however long Redis is away (`kafka.max_poll_interval`). It alone touches the
//! consumer: assignment, pausing, storing offsets.
//!
//! Rebalances are cooperative: partitions that stay are read on. A partition that goes is drained within a deadline,
//! its offset committed, and only then given up. Partitions lost without notice are abandoned without a commit.
//!
//! With a name of its own (`kafka.instance_id`; Kafka calls that a static member) a worker that was killed and comes back
//! is the same member to the group: it is handed its partitions without a rebalance. One that is told to stop leaves,
//! which librdkafka does not do for such a member by itself ([`leave`]).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use chassis::{Backoff, Dependency};
use rdkafka::{
    ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::Message as _,
    types::RDKafkaRespErr,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    config,
    coordinator::{Coordinator, Position},
    kafka_log,
    partition::PartitionId,
    polled::Polled,
};

/// How long a poll waits when nothing comes: what a stop waits at most.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// The same while a partition is paused and has to be resumed once its queue is drained.
const PAUSED_POLL: Duration = Duration::from_millis(5);
/// Between looks at what is to be resumed and stored.
const HOUSEKEEPING: Duration = Duration::from_millis(20);
/// For the answer to a question about topics.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);
/// Between questions about topics that are missing.
const TOPIC_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Fenced twice within so many sessions: another worker has the name.
const RIVAL_SESSIONS: u32 = 3;
/// For a consumer to close before another one begins: librdkafka 2.3 may never come to the end of a close that meets a
/// rebalance (its issue 4527).
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// What each part of leaving may take, when all is drained: the last commit, until the group has forgotten the member, and
/// the close. Without Kafka a commit alone would wait for the session's time.
pub const LEAVE_LIMIT: Duration = Duration::from_secs(2);

const NO_BROKER: &str = "no broker is connected";

/// Why the consumer can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    #[error("the Kafka consumer: {0}")]
    Kafka(#[from] KafkaError),
    #[error("the executor of {0} ended unasked")]
    Executor(PartitionId),
    #[error("{0}")]
    Rebalance(String),
    #[error("the consumer did not close within {CLOSE_LIMIT:?}; only a new process can begin anew")]
    Unclosed,
    #[error("another worker has taken the kafka.instance_id of this one ({0}): each needs a name of its own")]
    Fenced(String),
}

/// The consumer with its group's callbacks.
pub type GroupConsumer = BaseConsumer<Group>;

/// Creates the consumer; nothing is asked of the broker before [`run`].
pub fn create(config: &config::Kafka, coordinator: Coordinator, dependency: Dependency) -> KafkaResult<GroupConsumer> {
    let ms = |duration: Duration| duration.as_millis().to_string();
    let prefetch_kib = (config.prefetch_bytes / 1024).max(1).to_string();
    let mut client = ClientConfig::new();
    if let Some(name) = &config.instance_id {
        client.set("group.instance.id", name);
    }
    client
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", &config.client_id)
        .set("group.id", &config.group_id)
        .set("partition.assignment.strategy", "cooperative-sticky")
        // A partition without a committed offset is read from its start: a group's first record is not to be missed.
        .set("auto.offset.reset", "earliest")
        // Offsets are stored when they are acknowledged, and what is stored is committed in the background.
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", ms(config.commit_interval))
        .set("session.timeout.ms", ms(config.session_timeout))
        .set("heartbeat.interval.ms", ms(config.heartbeat_interval))
        .set("max.poll.interval.ms", ms(config.max_poll_interval))
        .set("statistics.interval.ms", ms(config.statistics_interval))
        // Bounds of what librdkafka keeps for each partition before its queue. Over them it waits before it fetches
        // again; its default of a second would stop the flow of a busy partition for that long.
        .set("queued.max.messages.kbytes", &prefetch_kib)
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.error.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        .set_log_level(RDKafkaLogLevel::Warning)
        .create_with_context(Group { coordinator: Mutex::new(coordinator), dependency, failure: Mutex::new(None) })
}

/// Runs a consumer on the calling thread until `draining`; then drains, commits and leaves the group.
///
/// A member with a name of its own may be taken for another one of that name when Kafka was away for longer than the
/// session: a commit that waited goes out with the name's former life. So who is fenced begins anew, once; who is fenced
/// again soon after that has a rival.
pub fn run(
    create: impl Fn() -> KafkaResult<GroupConsumer>,
    config: &config::Kafka,
    draining: &CancellationToken,
) -> Result<(), ConsumerError> {
    let mut fenced: Option<Instant> = None;
    loop {
        let consumer = Arc::new(create()?);
        match run_member(&consumer, config, draining) {
            Err(ConsumerError::Fenced(reason))
                if fenced.is_none_or(|before| before.elapsed() > config.session_timeout * RIVAL_SESSIONS) =>
            {
                warn!(reason, "fenced; joining the consumer group anew");
                fenced = Some(Instant::now());
            }
            // Closes: a member without a name of its own leaves the group, so that others need not wait for the session's end.
            ended => {
                if within(LEAVE_LIMIT, move || drop(consumer)).is_none() {
                    warn!(limit = ?LEAVE_LIMIT, "the consumer did not close in time, and is left behind");
                }
                return ended;
            }
        }
        // What was not committed is read again.
        let mut coordinator = consumer.context().coordinator();
        let partitions = coordinator.all();
        coordinator.abandon(&partitions);
        drop(coordinator);
        within(CLOSE_LIMIT, move || drop(consumer)).ok_or(ConsumerError::Unclosed)?;
    }
}

/// What `work` comes to, unless it takes longer. It goes on by itself then.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (over, is_over) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // Nobody waits any more if it took too long.
        let _ = over.send(work());
    });
    is_over.recv_timeout(limit).ok()
}

fn run_member(
    consumer: &Arc<GroupConsumer>,
    config: &config::Kafka,
    draining: &CancellationToken,
) -> Result<(), ConsumerError> {
    if await_topics(consumer, config, draining) {
        consumer.subscribe(&config.topics.sources().map(|(topic, _)| topic))?;
        poll(consumer, draining)?;
    }
    let partitions = consumer.context().coordinator().all();
    let positions = consumer.context().coordinator().drain(&partitions);
    let committing = Arc::clone(consumer);
    if within(LEAVE_LIMIT, move || commit(&committing, &positions)).is_none() {
        warn!(limit = ?LEAVE_LIMIT, "drained partitions could not be committed in time; they are repeated");
    }
    info!(partitions = partitions.len(), "drained; leaving the consumer group");
    leave(consumer, config);
    Ok(())
}

/// Takes the member out of the group. Closing does not where it has a name of its own, because it may come back; then
/// its partitions would wait for `session_timeout` when it doesn't. Unsubscribing does, and has to be through before the
/// close begins: a close that meets a rebalance may have no end (librdkafka's issue 4527).
fn leave(consumer: &GroupConsumer, config: &config::Kafka) {
    consumer.unsubscribe();
    let began = Instant::now();
    while began.elapsed() < LEAVE_LIMIT {
        // Gives the partitions back, in the callback. They are drained already.
        drop(consumer.poll(IDLE_POLL));
        let has_left = match &config.instance_id {
            Some(name) => is_member(consumer, &config.group_id, name).map(|is_member| !is_member),
            None => consumer.assignment().map(|partitions| partitions.count() == 0),
        };
        match has_left {
            Ok(true) => return,
            Ok(false) => {}
            Err(failure) => debug!(%failure, "the group's members could not be asked for"),
        }
    }
    let session_ms = config.session_timeout.as_millis() as u64;
    warn!(session_ms, "not seen to have left the consumer group; the partitions may wait for the session's end");
}

/// Whether the group has a member of that name: Kafka puts a UUID behind it.
fn is_member(consumer: &GroupConsumer, group: &str, name: &str) -> KafkaResult<bool> {
    const UUID: usize = 36;
    let groups = consumer.fetch_group_list(Some(group), LEAVE_LIMIT / 2)?;
    let named = |id: &str| id.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).map(str::len) == Some(UUID);
    Ok(groups.groups().iter().flat_map(|group| group.members()).any(|member| named(member.id())))
}

fn poll(consumer: &GroupConsumer, draining: &CancellationToken) -> Result<(), ConsumerError> {
    let group = consumer.context();
    let mut housekept = Instant::now();
    while !draining.is_cancelled() {
        let wait = if group.coordinator().has_paused() { PAUSED_POLL } else { IDLE_POLL };
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                let (topic, partition) = (message.topic(), message.partition());
                let record = Polled::copy_of(&message, chassis::now_us());
                let full = group.coordinator().route(topic, partition, record);
                if full {
                    consumer.pause(&list([(topic, partition, Offset::Invalid)]))?;
                    debug!(kafka.topic = topic, kafka.partition = partition, "the queue is full; paused");
                }
            }
            Some(Err(failure @ KafkaError::MessageConsumptionFatal(_))) => {
                return Err(match consumer.client().fatal_error() {
                    Some((RDKafkaErrorCode::FencedInstanceId, reason)) => ConsumerError::Fenced(reason),
                    _ => failure.into(),
                });
            }
            // Logged with its reason by `Group::error`; librdkafka goes on by itself.
            Some(Err(_)) | None => {}
        }
        if housekept.elapsed() >= HOUSEKEEPING {
            housekept = Instant::now();
            keep_house(consumer)?;
        }
    }
    Ok(())
}

fn keep_house(consumer: &GroupConsumer) -> Result<(), ConsumerError> {
    let group = consumer.context();
    if let Some(reason) = group.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(ConsumerError::Rebalance(reason));
    }
    let mut coordinator = group.coordinator();
    if let Some(id) = coordinator.failed() {
        return Err(ConsumerError::Executor(id.clone()));
    }
    let resumable = coordinator.resumable();
    if !resumable.is_empty() {
        consumer.resume(&list(resumable.iter().map(|id| (&*id.topic, id.partition, Offset::Invalid))))?;
    }
    let unstored = coordinator.take_unstored();
    if !unstored.is_empty() {
        // Not the end of anything: the next record of the partition stores more, and so does its drain.
        if let Err(failure) = consumer.store_offsets(&positions(&unstored)) {
            warn!(partitions = unstored.len(), %failure, "acknowledged offsets could not be stored");
        }
    }
    Ok(())
}

/// Waits until every topic is there; `false`: the process drains. Topics are made by core-services at its start.
fn await_topics(consumer: &GroupConsumer, config: &config::Kafka, draining: &CancellationToken) -> bool {
    let group = consumer.context();
    let mut backoff = Backoff::new(TOPIC_RETRY.0, TOPIC_RETRY.1);
    let sources = config.topics.sources().map(|(topic, _)| topic);
    for topic in sources.into_iter().chain([config.topics.dead_letters.as_str()]) {
        loop {
            if draining.is_cancelled() {
                return false;
            }
            match consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT) {
                Ok(metadata) if metadata.topics().iter().any(|t| t.name() == topic && !t.partitions().is_empty()) => {
                    break;
                }
                Ok(_) => group.dependency.down(format_args!("the topic {topic} is missing; core-services makes it")),
                Err(failure) => {
                    debug!(%failure, "the topics could not be asked for");
                    group.dependency.down(NO_BROKER);
                }
            }
            // Waits, and hears meanwhile what the client has to say.
            drop(consumer.poll(backoff.next_delay()));
        }
    }
    group.dependency.down("joining the consumer group");
    true
}

/// The callbacks of the group; all run on the poll thread, inside `poll` (or while the consumer closes).
pub struct Group {
    coordinator: Mutex<Coordinator>,
    dependency: Dependency,
    failure: Mutex<Option<String>>,
}

impl Group {
    fn coordinator(&self) -> MutexGuard<'_, Coordinator> {
        self.coordinator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, what: &str, failure: &KafkaError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(format!("{what}: {failure}"));
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let ids: Vec<_> = partitions
            .elements()
            .iter()
            .map(|element| PartitionId { topic: element.topic().into(), partition: element.partition() })
            .collect();
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            info!(partitions = ids.len(), "assigned");
            // Executors first, the consumer after them: no record can come before there is a queue for it.
            for id in &ids {
                self.coordinator().assign(&id.topic, id.partition);
            }
            if let Err(failure) = consumer.incremental_assign(partitions) {
                self.fail("partitions could not be taken", &failure);
            }
            // A partition that was paused when it went is paused still.
            if let Err(failure) = consumer.resume(partitions) {
                self.fail("partitions could not be resumed", &failure);
            }
            self.dependency.up();
            return;
        }
        if consumer.assignment_lost() {
            warn!(partitions = ids.len(), "partitions were lost without notice; nothing of them is committed");
            self.coordinator().abandon(&ids);
        } else {
            let drained = self.coordinator().drain(&ids);
            commit(consumer, &drained);
            info!(partitions = ids.len(), "revoked");
        }
        if let Err(failure) = consumer.incremental_unassign(partitions) {
            self.fail("partitions could not be given up", &failure);
        }
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka_log::log(level, facility, message);
    }

    fn error(&self, failure: KafkaError, reason: &str) {
        kafka_log::error(&failure, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let coordinator = self.coordinator();
        for (name, topic) in &statistics.topics {
            for partition in topic.partitions.values().filter(|partition| partition.hi_offset >= 0) {
                coordinator.observe_head(name, partition.partition, partition.hi_offset);
            }
        }
        drop(coordinator);
        let connected = statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP");
        match &statistics.cgrp {
            _ if !connected => self.dependency.down(NO_BROKER),
            Some(group) if group.state == "up" && group.join_state == "steady" => self.dependency.up(),
            // A rebalance under way or a consumer that closes: neither news nor an outage.
            Some(group) if group.state == "up" || group.state == "term" => {}
            Some(group) => self.dependency.down(format_args!("the group's coordinator is not there: {}", group.state)),
            None => {}
        }
    }
}

/// Commits and waits for the broker. A failure is no loss: the next owner repeats.
///
/// The positions are stored first: librdkafka commits what is stored once more when it gives a partition up, and
/// would set the group back to an older position.
fn commit(consumer: &GroupConsumer, drained: &[Position]) {
    if drained.is_empty() {
        return;
    }
    let positions = positions(drained);
    let committed = consumer.store_offsets(&positions).and_then(|()| consumer.commit(&positions, CommitMode::Sync));
    if let Err(failure) = committed {
        error!(partitions = drained.len(), %failure, "drained partitions could not be committed; they are repeated");
    }
}

fn positions(positions: &[Position]) -> TopicPartitionList {
    list(positions.iter().map(|(id, next)| (&*id.topic, id.partition, Offset::Offset(*next))))
}

fn list<'a>(partitions: impl IntoIterator<Item = (&'a str, i32, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in partitions {
        list.add_partition_offset(topic, partition, offset).expect("an offset that we read or Invalid can be set");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_without_an_end_is_waited_for_no_longer_than_its_limit() {
        let (let_go, held) = mpsc::sync_channel::<()>(1);
        let limit = Duration::from_millis(50);
        assert_eq!(within(limit, move || held.recv().is_ok()), None);
        drop(let_go);
        assert_eq!(within(Duration::from_secs(60), || 1), Some(1));
    }
}
