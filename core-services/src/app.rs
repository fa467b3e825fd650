//! Puts the parts together, waits for the dependencies, serves, drains.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use chassis::{Backoff, Dependency, Lifecycle, Process, Readiness, Subcommand, hops::HopRing};
use prometheus_client::registry::Registry as MetricsRegistry;
use sqlx::migrate::Migrate as _;

use crate::{
    auth::{clients::Clients, keys::SigningKeys, password::Passwords, sessions::Sessions, tokens::Tokens},
    config::Config,
    connection::Registry,
    conversation::Conversations,
    db::{Db, MIGRATIONS},
    kafka::{producer::Producer, topics},
    message::{
        acks::Acks,
        writer::{Context, Writers},
    },
    metrics::Metrics,
    node_lease, server,
    snowflake::Snowflakes,
    user::Users,
};

/// Between two looks at a dependency, and how long an answer may take.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Commands beside serving.
pub const COMMANDS: &[Subcommand] = &[Subcommand {
    name: "migrate",
    about: "Apply the migrations of sql/ and exit",
    flags: &[("status", "Only say which are applied and which are pending")],
}];

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
    let (migrating, topics) = (db.clone(), config.kafka.clone());
    let migrated = until_done(mysql.clone(), move || {
        let db = migrating.clone();
        async move { db.migrate().await }
    });
    let made = until_done(kafka.clone(), move || {
        let topics = topics.clone();
        async move { topics::ensure(&topics).await }
    });
    tokio::select! {
        _ = async { tokio::join!(migrated, made) } => {}
        () = draining.cancelled() => return Ok(()),
    }
    let ids = Arc::new(Snowflakes::default());
    let lease = node_lease::keep(db.clone(), Arc::clone(&ids), config.ids.lease, process.lifecycle.draining());
    process.lifecycle.spawn("node lease", lease);
    watch(&process, mysql, redis, kafka, &db, &registry, &producer);

    let context = Context {
        db: db.clone(),
        ids: Arc::clone(&ids),
        metrics,
        hops,
        acks: Acks::start(&process.lifecycle, db.clone()),
        max_batch: config.messages.max_batch,
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
    server::serve(app).await
}

/// Tries again until it works; says why it does not meanwhile.
async fn until_done<F: Future<Output = anyhow::Result<()>>>(dependency: Dependency, mut attempt: impl FnMut() -> F) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    while let Err(error) = attempt().await {
        dependency.down(format!("{error:#}"));
        tokio::time::sleep(backoff.next_delay()).await;
    }
    dependency.up();
}

/// Looks at each dependency every so often, in a task of its own.
fn watch(
    process: &Process,
    mysql: Dependency,
    redis: Dependency,
    kafka: Dependency,
    db: &Db,
    registry: &Registry,
    producer: &Producer,
) {
    let db = db.clone();
    look_at(process, mysql, move || {
        let db = db.clone();
        async move { Ok(sqlx::query("SELECT 1").execute(db.pool()).await.map(drop)?) }
    });
    let registry = registry.clone();
    look_at(process, redis, move || {
        let registry = registry.clone();
        async move { Ok(registry.ping().await?) }
    });
    let producer = producer.clone();
    look_at(process, kafka, move || {
        let producer = producer.clone();
        async move { Ok(tokio::task::spawn_blocking(move || producer.check(CHECK_EVERY)).await??) }
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

/// `migrate`: applies what is pending; with `--status` only says what is.
pub async fn command(_: String, flags: Vec<String>, config: Config, _: Process) -> anyhow::Result<()> {
    let db = Db::new(&config.mysql)?;
    if !flags.is_empty() {
        return migration_status(&db).await;
    }
    db.migrate().await?;
    println!("{} migrations are applied", MIGRATIONS.iter().count());
    Ok(())
}

async fn migration_status(db: &Db) -> anyhow::Result<()> {
    let mut session = db.pool().acquire().await.context("connecting to MySQL")?;
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
