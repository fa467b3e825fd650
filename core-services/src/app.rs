//! Puts the parts together, waits for the dependencies, serves, drains.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use chassis::{Backoff, Dependency, Lifecycle, Process, Readiness, hops::HopRing};
use prometheus_client::registry::Registry as MetricsRegistry;
use sqlx::migrate::{Migrate as _, MigrateError};

use crate::{
    auth::{clients::Clients, keys::SigningKeys, password::Passwords, sessions::Sessions, tokens::Tokens},
    config::{self, Config},
    connection::Registry,
    conversation::Conversations,
    db::{Db, MIGRATIONS},
    epoch, import,
    kafka::{
        producer::Producer,
        topics::{self, TopicsError},
    },
    message::{
        acks::Acks,
        writer::{Context, Writers},
    },
    metrics::Metrics,
    node_lease,
    outbox::maintenance::Maintenance,
    server,
    snowflake::Snowflakes,
    user::Users,
};

/// Between two looks at a dependency, and how long an answer may take.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Bounds of the wait before a dependency that is needed at start is tried again.
const RETRY_FLOOR: Duration = Duration::from_millis(100);
const RETRY_CEILING: Duration = Duration::from_secs(3);

/// Commands beside serving.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Apply the migrations of sql/ and exit
    Migrate {
        /// Only say which are applied and which are pending
        #[arg(long)]
        status: bool,
    },
    /// The number of the history that the database holds
    #[command(subcommand)]
    Epoch(epoch::Command),
    /// Make and drop partitions of the outbox now, as a running core does every outbox.partitions.interval
    Partitions {
        /// Only say what is to be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Make users and conversations from NDJSON on standard input, answer each on standard output, and exit
    Import,
}

/// What every request handler has.
pub struct App {
    pub config: Config,
    pub lifecycle: Lifecycle,
    pub readiness: Readiness,
    pub db: Db,
    pub tokens: Arc<Tokens>,
    pub clients: Clients,
    pub users: Users,
    pub conversations: Conversations,
    pub registry: Registry,
    pub producer: Producer,
    pub writers: Writers,
}

/// Serves until drained.
pub async fn serve(config: Config, process: Process) -> anyhow::Result<()> {
    let mut metrics_registry = MetricsRegistry::default();
    let metrics = Metrics::new(&mut metrics_registry);
    let hops = HopRing::new(config.hops.capacity);
    let dependency = |name| process.readiness.dependency(name);
    let (mysql, redis, kafka) = (dependency("mysql"), dependency("redis"), dependency("kafka"));
    let node_id = dependency("node_id");
    process.serve_admin(config.admin.listen, metrics_registry, hops.router()).await?;

    let clients = Clients::load(&config.auth.service_clients).context("auth.service_clients")?;
    let key_dir = config.auth.key_dir.clone();
    let keys = tokio::task::spawn_blocking(move || SigningKeys::load_or_make(&key_dir)).await??;
    let db = Db::new(&config.mysql)?;
    let sessions = Sessions::new(db.clone(), config.auth.refresh_token_ttl);
    let passwords = Passwords::new(config.auth.hashes_at_once)?;
    let registry = Registry::new(&config.redis, &config.connections)?;
    let producer = Producer::new(&config.kafka, metrics.clone())?;

    let draining = process.lifecycle.draining();
    tokio::select! {
        migrated = migrate(&db, &mysql) => migrated?,
        () = draining.cancelled() => return Ok(()),
    }
    let listener = server::bind(&config.server).await?;
    let ids = Arc::new(Snowflakes::default());
    let lease = node_lease::keep(db.clone(), Arc::clone(&ids), config.ids.lease, node_id, draining);
    process.lifecycle.spawn("node lease", lease);
    watch(&process, mysql, redis, &db, &registry);
    // Not waited for: sends commit while Kafka is away.
    process.lifecycle.spawn("topics", make_topics(process.clone(), config.kafka.clone(), kafka, producer.clone()));

    let partitions = maintenance(db.clone(), &config, metrics.clone());
    process.lifecycle.spawn("outbox partitions", partitions.run(process.lifecycle.draining()));

    let context = Context {
        db: db.clone(),
        ids: Arc::clone(&ids),
        metrics,
        hops,
        acks: Acks::start(&process.lifecycle, db.clone()),
        max_batch: config.messages.max_batch,
        max_batch_bytes: config.messages.max_batch_bytes,
        pace: config.messages.pace.clone(),
    };
    let app = Arc::new(App {
        tokens: Tokens::new(config.auth.issuer.clone(), config.auth.access_token_ttl, keys, sessions.clone()),
        clients,
        users: Users { db: db.clone(), ids: Arc::clone(&ids), passwords, sessions },
        conversations: Conversations { db: db.clone(), ids, limits: config.conversations.clone() },
        registry,
        producer,
        writers: Writers::start(&process.lifecycle, &config.messages, &context),
        db,
        lifecycle: process.lifecycle.clone(),
        readiness: process.readiness.clone(),
        config,
    });
    server::serve(app, listener).await
}

fn maintenance(db: Db, config: &Config, metrics: Metrics) -> Maintenance {
    Maintenance { db, kafka: config.kafka.clone(), config: config.outbox.partitions.clone(), metrics }
}

/// Applies the migrations as soon as MySQL is there. One that can't be applied to this database is an error.
async fn migrate(db: &Db, mysql: &Dependency) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(RETRY_FLOOR, RETRY_CEILING);
    loop {
        match db.migrate().await {
            Ok(()) => break,
            Err(error @ (MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))) => {
                mysql.down(&error);
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(error) => return Err(error).context("applying the migrations of sql/"),
        }
    }
    mysql.up();
    Ok(())
}

/// Makes the topics as soon as Kafka is there, then watches it. Topics that don't fit end the process.
async fn make_topics(process: Process, config: config::Kafka, kafka: Dependency, producer: Producer) {
    let draining = process.lifecycle.draining();
    let mut backoff = Backoff::new(RETRY_FLOOR, RETRY_CEILING);
    loop {
        match topics::ensure(&config).await {
            Ok(()) => break,
            Err(error @ TopicsError::Partitions { .. }) => return process.lifecycle.fail(error.into()),
            Err(error) => kafka.down(&error),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            () = draining.cancelled() => return,
        }
    }
    look_at(&process, kafka, move || {
        let producer = producer.clone();
        async move { Ok(tokio::task::spawn_blocking(move || producer.check(CHECK_EVERY)).await??) }
    });
}

/// Looks at MySQL and Redis every so often, each in a task of its own.
fn watch(process: &Process, mysql: Dependency, redis: Dependency, db: &Db, registry: &Registry) {
    let db = db.clone();
    look_at(process, mysql, move || {
        let db = db.clone();
        async move { Ok(sqlx::query("SELECT 1").execute(&db).await.map(drop)?) }
    });
    let registry = registry.clone();
    look_at(process, redis, move || {
        let registry = registry.clone();
        async move { Ok(registry.ping().await?) }
    });
}

fn look_at<F>(process: &Process, dependency: Dependency, mut look: impl FnMut() -> F + Send + 'static)
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let draining = process.lifecycle.draining();
    process.lifecycle.spawn("dependency check", async move {
        loop {
            match tokio::time::timeout(CHECK_EVERY * 2, look()).await {
                Ok(Ok(())) => dependency.up(),
                Ok(Err(error)) => dependency.down(format!("{error:#}")),
                Err(_) => dependency.down("no answer in time"),
            }
            tokio::select! {
                () = tokio::time::sleep(CHECK_EVERY) => {}
                () = draining.cancelled() => return,
            }
        }
    });
}

/// Runs a command to its end.
pub async fn command(command: Command, config: Config, process: Process) -> anyhow::Result<()> {
    match command {
        Command::Partitions { dry_run } => {
            let metrics = Metrics::new(&mut MetricsRegistry::default());
            maintenance(Db::new(&config.mysql)?, &config, metrics).command(dry_run).await
        }
        Command::Epoch(command) => epoch::run(command, config).await,
        Command::Import => import::run(config, process).await,
        Command::Migrate { status: true } => migration_status(&Db::new(&config.mysql)?).await,
        Command::Migrate { status: false } => {
            Db::new(&config.mysql)?.migrate().await.context("applying the migrations of sql/")?;
            println!("{} migrations are applied", MIGRATIONS.iter().count());
            Ok(())
        }
    }
}

async fn migration_status(db: &Db) -> anyhow::Result<()> {
    let mut session = db.detached().await.context("connecting to MySQL")?;
    session.ensure_migrations_table(&MIGRATIONS.table_name).await?;
    let applied = session.list_applied_migrations(&MIGRATIONS.table_name).await?;
    for migration in MIGRATIONS.iter() {
        let state = match applied.iter().find(|applied| applied.version == migration.version) {
            Some(applied) if applied.checksum == migration.checksum => "applied",
            Some(_) => "CHANGED since it was applied",
            None => "pending",
        };
        println!("{:04} {:<40} {state}", migration.version, migration.description);
    }
    Ok(())
}
