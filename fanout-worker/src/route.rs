//! Which entry goes to which gateway: pure planning between the two round trips of a batch.
//!
//! In: the entries of a batch, in the order of their partition, and who is interested in their keys. Out: the writes,
//! in the same order, so that each gateway's stream keeps the order of the partition; and afterwards, from the
//! answers, whose interest is to be removed.

use std::collections::{BTreeSet, HashMap, HashSet};

use proto::{GatewayRef, Keys, Scope, StreamEntry};

/// Whose interest decides where an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interest {
    Conversation(i64),
    User(i64),
}

impl Interest {
    pub fn of(entry: &StreamEntry) -> Self {
        match entry.scope {
            Scope::Conversation | Scope::Ephemeral => Interest::Conversation(entry.key),
            Scope::User => Interest::User(entry.key),
        }
    }

    /// The Redis set of interested gateways.
    pub fn key(self, keys: &Keys) -> String {
        match self {
            Interest::Conversation(id) => keys.conversation_interest(id),
            Interest::User(id) => keys.user_interest(id),
        }
    }
}

/// Who is interested, as read for one batch. A key that is absent interests nobody.
pub type Audience = HashMap<Interest, Vec<GatewayRef>>;

/// One XADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    pub interest: Interest,
    pub gateway: &'a GatewayRef,
    pub entry: &'a StreamEntry,
}

/// What a gateway's stream answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Appended,
    /// nil: the stream is not there, so this incarnation is gone.
    Gone,
}

/// The distinct interests of a batch, in the order in which they first appear.
pub fn interests(entries: &[StreamEntry]) -> Vec<Interest> {
    let mut seen = HashSet::with_capacity(entries.len());
    entries.iter().map(Interest::of).filter(|interest| seen.insert(*interest)).collect()
}

/// Every entry for every gateway that is interested in its key; entries in order.
pub fn plan<'a>(entries: &'a [StreamEntry], audience: &'a Audience) -> Vec<Write<'a>> {
    entries
        .iter()
        .flat_map(|entry| {
            let interest = Interest::of(entry);
            let gateways = audience.get(&interest).map_or(&[][..], Vec::as_slice);
            gateways.iter().map(move |gateway| Write { interest, gateway, entry })
        })
        .collect()
}

/// The interests of incarnations that are gone, each once.
pub fn gone(writes: &[Write<'_>], outcomes: &[Outcome]) -> BTreeSet<(Interest, GatewayRef)> {
    writes
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| **outcome == Outcome::Gone)
        .map(|(write, _)| (write.interest, write.gateway.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::Routing;

    use super::*;

    fn entry(scope: Scope, key: i64, seq: i64) -> StreamEntry {
        StreamEntry {
            scope,
            key,
            routing: Routing { seq: Some(seq), ..Routing::default() },
            payload: Bytes::new(),
            kafka_ms: 0,
            worker_us: 0,
        }
    }

    fn gateway(name: &str) -> GatewayRef {
        GatewayRef { gateway: name.to_owned(), incarnation: "1".to_owned() }
    }

    #[test]
    fn each_key_of_a_batch_is_looked_up_once() {
        let entries = [
            entry(Scope::Conversation, 7, 1),
            entry(Scope::Conversation, 8, 1),
            entry(Scope::Conversation, 7, 2),
            entry(Scope::Ephemeral, 7, 0),
            entry(Scope::User, 7, 0),
        ];
        let expected = [Interest::Conversation(7), Interest::Conversation(8), Interest::User(7)];
        assert_eq!(interests(&entries), expected);
    }

    #[test]
    fn each_gateway_gets_the_entries_in_the_order_of_the_partition() {
        let entries: Vec<_> = (1..=3).map(|seq| entry(Scope::Conversation, 7, seq)).collect();
        let audience = Audience::from([(Interest::Conversation(7), vec![gateway("a"), gateway("b")])]);
        let writes = plan(&entries, &audience);
        for name in ["a", "b"] {
            let seqs: Vec<_> =
                writes.iter().filter(|w| w.gateway.gateway == name).map(|w| w.entry.routing.seq.unwrap()).collect();
            assert_eq!(seqs, [1, 2, 3]);
        }
    }

    #[test]
    fn an_entry_that_interests_nobody_is_not_written() {
        let entries = [entry(Scope::User, 7, 1)];
        let audience = Audience::from([(Interest::Conversation(7), vec![gateway("a")])]);
        assert!(plan(&entries, &audience).is_empty());
    }

    #[test]
    fn only_the_incarnation_that_answered_nil_is_forgotten_and_only_there() {
        let entries = [entry(Scope::Conversation, 7, 1), entry(Scope::Conversation, 8, 1)];
        let audience = Audience::from([
            (Interest::Conversation(7), vec![gateway("a"), gateway("b")]),
            (Interest::Conversation(8), vec![gateway("b")]),
        ]);
        let writes = plan(&entries, &audience);
        let gone = gone(&writes, &[Outcome::Appended, Outcome::Gone, Outcome::Appended]);
        assert_eq!(gone.into_iter().collect::<Vec<_>>(), [(Interest::Conversation(7), gateway("b"))]);
    }
}
