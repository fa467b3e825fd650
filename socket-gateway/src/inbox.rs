//! The reader of this incarnation's stream: entries in, the hub's shards out, in order.
//!
//! It has a connection of its own, because XREAD BLOCK holds up whatever comes behind it. Reading starts at the
//! beginning: ids may run backwards between incarnations. What was read is trimmed now and then. A reader that fails
//! ends the incarnation.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proto::stream_entry::StreamEntry;
use redis::{RedisError, Value, aio::MultiplexedConnection};
use tokio::{sync::watch, time::Instant};
use tracing::warn;

use crate::{
    hub::{Arrival, Hub, Stamp},
    metrics::{Dropped, Metrics},
};

/// How long an XREAD waits for the first entry.
pub const BLOCK: Duration = Duration::from_secs(1);
/// The only field of the entry that a gateway creates its stream with.
const HELLO: &[u8] = b"hello";

/// The id of an entry: milliseconds and a number within them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    pub ms: u64,
    pub no: u64,
}

impl StreamId {
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (ms, no) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, no: no.parse().ok()? })
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.no)
    }
}

/// Where entries go.
pub type Inbox = Hub;

/// Reads one stream.
pub struct Reader {
    pub redis: MultiplexedConnection,
    pub stream: String,
    pub inbox: Inbox,
    /// Entries of one read.
    pub count: usize,
    pub trim_interval: Duration,
    pub progress: watch::Sender<Progress>,
    pub metrics: Arc<Metrics>,
}

/// How far a stream was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// The last entry that was read.
    pub last: StreamId,
    /// How many were read up to it.
    pub entries: u64,
}

impl Reader {
    /// Runs until reading fails.
    pub async fn run(mut self) -> RedisError {
        let mut trimmed = StreamId::default();
        let mut trim_at = Instant::now() + self.trim_interval;
        loop {
            let last = self.progress.borrow().last;
            let answer: Value = match self.read(last).await {
                Ok(answer) => answer,
                Err(failure) => return failure,
            };
            let read_us = chassis::now_us();
            let entries = entries(answer);
            let last = entries.last().map_or(last, |(id, _)| *id);
            // Counted as soon as they are here: they may be trimmed from now on.
            self.progress.send_modify(|progress| {
                *progress = Progress { last, entries: progress.entries + entries.len() as u64 };
            });
            self.metrics.stream_entries.inc_by(entries.len() as u64);
            let arrivals: Vec<Arrival> =
                entries.into_iter().filter_map(|(id, fields)| self.arrival(id, fields, read_us)).collect();
            if !arrivals.is_empty() {
                self.inbox.arrived(arrivals).await;
            }
            if Instant::now() >= trim_at && last > trimmed {
                if let Err(failure) = self.trim(last).await {
                    return failure;
                }
                trimmed = last;
                trim_at = Instant::now() + self.trim_interval;
            }
        }
    }

    async fn read(&mut self, after: StreamId) -> Result<Value, RedisError> {
        let mut xread = redis::cmd("XREAD");
        xread.arg("COUNT").arg(self.count).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        xread.arg("STREAMS").arg(&self.stream).arg(after.to_string());
        xread.query_async(&mut self.redis).await
    }

    async fn trim(&mut self, read: StreamId) -> Result<(), RedisError> {
        let mut xtrim = redis::cmd("XTRIM");
        xtrim.arg(&self.stream).arg("MINID").arg("~").arg(read.to_string());
        xtrim.exec_async(&mut self.redis).await
    }

    fn arrival(&self, id: StreamId, fields: Vec<(Bytes, Bytes)>, read_us: i64) -> Option<Arrival> {
        if matches!(&fields[..], [(name, _)] if &name[..] == HELLO) {
            return None;
        }
        match StreamEntry::decode(fields) {
            Ok(entry) => {
                let stamp =
                    Stamp { kafka_ms: entry.kafka_ms, worker_us: entry.worker_us, redis_ms: id.ms as i64, read_us };
                Some(Arrival { entry, stamp })
            }
            Err(error) => {
                warn!(%error, redis.stream_id = %id, "an entry of the stream can't be read");
                self.metrics.dropped(Dropped::Malformed);
                None
            }
        }
    }
}

type Fields = Vec<(Bytes, Bytes)>;

/// The entries of an XREAD of one stream: `[[key, [[id, [name, value, …]], …]]]`, or a map in RESP3; nil is none.
fn entries(answer: Value) -> Vec<(StreamId, Fields)> {
    let list = match answer {
        Value::Array(mut streams) => match streams.pop() {
            Some(Value::Array(mut stream)) => stream.pop(),
            _ => None,
        },
        Value::Map(mut streams) => streams.pop().map(|(_, list)| list),
        _ => None,
    };
    let Some(Value::Array(list)) = list else { return Vec::new() };
    list.into_iter().filter_map(entry).collect()
}

fn entry(value: Value) -> Option<(StreamId, Fields)> {
    let Value::Array(mut pair) = value else { return None };
    let (fields, id) = (pair.pop()?, pair.pop()?);
    let Value::BulkString(id) = id else { return None };
    let mut out = Vec::new();
    match fields {
        Value::Array(flat) => {
            let mut flat = flat.into_iter();
            while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) = (flat.next(), flat.next()) {
                out.push((name.into(), value.into()));
            }
        }
        Value::Map(pairs) => {
            for pair in pairs {
                if let (Value::BulkString(name), Value::BulkString(value)) = pair {
                    out.push((name.into(), value.into()));
                }
            }
        }
        _ => return None,
    }
    Some((StreamId::parse(&id)?, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_are_taken_out_of_an_xread_answer() {
        let fields = Value::Array(vec![text("a"), text("1"), text("b"), text("2")]);
        let one = Value::Array(vec![text("5-1"), fields]);
        let answer = Value::Array(vec![Value::Array(vec![text("stream"), Value::Array(vec![one])])]);
        let read = entries(answer);
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].0, StreamId { ms: 5, no: 1 });
        assert_eq!(read[0].1, [("a".into(), "1".into()), ("b".into(), Bytes::from_static(b"2"))]);
        assert!(entries(Value::Nil).is_empty());
    }

    #[test]
    fn ids_are_ordered_by_time_and_number() {
        let id = |text: &str| StreamId::parse(text.as_bytes()).unwrap();
        assert!(id("5-10") > id("5-9") && id("6-0") > id("5-10"));
        assert_eq!(StreamId::parse(b"5"), None);
    }
}
