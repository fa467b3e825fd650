//! A core-services process with a database of its own, and the clients to speak to it.

use std::{
    env, fs,
    net::TcpListener,
    ops::Range,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use proto::{
    Keys,
    rpc::v1::{CreateMessageRequest, CreateMessageResponse, message_service_client::MessageServiceClient},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool, Row as _, mysql::MySqlPoolOptions};
use tokio::time::{Instant, sleep};
use tonic::{Request, Status, transport::Channel};

/// Nothing in these tests takes longer unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at a fact that is waited for.
pub const POLL: Duration = Duration::from_millis(20);

/// Below those that Linux takes for connections.
const PORTS: Range<u16> = 20_000..32_000;

/// A running core-services; killed when dropped. Its database is dropped by [`Core::finish`].
pub struct Core {
    process: Child,
    pub database: String,
    /// Of its database.
    pub mysql: String,
    pub db: MySqlPool,
    pub rest: String,
    admin: String,
    pub grpc: Channel,
    /// The keys of its Redis.
    pub keys: Keys,
    folder: std::path::PathBuf,
    /// The environment that configures it.
    env: Vec<(String, String)>,
}

/// A registered user.
#[derive(Clone)]
pub struct User {
    /// 0 for a service.
    pub id: i64,
    pub token: String,
}

/// Of the service client that every core of these tests has.
pub const SERVICE: (&str, &str) = ("gateway", "a secret of the tests");

/// The stack's engines, as endpoints.json has them.
pub struct Engines {
    pub mysql: String,
    pub redis: String,
    pub kafka: String,
}

pub fn engines() -> Engines {
    let path = env::var("SWITCHBOARD_ENDPOINTS")
        .expect("SWITCHBOARD_ENDPOINTS is not set: run these tests by `cargo xtask test`");
    let endpoints: Value = serde_json::from_slice(&fs::read(&path).expect("endpoints.json")).expect("endpoints.json");
    let text = |name: &str| endpoints[name].as_str().expect("a text in endpoints.json").to_owned();
    Engines { mysql: text("mysql"), redis: text("redis"), kafka: text("kafka") }
}

/// A port that nobody listens on, and that the system gives to no connection: some are bound seconds later only.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let length = u32::from(PORTS.end - PORTS.start);
    // Another process of these tests begins elsewhere.
    let from = std::process::id().wrapping_mul(131);
    for _ in 0..length {
        let next = from.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % length;
        let port = PORTS.start + u16::try_from(next).expect("it is below the length of the range");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

fn spawn(env: &[(String, String)], folder: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("core.log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_core-services"));
    command.envs(env.to_vec()).stderr(Stdio::from(log)).spawn().expect("core-services starts")
}

impl Core {
    /// Makes a database, starts a process on it, and waits until it is ready.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// [`Core::start`] with some keys of the configuration set: section, two underscores, key.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut core = Self::launch(settings).await;
        core.until_ready(|status, _| status == 200).await;
        core
    }

    /// Starts a process with a database of its own, and waits for nothing.
    pub async fn launch(settings: &[(&str, &str)]) -> Self {
        let engines = engines();
        let name = uuid::Uuid::now_v7().simple().to_string();
        let database = format!("chat_test_{name}");
        let server = engines.mysql.strip_suffix("/chat").expect("the database of endpoints.json is chat");
        let pool =
            |url: String| MySqlPoolOptions::new().max_connections(8).acquire_timeout(DEADLINE).connect_lazy(&url);
        let admin = pool(engines.mysql.clone()).unwrap();
        run(&admin, &format!("CREATE DATABASE {database}")).await;
        let url = format!("{server}/{database}");
        let db = pool(url.clone()).unwrap();

        let folder = env::temp_dir().join(format!("switchboard-test-{name}"));
        fs::create_dir_all(&folder).unwrap();
        let (listen, admin_port) = (free_port(), free_port());
        let rest = format!("http://127.0.0.1:{listen}");
        let (secret_file, prefix) = (folder.join("gateway.secret"), format!("test:{name}:"));
        fs::write(&secret_file, SERVICE.1).unwrap();
        let clients = json!([{ "client_id": SERVICE.0, "secret_file": secret_file,
            "scopes": ["messages:send_as", "connections:write", "conversations:read_any"] }]);
        let set = |key: &str, value: &str| (format!("SWITCHBOARD__{key}"), value.to_owned());
        let mut env = vec![
            set("SERVER__LISTEN", &format!("127.0.0.1:{listen}")),
            set("ADMIN__LISTEN", &format!("127.0.0.1:{admin_port}")),
            set("MYSQL__URL", &url),
            set("REDIS__URL", &engines.redis),
            set("REDIS__KEY_PREFIX", &prefix),
            set("KAFKA__BROKERS", &engines.kafka),
            set("AUTH__ISSUER", &rest),
            set("AUTH__KEY_DIR", folder.to_str().expect("a path in UTF-8")),
            set("AUTH__SERVICE_CLIENTS", &clients.to_string()),
            set("LOG__FILTER", "warn"),
        ];
        env.extend(settings.iter().map(|(key, value)| set(key, value)));
        let process = spawn(&env, &folder);
        let grpc = Channel::from_shared(rest.clone()).unwrap().connect_lazy();
        let admin = format!("http://127.0.0.1:{admin_port}");
        Self { process, database, mysql: url, db, rest, admin, grpc, keys: Keys::new(prefix), folder, env }
    }

    /// Starts the process again after its end, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.process = spawn(&self.env, &self.folder);
        self.until_ready(|status, _| status == 200).await;
    }

    /// Another process with the same configuration.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_core-services"));
        command.envs(self.env.clone());
        command
    }

    /// Waits until `/readyz` answers as wanted: status and JSON.
    pub async fn until_ready(&mut self, wanted: impl Fn(u16, &Value) -> bool) {
        let (url, deadline) = (format!("{}/readyz", self.admin), Instant::now() + DEADLINE);
        loop {
            let answer = request("GET", &url, &[], String::new()).await;
            if answer.as_ref().is_some_and(|(status, body)| wanted(*status, body)) {
                return;
            }
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("core-services ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "/readyz says {answer:?}: {}", self.log());
            sleep(POLL).await;
        }
    }

    /// SIGTERM, and how the process ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "core-services does not end: {}", self.log());
            sleep(POLL).await;
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("core.log")).unwrap_or_default()
    }

    /// SIGKILL, and the end of the process.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub async fn register(&self, name: &str) -> User {
        let body = json!({ "email": format!("{name}@example.com"), "username": name, "password": "correct horse 1" });
        user(&self.post("/auth/register", None, &body).await)
    }

    /// The service client, with all its scopes.
    pub async fn service(&self) -> User {
        let fields = [("grant_type", "client_credentials"), ("client_id", SERVICE.0), ("client_secret", SERVICE.1)];
        let answer: Value =
            chassis::http::post_form(&format!("{}/oauth2/token", self.rest), &fields).await.expect("a token");
        User { id: 0, token: answer["access_token"].as_str().unwrap().to_owned() }
    }

    /// A connection to the Redis of the stack.
    pub async fn redis(&self) -> redis::aio::MultiplexedConnection {
        redis::Client::open(engines().redis).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// A channel of its own for `owner`.
    pub async fn channel(&self, owner: &User) -> i64 {
        let body = json!({ "kind": "channel", "name": "test", "visibility": "public", "member_ids": [] });
        id(&self.post("/api/v1/conversations", Some(owner), &body).await["id"])
    }

    /// Any REST call: status and JSON (null when there is none).
    pub async fn call(&self, method: &str, path: &str, user: Option<&User>, body: Value) -> (u16, Value) {
        let bearer = user.map(|user| format!("Bearer {}", user.token));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.iter().map(|bearer| ("authorization", bearer.as_str())));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        request(method, &format!("{}{path}", self.rest), &headers, body).await.expect("core answers")
    }

    /// A POST that succeeds.
    pub async fn post(&self, path: &str, user: Option<&User>, body: &Value) -> Value {
        let (status, answer) = self.call("POST", path, user, body.clone()).await;
        assert!((200..300).contains(&status), "{path}: {status}: {answer}");
        answer
    }

    pub fn messages(&self) -> MessageServiceClient<Channel> {
        MessageServiceClient::new(self.grpc.clone())
    }

    /// One message by the unary call.
    pub async fn send(
        &self,
        user: &User,
        conversation_id: i64,
        client_message_id: &str,
        body: &str,
    ) -> Result<CreateMessageResponse, Status> {
        let message = CreateMessageRequest {
            conversation_id,
            body: body.to_owned(),
            client_message_id: client_message_id.to_owned(),
            ..CreateMessageRequest::default()
        };
        self.messages().create_message(user.request(message)).await.map(tonic::Response::into_inner)
    }

    /// Every message row has its event and every MESSAGE event its row; seqs run from 1 to the head without a gap.
    pub async fn assert_whole(&self, conversation: i64) {
        let orphans = "SELECT
            (SELECT COUNT(*) FROM messages m LEFT JOIN message_producer_outbox o
                ON o.conversation_id = m.conversation_id AND o.seq = m.seq
                WHERE m.conversation_id = ? AND o.seq IS NULL) AS rows_without_event,
            (SELECT COUNT(*) FROM message_producer_outbox o LEFT JOIN messages m
                ON m.conversation_id = o.conversation_id AND m.seq = o.seq
                WHERE o.conversation_id = ? AND o.type = 'MESSAGE' AND m.seq IS NULL) AS events_without_row,
            (SELECT COUNT(DISTINCT seq) FROM message_producer_outbox WHERE conversation_id = ?) AS events,
            (SELECT MAX(seq) FROM message_producer_outbox WHERE conversation_id = ?) AS newest,
            (SELECT last_seq FROM conversations WHERE id = ?) AS head";
        let mut query = sqlx::query(orphans);
        for _ in 0..5 {
            query = query.bind(conversation);
        }
        let row = query.fetch_one(&self.db).await.unwrap();
        let number = |name: &str| row.get::<i64, _>(name);
        assert_eq!((number("rows_without_event"), number("events_without_row")), (0, 0));
        assert_eq!((number("events"), number("newest")), (number("head"), number("head")), "a gap in seq");
    }

    /// How many rows the messages with this idempotency key have.
    pub async fn rows_of(&self, client_message_id: &str) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM messages WHERE client_message_id = ?")
            .bind(client_message_id)
            .fetch_one(&self.db)
            .await
            .unwrap()
    }

    /// Waits until a session of this database runs a statement that contains `statement`; its id.
    pub async fn session_running(&self, statement: &str) -> u64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found: Option<u64> = sqlx::query_scalar(
                "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = ? AND INFO LIKE ? AND ID <> CONNECTION_ID()",
            )
            .bind(&self.database)
            .bind(format!("%{statement}%"))
            .fetch_optional(&self.db)
            .await
            .unwrap();
            if let Some(session) = found {
                return session;
            }
            assert!(Instant::now() < deadline, "no session came to run {statement:?}: {}", self.log());
            sleep(POLL).await;
        }
    }

    /// What foreign keys would see to where partitions allow none.
    pub async fn assert_no_orphans(&self) {
        for orphan in [
            "messages m LEFT JOIN conversations c ON c.id = m.conversation_id WHERE c.id IS NULL",
            "messages m LEFT JOIN users u ON u.id = m.sender_id WHERE u.id IS NULL",
            "messages m LEFT JOIN messages r ON r.conversation_id = m.conversation_id AND r.id = m.thread_root_id
                WHERE m.thread_root_id IS NOT NULL AND r.id IS NULL",
            "messages m LEFT JOIN conversation_members i ON i.conversation_id = m.conversation_id
                AND i.user_id = m.sender_id AND m.seq BETWEEN i.joined_seq AND COALESCE(i.left_seq, m.seq)
                WHERE i.user_id IS NULL",
            "conversation_members i LEFT JOIN conversations c ON c.id = i.conversation_id
                WHERE c.id IS NULL OR i.joined_seq > c.last_seq OR i.left_seq > c.last_seq",
            "conversation_members i LEFT JOIN users u ON u.id = i.user_id
                WHERE u.id IS NULL OR i.joined_user_seq > u.user_seq OR i.left_user_seq > u.user_seq",
            "message_acks a LEFT JOIN conversations c ON c.id = a.conversation_id WHERE c.id IS NULL",
            "message_acks a LEFT JOIN users u ON u.id = a.user_id WHERE u.id IS NULL",
            "message_producer_outbox o LEFT JOIN conversations c ON c.id = o.conversation_id
                WHERE o.aggregatetype = 'message' AND (c.id IS NULL OR o.seq IS NULL OR o.aggregateid <> c.id)",
            "message_producer_outbox o LEFT JOIN users u ON u.id = o.subject_id
                WHERE o.aggregatetype = 'user' AND (u.id IS NULL OR o.aggregateid <> u.id)",
        ] {
            let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {orphan}")))
                .fetch_one(&self.db)
                .await
                .unwrap();
            assert_eq!(count, 0, "{orphan}");
        }
    }

    /// Looks for orphans, ends the process and drops the database. Left undone when a test fails, to be looked at.
    pub async fn finish(self) {
        self.assert_no_orphans().await;
        self.discard().await;
    }

    /// Ends the process and drops the database, whatever is in it.
    pub async fn discard(mut self) {
        self.kill();
        let database = self.database.clone();
        run(&self.db, &format!("DROP DATABASE {database}")).await;
        // A leftover in the temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl User {
    /// A call in this user's name.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        request
    }
}

/// A call over HTTP/1.1; nothing when nobody answers.
pub async fn request(method: &str, url: &str, headers: &[(&str, &str)], body: String) -> Option<(u16, Value)> {
    let request = headers
        .iter()
        .fold(http::Request::builder().method(method).uri(url), |request, (name, value)| request.header(*name, *value))
        .body(axum::body::Body::from(body))
        .unwrap();
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let answer = client.request(request).await.ok()?;
    let status = answer.status().as_u16();
    let body = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 1 << 20).await.ok()?;
    Some((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// Who registered or logged in.
pub fn user(answer: &Value) -> User {
    User { id: id(&answer["user"]["id"]), token: answer["access_token"].as_str().unwrap().to_owned() }
}

/// The stable code of a failed call.
pub fn code(status: &Status) -> &str {
    status.metadata().get("code").map_or("", |code| code.to_str().unwrap())
}

/// An id as it stands in JSON.
pub fn id(value: &Value) -> i64 {
    value.as_str().expect("an id is a decimal text").parse().expect("an id is a decimal text")
}

/// A statement without parameters on any connection of the pool.
pub async fn run(db: &MySqlPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(db).await.unwrap();
}

/// A statement without parameters on this connection.
pub async fn run_on(connection: &mut MySqlConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.unwrap();
}
