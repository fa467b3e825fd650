//! The configuration; `config/default.yaml` says what each key means.

use std::{path::PathBuf, time::Duration};

use chassis::{
    Validate,
    config::{Listen, Log, Shutdown, bytes, duration},
};
use serde::Deserialize;

use crate::stomp;

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$attr])* pub $field: $type,)* }
    };
}

section!(/// All of it.
Config {
    server: Server,
    admin: Listen,
    log: Log,
    shutdown: Shutdown,
    gateway: Gateway,
    core: Core,
    auth: Auth,
    redis: Redis,
    registration: Registration,
    hub: Hub,
    websocket: WebSocket,
    sockjs: Sockjs,
    stomp: Stomp,
    session: Session,
    limits: Limits,
    drain: Drain,
    hops: Hops,
});

section!(/// The listener for clients.
Server {
    listen: std::net::SocketAddr,
    backlog: u32,
    #[serde(with = "bytes")]
    send_buffer: usize,
    #[serde(with = "duration")]
    header_timeout: Duration,
    trusted_proxies: Vec<std::net::IpAddr>,
});

section!(Gateway { id: String });

section!(/// Calls to core.
Core {
    endpoints: Vec<String>,
    #[serde(with = "duration")]
    connect_timeout: Duration,
    #[serde(with = "duration")]
    request_timeout: Duration,
    #[serde(with = "duration")]
    open_timeout: Duration,
    #[serde(with = "duration")]
    breaker_time: Duration,
    #[serde(with = "duration")]
    keep_alive_interval: Duration,
    #[serde(with = "duration")]
    keep_alive_timeout: Duration,
    sends_in_flight: usize,
    sends_queued: usize,
    batch: usize,
    batches_in_flight: usize,
    log_reads: usize,
    log_page: u32,
    #[serde(with = "bytes")]
    log_page_bytes: usize,
    #[serde(with = "bytes")]
    max_answer: usize,
});

section!(/// Whose tokens are taken, and which service this is.
Auth {
    issuer: String,
    client_id: String,
    client_secret_file: PathBuf,
});

section!(Redis {
    url: String,
    key_prefix: String,
    #[serde(with = "duration")]
    connect_timeout: Duration,
    #[serde(with = "duration")]
    response_timeout: Duration,
});

section!(/// Lease, stream and registered connections.
Registration {
    #[serde(with = "duration")]
    lease_ttl: Duration,
    #[serde(with = "duration")]
    lease_renewal: Duration,
    read_count: usize,
    #[serde(with = "duration")]
    trim_interval: Duration,
    #[serde(with = "duration")]
    ping_interval: Duration,
    batch: usize,
});

section!(/// Conversations and users that are served here.
Hub {
    shards: usize,
    queue: usize,
    ring_events: usize,
    #[serde(with = "bytes")]
    ring_bytes: usize,
    #[serde(with = "duration")]
    ring_age: Duration,
    #[serde(with = "bytes")]
    pending_bytes: usize,
    #[serde(with = "bytes")]
    replay_bytes: usize,
    #[serde(with = "duration")]
    linger: Duration,
    #[serde(with = "duration")]
    compare_interval: Duration,
    #[serde(with = "duration")]
    attach_timeout: Duration,
});

section!(WebSocket {
    allowed_origins: Vec<String>,
    compression: bool,
    #[serde(with = "bytes")]
    compression_min: usize,
    #[serde(with = "bytes")]
    max_message: usize,
    #[serde(with = "bytes")]
    max_frame: usize,
    #[serde(with = "duration")]
    close_timeout: Duration,
});

section!(Sockjs {
    websocket: bool,
    cookie_needed: bool,
    client_url: String,
    #[serde(with = "duration")]
    disconnect_delay: Duration,
    #[serde(with = "duration")]
    heartbeat: Duration,
    #[serde(with = "bytes")]
    response_limit: usize,
    #[serde(with = "bytes")]
    max_send: usize,
    #[serde(with = "bytes")]
    receive_queue: usize,
    #[serde(with = "bytes")]
    max_session_id: usize,
});

section!(Stomp {
    #[serde(with = "bytes")]
    max_line: usize,
    max_headers: usize,
    #[serde(with = "bytes")]
    max_head: usize,
    #[serde(with = "bytes")]
    max_body: usize,
});

section!(Session {
    #[serde(with = "duration")]
    connect_timeout: Duration,
    #[serde(with = "duration")]
    heart_beat_send: Duration,
    #[serde(with = "duration")]
    heart_beat_receive: Duration,
    #[serde(with = "duration")]
    heart_beat_tolerance: Duration,
    #[serde(with = "duration")]
    send_deadline: Duration,
    #[serde(with = "duration")]
    retry_base: Duration,
    #[serde(with = "duration")]
    retry_max: Duration,
    #[serde(with = "duration")]
    typing_interval: Duration,
});

section!(Limits {
    connections: usize,
    #[serde(with = "duration")]
    retry_after: Duration,
    connections_per_user: usize,
    connections_per_address: usize,
    subscriptions: usize,
    resumed_conversations: usize,
    sends_in_flight: usize,
    sends_per_second: u32,
    sends_burst: u32,
    subscribes_per_second: u32,
    subscribes_burst: u32,
    #[serde(with = "bytes")]
    message_body: usize,
    #[serde(with = "bytes")]
    id: usize,
    transactions: usize,
    transaction_frames: usize,
    #[serde(with = "bytes")]
    transaction_bytes: usize,
    unacknowledged: usize,
    #[serde(with = "bytes")]
    outgoing: usize,
    #[serde(with = "bytes")]
    replay_low_water: usize,
});

section!(Drain {
    #[serde(with = "duration")]
    window: Duration,
    #[serde(with = "duration")]
    sends: Duration,
});

section!(Hops { capacity: usize });

impl Stomp {
    pub fn limits(&self) -> stomp::Limits {
        stomp::Limits { line: self.max_line, headers: self.max_headers, head: self.max_head, body: self.max_body }
    }
}

/// What a semaphore can count, and more than anybody wants.
const REPLAY_BYTES_MAX: usize = 4 << 30;
/// Above what core waits for rows that are being changed.
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_secs(3);

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        let id_is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let positive = [
            ("server.backlog", self.server.backlog as usize),
            ("server.send_buffer", self.server.send_buffer),
            ("core.sends_in_flight", self.core.sends_in_flight),
            ("core.sends_queued", self.core.sends_queued),
            ("core.batch", self.core.batch),
            ("core.batches_in_flight", self.core.batches_in_flight),
            ("core.log_reads", self.core.log_reads),
            ("core.log_page", self.core.log_page as usize),
            ("core.log_page_bytes", self.core.log_page_bytes),
            ("registration.read_count", self.registration.read_count),
            ("registration.batch", self.registration.batch),
            ("hub.queue", self.hub.queue),
            ("sockjs.response_limit", self.sockjs.response_limit),
            ("sockjs.receive_queue", self.sockjs.receive_queue),
            ("sockjs.max_session_id", self.sockjs.max_session_id),
            ("limits.replay_low_water", self.limits.replay_low_water),
            ("limits.sends_in_flight", self.limits.sends_in_flight),
            ("limits.sends_per_second", self.limits.sends_per_second as usize),
            ("limits.sends_burst", self.limits.sends_burst as usize),
            ("limits.subscribes_per_second", self.limits.subscribes_per_second as usize),
            ("limits.subscribes_burst", self.limits.subscribes_burst as usize),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} must be above 0"));
        }
        let client_url = &self.sockjs.client_url;
        let rules: [(bool, &str); 21] = [
            (
                !self.gateway.id.is_empty() && self.gateway.id.chars().all(id_is_safe),
                "gateway.id must be letters, digits, dashes and dots",
            ),
            (!self.core.endpoints.is_empty(), "core.endpoints must name at least one core"),
            (
                self.registration.lease_renewal * 2 < self.registration.lease_ttl,
                "registration.lease_renewal must be under half of registration.lease_ttl",
            ),
            (
                self.redis.response_timeout < self.registration.lease_ttl,
                "redis.response_timeout must be under registration.lease_ttl",
            ),
            (
                self.core.open_timeout < self.core.request_timeout,
                "core.open_timeout must be under core.request_timeout",
            ),
            (
                self.core.request_timeout >= REQUEST_TIMEOUT_MIN,
                "core.request_timeout must be at least 3s: core waits up to 2s for rows that are being changed",
            ),
            (!self.core.breaker_time.is_zero(), "core.breaker_time must be above 0s"),
            (
                self.core.request_timeout < self.hub.attach_timeout,
                "hub.attach_timeout must be longer than core.request_timeout",
            ),
            (
                self.core.log_page_bytes <= self.hub.replay_bytes && self.hub.replay_bytes <= REPLAY_BYTES_MAX,
                "hub.replay_bytes must not be below core.log_page_bytes, nor above 4GiB",
            ),
            (!self.hub.compare_interval.is_zero(), "hub.compare_interval must be above 0s"),
            (
                self.stomp.max_body <= self.websocket.max_message,
                "websocket.max_message must not be below stomp.max_body",
            ),
            (self.stomp.max_body <= self.sockjs.max_send, "sockjs.max_send must not be below stomp.max_body"),
            (!self.sockjs.disconnect_delay.is_zero(), "sockjs.disconnect_delay must be above 0s"),
            (!self.sockjs.heartbeat.is_zero(), "sockjs.heartbeat must be above 0s"),
            (
                (client_url.starts_with('/') || client_url.starts_with("http"))
                    && !client_url.contains(['"', '<', '>']),
                "sockjs.client_url must be a path or an http(s) URL",
            ),
            (
                self.websocket.allowed_origins.iter().all(|origin| is_origin(origin)),
                "websocket.allowed_origins must be \"*\", \"null\" or as browsers write them: https://chat.example, with a \
                 port where it is not the usual one, nothing behind it, no wildcard in it",
            ),
            (
                self.websocket.max_frame <= self.websocket.max_message,
                "websocket.max_frame must not be above websocket.max_message",
            ),
            (self.limits.message_body <= self.stomp.max_body, "limits.message_body must not be above stomp.max_body"),
            (
                self.limits.subscriptions <= self.limits.subscribes_burst as usize,
                "limits.subscribes_burst must not be below limits.subscriptions",
            ),
            (
                self.limits.replay_low_water < self.limits.outgoing,
                "limits.replay_low_water must be under limits.outgoing",
            ),
            (
                self.drain.window + self.drain.sends < self.shutdown.grace,
                "shutdown.grace must be longer than drain.window and drain.sends together",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, message)) => Err(message.to_owned()),
            None => Ok(()),
        }
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}

/// Whether a browser could send that as its `Origin`, or it stands for any.
fn is_origin(text: &str) -> bool {
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    matches!(text, "*" | "null" | "file://")
        || text.split_once("://").is_some_and(|(scheme, authority)| {
            [scheme, authority].iter().all(|part| !part.is_empty() && part.chars().all(is_host))
        })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn load(env: &[(&str, &str)]) -> Result<Config, String> {
        let env = env.iter().map(|(name, value)| (format!("SWITCHBOARD__{name}"), (*value).to_owned()));
        chassis::config::load(include_str!("../config/default.yaml"), None, env).map_err(|error| error.to_string())
    }

    #[test]
    fn the_commented_defaults_are_valid() {
        load(&[]).unwrap();
    }

    #[test]
    fn relations_between_keys_are_refused_by_both_names() {
        for (key, value, names) in [
            ("REGISTRATION__LEASE_RENEWAL", "4s", ["registration.lease_renewal", "registration.lease_ttl"]),
            ("STOMP__MAX_BODY", "2MiB", ["websocket.max_message", "stomp.max_body"]),
            ("SOCKJS__MAX_SEND", "128KiB", ["sockjs.max_send", "stomp.max_body"]),
            ("LIMITS__MESSAGE_BODY", "300KiB", ["limits.message_body", "stomp.max_body"]),
            ("LIMITS__SUBSCRIBES_BURST", "255", ["limits.subscribes_burst", "limits.subscriptions"]),
            ("LIMITS__OUTGOING", "64KiB", ["limits.replay_low_water", "limits.outgoing"]),
            ("SHUTDOWN__GRACE", "9s", ["shutdown.grace", "drain.window"]),
            ("HUB__REPLAY_BYTES", "128KiB", ["hub.replay_bytes", "core.log_page_bytes"]),
            ("CORE__REQUEST_TIMEOUT", "20s", ["hub.attach_timeout", "core.request_timeout"]),
            ("CORE__OPEN_TIMEOUT", "5s", ["core.open_timeout", "core.request_timeout"]),
        ] {
            let message = load(&[(key, value)]).unwrap_err();
            assert!(names.iter().all(|name| message.contains(name)), "{message}");
        }
        assert!(load(&[("CORE__REQUEST_TIMEOUT", "2900ms")]).unwrap_err().contains("core.request_timeout"));
        assert!(load(&[("CORE__BREAKER_TIME", "0s")]).unwrap_err().contains("core.breaker_time"));
        assert!(load(&[("LIMITS__SUBSCRIBES_PER_SECOND", "0")]).unwrap_err().contains("limits.subscribes_per_second"));
        assert!(load(&[("LIMITS__REPLAY_LOW_WATER", "0")]).unwrap_err().contains("limits.replay_low_water"));
        assert!(load(&[("CORE__BATCH", "0")]).unwrap_err().contains("core.batch"));
        assert!(load(&[("SOCKJS__HEARTBEAT", "0s")]).unwrap_err().contains("sockjs.heartbeat"));
        assert!(load(&[("SOCKJS__CLIENT_URL", "/x\"><script>")]).unwrap_err().contains("sockjs.client_url"));
        for origin in ["https://chat.example/", "chat.example", "https://*.example", "https://a.example; script-src *"]
        {
            let message = load(&[("WEBSOCKET__ALLOWED_ORIGINS", &format!("[{origin:?}]"))]).unwrap_err();
            assert!(message.contains("websocket.allowed_origins"), "{origin}: {message}");
        }
        load(&[(
            "WEBSOCKET__ALLOWED_ORIGINS",
            r#"["null", "file://", "https://chat.example:8443", "http://[::1]:8080"]"#,
        )])
        .unwrap();
        assert!(load(&[("GATEWAY__ID", "a:b")]).unwrap_err().contains("gateway.id"));
        assert!(load(&[("HUB__SHARTS", "1")]).unwrap_err().contains("sharts"));
    }
}
