//! Routes beside health and metrics: which gateways hold which conversation, and where this worker's partitions stand.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use proto::{ConversationId, Keys};
use redis::{Pipeline, RedisError, RedisResult, from_redis_value};
use serde::{Deserialize, Serialize};
use tokio::time::{error::Elapsed, timeout};

use crate::{coordinator::View, redis_link::RedisLink};

/// Conversations on one page, at most about this many (Redis may give a few more).
const MAX_LIMIT: usize = 1000;
/// For an answer of Redis, connecting included.
const PATIENCE: Duration = Duration::from_secs(3);
/// Steps of SCAN for one page: a page may be short, or empty, with a `next_cursor`.
const SCAN_STEPS: usize = 50;

#[derive(Clone)]
pub struct Admin {
    pub link: RedisLink,
    pub keys: Keys,
    pub view: View,
}

pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/routing", get(routing))
        .route("/routing/{conversation}", get(routing_of))
        .route("/partitions", get(partitions))
        .with_state(Arc::new(admin))
}

/// Where the events of a conversation go.
#[derive(Debug, Serialize)]
struct Route {
    conversation_id: ConversationId,
    gateways: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
struct PartitionStatus {
    topic: String,
    partition: i32,
    /// The next offset to read after a restart; null before the first record.
    next_offset: Option<i64>,
    head: i64,
    lag: i64,
    queued_records: usize,
    queued_bytes: usize,
    paused: bool,
}

#[derive(Debug, Deserialize)]
struct Paging {
    #[serde(default = "default_limit")]
    limit: usize,
    #[serde(default)]
    cursor: u64,
}

fn default_limit() -> usize {
    100
}

/// Redis did not answer, or not in time.
struct Unavailable(String);

impl From<RedisError> for Unavailable {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

impl From<Elapsed> for Unavailable {
    fn from(_: Elapsed) -> Self {
        Self(format!("no answer within {PATIENCE:?}"))
    }
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        tracing::warn!(error = %self.0, "the routing view could not be read");
        let body = serde_json::json!({ "code": "unavailable", "message": "Redis did not answer" });
        (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
    }
}

async fn routing(
    State(admin): State<Arc<Admin>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Route>>, Unavailable> {
    Ok(Json(timeout(PATIENCE, page(&admin, paging)).await??))
}

async fn page(admin: &Admin, paging: Paging) -> RedisResult<Page<Route>> {
    let limit = paging.limit.clamp(1, MAX_LIMIT);
    let mut cursor = paging.cursor;
    let mut conversations = Vec::new();
    for _ in 0..SCAN_STEPS {
        let mut pipeline = Pipeline::new();
        let pattern = admin.keys.conversation_interest_pattern();
        pipeline.cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(limit);
        let (next, found) = one::<(u64, Vec<String>)>(admin, pipeline).await?;
        conversations.extend(found.iter().filter_map(|key| admin.keys.conversation_of_interest_key(key)));
        cursor = next;
        if cursor == 0 || conversations.len() >= limit {
            break;
        }
    }
    conversations.sort_unstable();
    conversations.dedup();
    let items = routes(admin, &conversations).await?;
    Ok(Page { items, next_cursor: (cursor != 0).then(|| cursor.to_string()) })
}

async fn routing_of(
    State(admin): State<Arc<Admin>>,
    Path(conversation): Path<i64>,
) -> Result<Json<Route>, Unavailable> {
    let mut routes = timeout(PATIENCE, routes(&admin, &[conversation])).await??;
    Ok(Json(routes.remove(0)))
}

async fn routes(admin: &Admin, conversations: &[i64]) -> RedisResult<Vec<Route>> {
    let mut pipeline = Pipeline::with_capacity(conversations.len());
    for conversation in conversations {
        pipeline.cmd("SMEMBERS").arg(admin.keys.conversation_interest(*conversation));
    }
    let answers = admin.link.run(pipeline).await?;
    let routes = conversations.iter().zip(answers).map(|(conversation, answer)| {
        let mut gateways: Vec<String> = from_redis_value(answer?)?;
        gateways.sort_unstable();
        Ok(Route { conversation_id: ConversationId(*conversation), gateways })
    });
    routes.collect()
}

async fn one<T: redis::FromRedisValue>(admin: &Admin, pipeline: Pipeline) -> RedisResult<T> {
    let mut answers = admin.link.run(pipeline).await?;
    Ok(from_redis_value(answers.remove(0)?)?)
}

async fn partitions(State(admin): State<Arc<Admin>>) -> Json<Page<PartitionStatus>> {
    let items = admin.view.partitions().into_iter().map(|(id, progress)| PartitionStatus {
        topic: id.topic.to_string(),
        partition: id.partition,
        next_offset: progress.watermark.next(),
        head: progress.head.load(Ordering::Relaxed),
        lag: progress.lag(),
        queued_records: progress.queued_records.load(Ordering::Relaxed),
        queued_bytes: progress.queued_bytes.load(Ordering::Relaxed),
        paused: progress.paused.load(Ordering::Relaxed),
    });
    Json(Page { items: items.collect(), next_cursor: None })
}
