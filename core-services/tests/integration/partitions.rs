//! The outbox's partitions: made ahead, by one core at a time; and not dropped while somebody may need them.
//!
//! No connector reads the databases of these tests. That drops happen where one does is shown end to end.

use std::process::{Output, Stdio};

use core_services::{
    config::Config,
    db::Db,
    metrics::Metrics,
    outbox::{maintenance::Maintenance, past::Group},
};
use prometheus_client::registry::Registry;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};

use crate::harness::{Core, DEADLINE, POLL, engines, run_on};

async fn names(core: &Core) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT CAST(PARTITION_NAME AS CHAR) FROM information_schema.PARTITIONS
         WHERE TABLE_SCHEMA = ? AND TABLE_NAME = 'message_producer_outbox' ORDER BY PARTITION_ORDINAL_POSITION",
    )
    .bind(&core.database)
    .fetch_all(&core.db)
    .await
    .unwrap()
}

async fn rows(core: &Core, partition: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM message_producer_outbox PARTITION ({partition})");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&core.db).await.unwrap()
}

async fn until_made(core: &Core) -> Vec<String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let names = names(core).await;
        if names.len() > 1 {
            return names;
        }
        assert!(Instant::now() < deadline, "no partitions were made: {}", core.log());
        sleep(POLL).await;
    }
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn partitions_are_made_ahead_and_the_catch_all_stays_empty() {
    let core = Core::start().await;
    let made = until_made(&core).await;
    // Today, three days ahead, and the catch-all.
    assert_eq!((made.len(), made[4].as_str()), (5, "p_max"), "{made:?}");
    assert!(made[..4].iter().all(|name| name.starts_with("before_") && name.ends_with("_000000")), "{made:?}");
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    for n in 0..5 {
        core.send(&alice, channel, &format!("m-{n}"), "hello").await.unwrap();
    }
    assert_eq!(rows(&core, "p_max").await, 0);
    assert!(rows(&core, &made[0]).await >= 6);
    assert!(said(&core.command().arg("partitions").output().unwrap()).contains("nothing is to be done"));
    assert_eq!(names(&core).await, made);
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn of_many_who_look_at_once_one_makes_the_partitions() {
    let core = Core::start_with(&[("OUTBOX__PARTITIONS__AHEAD", "1d")]).await;
    assert_eq!(until_made(&core).await.len(), 3);
    let looking: Vec<_> = (0..6)
        .map(|_| {
            let mut command = core.command();
            command.env("SWITCHBOARD__OUTBOX__PARTITIONS__AHEAD", "9d").arg("partitions");
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let said: Vec<String> = looking.into_iter().map(|child| said(&child.wait_with_output().unwrap())).collect();
    assert_eq!(said.iter().filter(|said| said.contains("made: ")).count(), 1, "{said:?}");
    assert_eq!(names(&core).await.len(), 11);
    core.finish().await;
}

#[tokio::test]
async fn an_old_partition_stays_while_the_connector_is_not_past_it() {
    let core = Core::start().await;
    let made = until_made(&core).await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    let (first, db) = (&made[0], &core.db);
    let bound: String =
        sqlx::query_scalar("SELECT DATE_FORMAT(UTC_DATE() + INTERVAL 1 DAY, '%Y-%m-%d')").fetch_one(db).await.unwrap();
    let split = format!(
        "ALTER TABLE message_producer_outbox REORGANIZE PARTITION {first} INTO (
         PARTITION long_ago VALUES LESS THAN ('2026-01-02'), PARTITION {first} VALUES LESS THAN ('{bound}'))"
    );
    sqlx::query(AssertSqlSafe(split)).execute(db).await.unwrap();
    let aged = "UPDATE message_producer_outbox SET created_at = '2026-01-01 12:00:00' WHERE conversation_id = ?";
    sqlx::query(aged).bind(channel).execute(db).await.unwrap();
    assert_eq!(rows(&core, "long_ago").await, 1);

    assert!(
        said(&core.command().args(["partitions", "--dry-run"]).output().unwrap()).contains("to be dropped: long_ago")
    );
    let mut command = core.command();
    let looked =
        command.env("SWITCHBOARD__OUTBOX__PARTITIONS__GUARD_TIMEOUT", "2s").arg("partitions").output().unwrap();
    assert!(said(&looked).contains("stay for now: the connector is not past it"), "{looked:?}");
    assert_eq!(rows(&core, "long_ago").await, 1);
    core.assert_whole(channel).await;
    core.finish().await;
}

#[tokio::test]
async fn how_old_a_partition_is_is_told_by_the_servers_clock() {
    let core = Core::start().await;
    let made = until_made(&core).await;
    let env = [("SWITCHBOARD__MYSQL__URL".to_owned(), core.mysql.clone())];
    let config: Config = chassis::config::load(include_str!("../../config/default.yaml"), None, env).unwrap();
    let maintenance = Maintenance {
        db: Db::new(&config.mysql).unwrap(),
        kafka: config.kafka,
        config: config.outbox.partitions,
        metrics: Metrics::new(&mut Registry::default()),
    };
    let mut session = maintenance.db.detached().await.unwrap();
    assert!(maintenance.look_by(&mut session, true).await.unwrap().plan.is_empty());
    run_on(&mut session, "SET SESSION timestamp = UNIX_TIMESTAMP() + 20 * 86400").await;
    let plan = maintenance.look_by(&mut session, true).await.unwrap().plan;
    let old: Vec<&str> = plan.drop.iter().map(|partition| partition.name.as_str()).collect();
    assert_eq!(old, made[..4]);
    assert_eq!(plan.make.len(), 4, "today's and three days ahead");
    core.finish().await;
}

#[tokio::test]
async fn a_group_that_has_read_all_of_a_transaction_is_past_its_end() {
    let (brokers, topic) = (engines().kafka, format!("test.past.{}", uuid::Uuid::now_v7().simple()));
    let client = |key: &str, value: &str| {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &brokers).set(key, value);
        client
    };
    let admin: AdminClient<_> = client("client.id", "test").create().unwrap();
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();

    let producer: FutureProducer = client("transactional.id", &topic).create().unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(FutureRecord::to(&topic).key("7").payload("{}"), DEADLINE).await.unwrap();
    producer.commit_transaction(DEADLINE).unwrap();

    let consumer: BaseConsumer = client("group.id", &topic).create().unwrap();
    // The record, and the end of its transaction, which is written behind the answer.
    let (head, deadline) = (2, Instant::now() + DEADLINE);
    while consumer.fetch_watermarks(&topic, 0, DEADLINE).unwrap().1 < head {
        assert!(Instant::now() < deadline, "the transaction does not end");
        sleep(POLL).await;
    }
    let group = Group::new(&brokers, &topic).unwrap();
    for (stored, is_behind) in [(0, true), (1, false), (2, false)] {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Offset(stored)).unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
        assert_eq!(group.behind(&[(&topic, 0, head)]).unwrap().is_some(), is_behind, "stored: {stored}");
    }
    admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
}
