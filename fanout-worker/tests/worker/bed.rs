//! What every test stands on: the running engines, topics and a key prefix of its own, and workers on them.

use std::{collections::BTreeMap, future::Future, net::TcpListener, process::Stdio, time::Duration};

use chassis::{Process, http::get_json};
use fanout_worker::{app, config::Config, config::DEFAULTS};
use proto::{
    Keys,
    topics::header::{CONVERSATION_ID, EPOCH, EVENT_TYPE, ID, SEQ},
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::{Header, OwnedHeaders, OwnedMessage},
    producer::{FutureProducer, FutureRecord},
};
use redis::aio::MultiplexedConnection;
use serde::Deserialize;
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
    time::Instant,
};

/// Enough for a rebalance on a busy machine; what is waited for usually comes in milliseconds.
const DEADLINE: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
pub const PARTITIONS: i32 = 4;

#[derive(Debug, Deserialize)]
pub struct Endpoints {
    pub redis: String,
    pub kafka: String,
}

impl Endpoints {
    pub fn load() -> Self {
        let path = std::env::var("SWITCHBOARD_ENDPOINTS").expect(
            "SWITCHBOARD_ENDPOINTS is not set: these tests need a running stack. Run them with `cargo xtask test`, \
             or name the endpoints.json of a stack that is up",
        );
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// Topics, group and keys of one test.
pub struct Bed {
    pub endpoints: Endpoints,
    pub keys: Keys,
    pub redis: MultiplexedConnection,
    id: String,
    admin: AdminClient<DefaultClientContext>,
    producer: FutureProducer,
}

impl Bed {
    pub async fn new() -> Self {
        let endpoints = Endpoints::load();
        let id = format!("test-{}", uuid::Uuid::new_v4().simple());
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", &endpoints.kafka).set("partitioner", "murmur2_random").set("linger.ms", "1");
        // Its default of half a second is short for a whole stream on a busy machine.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(DEADLINE));
        let redis = redis::Client::open(endpoints.redis.as_str()).unwrap();
        let bed = Self {
            keys: Keys::new(format!("{id}:")),
            redis: redis.get_multiplexed_async_connection_with_config(&patient).await.unwrap(),
            admin: kafka.create().unwrap(),
            producer: kafka.create().unwrap(),
            id,
            endpoints,
        };
        for topic in ["messages", "users", "ephemeral", "dlq"] {
            let topic = bed.topic(topic);
            let topic = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1))
                .set("message.timestamp.type", "LogAppendTime");
            let created = bed.admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
            created.into_iter().for_each(|outcome| drop(outcome.unwrap()));
        }
        bed
    }

    /// Removes the topics; the keys expire with the stack or are few.
    pub async fn remove(self) {
        let topics = ["messages", "users", "ephemeral", "dlq"].map(|topic| self.topic(topic));
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        self.admin.delete_topics(&topics, &AdminOptions::new()).await.unwrap();
    }

    pub fn topic(&self, kind: &str) -> String {
        format!("{}.{kind}", self.id)
    }

    /// What a worker of this test is configured with, as variables of its environment.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = [
            ("ADMIN__LISTEN", free.to_string()),
            ("KAFKA__BROKERS", self.endpoints.kafka.clone()),
            ("KAFKA__GROUP_ID", self.id.clone()),
            ("KAFKA__TOPICS__MESSAGES", self.topic("messages")),
            ("KAFKA__TOPICS__USERS", self.topic("users")),
            ("KAFKA__TOPICS__EPHEMERAL", self.topic("ephemeral")),
            ("KAFKA__TOPICS__DEAD_LETTERS", self.topic("dlq")),
            ("KAFKA__SESSION_TIMEOUT", "6s".to_owned()),
            ("KAFKA__HEARTBEAT_INTERVAL", "500ms".to_owned()),
            ("KAFKA__COMMIT_INTERVAL", "100ms".to_owned()),
            ("KAFKA__STATISTICS_INTERVAL", "250ms".to_owned()),
            ("REDIS__URL", self.endpoints.redis.clone()),
            ("REDIS__KEY_PREFIX", format!("{}:", self.id)),
            ("REDIS__RETRY_MAX", "200ms".to_owned()),
            ("SWEEPER__INTERVAL", "50ms".to_owned()),
        ];
        settings.into_iter().map(|(key, value)| (format!("SWITCHBOARD__{key}"), value)).collect()
    }

    /// Appends a sequenced event; its payload names it.
    pub async fn message(&self, conversation: i64, seq: i64) {
        let (conversation, seq) = (conversation.to_string(), seq.to_string());
        let id = format!("{conversation}-{seq}");
        let headers =
            [(ID, &*id), (EVENT_TYPE, "MESSAGE"), (EPOCH, "1"), (CONVERSATION_ID, &conversation), (SEQ, &seq)];
        self.produce("messages", Some(&conversation), &headers, Some(format!("{{\"seq\":{seq}}}").as_bytes())).await;
    }

    /// Appends any record, and returns its partition and offset.
    pub async fn produce(
        &self,
        topic: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        payload: Option<&[u8]>,
    ) -> (i32, i64) {
        let topic = self.topic(topic);
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let mut record = FutureRecord::<str, [u8]>::to(&topic).headers(headers);
        record.key = key;
        record.payload = payload;
        self.producer.send(record, Duration::from_secs(5)).await.unwrap()
    }

    /// What the group has committed: the sum over all partitions of a topic of the records before the commit.
    pub async fn committed(&self, topic: &str) -> i64 {
        let topic = self.topic(topic);
        let consumer = self.consumer();
        tokio::task::spawn_blocking(move || {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&topic, 0, PARTITIONS - 1);
            let committed = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
            committed.elements().iter().filter_map(|element| element.offset().to_raw()).filter(|o| *o > 0).sum()
        })
        .await
        .unwrap()
    }

    /// Sets the size of the largest record that the dead-letter topic takes.
    pub async fn limit_dead_letters(&self, bytes: usize) {
        let (topic, bytes) = (self.topic("dlq"), bytes.to_string());
        let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", &bytes);
        let changed = self.admin.alter_configs([&change], &AdminOptions::new()).await.unwrap();
        changed.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    }

    /// All dead letters, once there are `count`.
    pub async fn dead_letters(&self, count: usize) -> Vec<OwnedMessage> {
        let topic = self.topic("dlq");
        let consumer = self.consumer();
        tokio::task::spawn_blocking(move || {
            let mut list = TopicPartitionList::new();
            for partition in 0..PARTITIONS {
                list.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
            }
            consumer.assign(&list).unwrap();
            let deadline = std::time::Instant::now() + DEADLINE;
            let mut letters = Vec::new();
            while letters.len() < count {
                assert!(std::time::Instant::now() < deadline, "{} of {count} dead letters came", letters.len());
                if let Some(message) = consumer.poll(LOOK_AGAIN) {
                    letters.push(message.unwrap().detach());
                }
            }
            letters.sort_by_key(|letter| letter.offset());
            letters
        })
        .await
        .unwrap()
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.endpoints.kafka).set("group.id", &self.id);
        config.set("enable.auto.commit", "false").create().unwrap()
    }
}

/// A worker inside the test.
pub struct Worker {
    pub process: Process,
    pub admin: String,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Worker {
    pub fn start(settings: BTreeMap<String, String>) -> Self {
        let config: Config = chassis::config::load(DEFAULTS, None, settings).unwrap();
        let process = Process::for_tests("fanout-worker");
        let admin = format!("http://{}", config.admin.listen);
        Self { serving: tokio::spawn(app::serve(config, process.clone())), admin, process }
    }

    pub async fn is_ready(&self) {
        // The listener is bound after the dependencies are named: before, nothing is missing yet.
        let url = format!("{}/partitions", self.admin);
        eventually("the worker is ready", || async {
            get_json::<serde_json::Value>(&url).await.ok()?;
            self.process.readiness.missing().is_empty().then_some(())
        })
        .await;
    }

    /// As SIGTERM does: drains, commits, leaves the group.
    pub async fn stop(self) {
        self.process.lifecycle.begin_draining();
        tokio::time::timeout(DEADLINE, self.serving).await.expect("the worker stops").unwrap().unwrap();
    }
}

/// A worker as a process of its own; killed when it is dropped.
pub fn binary(settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanout-worker"));
    command.envs(settings).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// Sends `name` (`TERM`, `STOP`, …) to a process that the test started.
pub async fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("it has not ended").to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status().await.unwrap();
    assert!(status.success(), "kill -s {name} {pid}");
}

/// Waits for something to be seen, and fails the test after a while, naming it.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
