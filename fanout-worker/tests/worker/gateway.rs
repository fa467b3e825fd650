//! A gateway as far as the worker sees one: a lease, a stream, interests.

use bytes::Bytes;
use proto::{GatewayRef, Keys, StreamEntry};
use redis::{AsyncCommands as _, aio::MultiplexedConnection};

use crate::bed::{Bed, eventually};

/// An entry's id and its fields.
type RawEntry = (String, Vec<(Bytes, Bytes)>);

#[derive(Clone)]
pub struct Gateway {
    pub id: GatewayRef,
    keys: Keys,
    redis: MultiplexedConnection,
}

impl Gateway {
    /// Starts an incarnation in the order that gateways keep: stream, lease, the set of gateways.
    pub async fn start(bed: &Bed, name: &str) -> Self {
        let id = GatewayRef { gateway: name.to_owned(), incarnation: uuid::Uuid::now_v7().simple().to_string() };
        let mut gateway = Self { id, keys: bed.keys.clone(), redis: bed.redis.clone() };
        let _: String = gateway.redis.xadd(gateway.stream(), "*", &[("hello", "1")]).await.unwrap();
        let _: () = gateway.redis.set_ex(gateway.keys.lease(&gateway.id), "1", 600).await.unwrap();
        let _: u64 = gateway.redis.sadd(gateway.keys.gateways(), gateway.id.to_string()).await.unwrap();
        gateway
    }

    pub async fn serve_conversation(&self, conversation: i64) {
        let key = self.keys.conversation_interest(conversation);
        let _: u64 = self.redis.clone().sadd(key, self.id.to_string()).await.unwrap();
    }

    pub async fn serve_user(&self, user: i64) {
        let key = self.keys.user_interest(user);
        let _: u64 = self.redis.clone().sadd(key, self.id.to_string()).await.unwrap();
    }

    pub fn stream(&self) -> String {
        self.keys.stream(&self.id)
    }

    /// What the stream holds, in its order, without the greeting.
    pub async fn entries(&self) -> Vec<StreamEntry> {
        let entries: Vec<RawEntry> = self.redis.clone().xrange_all(self.stream()).await.unwrap();
        let ours = entries.into_iter().filter(|(_, fields)| fields[0].0 != "hello");
        ours.map(|(_, fields)| StreamEntry::decode(fields).unwrap()).collect()
    }

    /// Waits until the seqs 1 to `last` of a conversation have all come, in order but for repetitions, and returns
    /// how many were repeated.
    pub async fn has_all(&self, conversation: i64, last: i64) -> usize {
        let what = format!("{} has seqs 1 to {last} of conversation {conversation}", self.id.gateway);
        eventually(&what, || async {
            let seqs = self.seqs(conversation).await;
            let (cursor, repeated) = follow(&seqs);
            (cursor == last).then_some(repeated)
        })
        .await
    }

    pub async fn seqs(&self, conversation: i64) -> Vec<i64> {
        let entries = self.entries().await;
        entries.iter().filter(|entry| entry.key == conversation).filter_map(|entry| entry.routing.seq).collect()
    }
}

/// A subscription's cursor over `seqs`: where it ends and how many it dropped as repeated. A gap is a failure: the
/// worker never overtakes itself.
fn follow(seqs: &[i64]) -> (i64, usize) {
    seqs.iter().fold((0, 0), |(cursor, repeated), seq| match seq - cursor {
        1 => (*seq, repeated),
        difference if difference <= 0 => (cursor, repeated + 1),
        _ => panic!("{seq} came behind {cursor}"),
    })
}
