//! The way of a message as times: the client's own stamps joined with what core and the gateways remember
//! (`GET /hops` on their admin listeners).

use std::collections::HashMap;

use anyhow::Result;
use http::Method;
use proto::hops::{CommitHop, DeliveryHop, Hops};
use serde::de::DeserializeOwned;

use crate::rest::Rest;

/// The five hops of one delivery, in order.
pub const NAMES: [&str; 5] = ["send", "commit", "binlog to Kafka", "routing", "socket"];
/// From what to what each of [`NAMES`] goes.
pub const MEANINGS: [&str; 5] = [
    "SEND written -> request at core",
    "request at core -> committed",
    "committed -> appended by the broker",
    "appended -> in the gateway's stream",
    "in the gateway's stream -> MESSAGE read",
];

/// What the processes remember, keyed by conversation and seq.
#[derive(Clone, Debug, Default)]
pub struct Stamps {
    commits: HashMap<(i64, i64), CommitHop>,
    /// One map for each gateway, in the order of the endpoints.
    deliveries: Vec<HashMap<(i64, i64), DeliveryHop>>,
}

impl Stamps {
    /// Asks all cores and gateways. `conversation`: only that one's.
    pub async fn read(cores: &[String], gateways: &[String], conversation: Option<i64>) -> Result<Self> {
        let path = match conversation {
            Some(id) => format!("/hops?conversation={id}"),
            None => "/hops".to_owned(),
        };
        let mut stamps = Self::default();
        for core in cores {
            let hops: Vec<CommitHop> = fetch(core, &path).await?;
            stamps.commits.extend(hops.into_iter().map(|hop| ((hop.conversation_id, hop.seq), hop)));
        }
        for gateway in gateways {
            let hops: Vec<DeliveryHop> = fetch(gateway, &path).await?;
            // The first one counts: a repeated entry was dropped, not delivered.
            let mut first = HashMap::new();
            for hop in hops {
                first.entry((hop.conversation_id, hop.seq)).or_insert(hop);
            }
            stamps.deliveries.push(first);
        }
        Ok(stamps)
    }

    /// The times of the five hops in microseconds, for a message that was written at `sent_us` and read by a client
    /// of that gateway at `read_us` (microseconds since the Unix epoch). `None` when a process no longer remembers
    /// it, or when it came through a fill.
    ///
    /// MySQL hands a transaction to the binlog before it answers COMMIT, and the broker and Redis stamp whole
    /// milliseconds; so stamps are made monotonic, and the five add up to the whole.
    pub fn way(&self, conversation: i64, seq: i64, gateway: usize, sent_us: i64, read_us: i64) -> Option<[i64; 5]> {
        let commit = self.commits.get(&(conversation, seq))?;
        let delivery = self.deliveries.get(gateway)?.get(&(conversation, seq))?;
        let stamps =
            [commit.received_us, commit.committed_us, delivery.kafka_ms * 1000, delivery.redis_ms * 1000, read_us];
        let mut before = sent_us;
        Some(stamps.map(|stamp| {
            let reached = stamp.clamp(before, read_us.max(before));
            let took = reached - before;
            before = reached;
            took
        }))
    }
}

async fn fetch<T: DeserializeOwned>(base: &str, path: &str) -> Result<Vec<T>> {
    let answer = Rest::new(&[base.to_owned()]).call(Method::GET, path, None, None).await?;
    Ok(serde_json::from_value::<Hops<T>>(answer)?.items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_add_up_even_where_a_coarse_clock_runs_behind() {
        let commit = CommitHop { conversation_id: 7, seq: 2, received_us: 1_000_500, committed_us: 1_003_700 };
        // The broker's 1003 ms lies before the commit's 1003.7 ms.
        let delivery = DeliveryHop {
            conversation_id: 7,
            seq: 2,
            kafka_ms: 1003,
            worker_us: 1_004_200,
            redis_ms: 1005,
            read_us: 1_005_300,
            queued_us: 1_005_400,
        };
        let stamps = Stamps {
            commits: HashMap::from([((7, 2), commit)]),
            deliveries: vec![HashMap::new(), HashMap::from([((7, 2), delivery)])],
        };
        let way = stamps.way(7, 2, 1, 1_000_000, 1_006_000).unwrap();
        assert_eq!(way, [500, 3200, 0, 1300, 1000]);
        assert_eq!(way.iter().sum::<i64>(), 6000);
        assert_eq!(stamps.way(7, 2, 0, 1_000_000, 1_006_000), None);
    }
}
