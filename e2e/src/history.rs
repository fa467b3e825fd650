//! A record of what was promised to clients and what they got, and the verdict on it.
//!
//! The promise under test: every acknowledged event of a conversation comes exactly once and in `seq` order to each
//! client from the seq on where its delivery started. The checker knows nothing of how the services do that.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

/// One client's view of one conversation.
#[derive(Clone, Debug, Default)]
struct View {
    /// Delivery starts behind this seq.
    after: i64,
    /// Delivery ends with this seq: the client left, or was removed.
    until: Option<i64>,
    /// Seq and what it was, in the order of arrival.
    received: Vec<(i64, Option<String>)>,
}

/// Everything that was seen. Clients are named freely, one name for each stream of deliveries (a client with two
/// subscriptions that cover a conversation has two).
#[derive(Clone, Debug, Default)]
pub struct History {
    acknowledged: HashMap<i64, BTreeMap<i64, String>>,
    conflicting: Vec<String>,
    views: BTreeMap<(String, i64), View>,
}

/// What was wrong; empty is well. The texts name client, conversation and seq.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged and never received by a client that should have.
    pub lost: Vec<String>,
    /// Received more than once.
    pub duplicates: Vec<String>,
    /// Received behind a higher seq.
    pub disorder: Vec<String>,
    /// A seq was passed over when a higher one came, whether it came later or never.
    pub gaps: Vec<String>,
    /// The same seq stands for different messages, or something came that delivery should not have covered.
    pub wrong: Vec<String>,
    /// How many deliveries were looked at.
    pub deliveries: usize,
}

impl History {
    /// A send was acknowledged with this seq; `tag` tells messages apart (a client message id).
    pub fn acknowledged(&mut self, conversation: i64, seq: i64, tag: &str) {
        let earlier = self.acknowledged.entry(conversation).or_default().insert(seq, tag.to_owned());
        if let Some(earlier) = earlier.filter(|earlier| earlier != tag) {
            self.conflicting.push(format!("{conversation}-{seq} was acknowledged for {earlier:?} and for {tag:?}"));
        }
    }

    /// The client's delivery of the conversation starts behind `after` (the `after_seq` of RESUMED). Where it is
    /// already known, nothing changes: a resumed subscription continues the same view.
    pub fn opened(&mut self, client: &str, conversation: i64, after: i64) {
        let view = View { after, ..View::default() };
        self.views.entry((client.to_owned(), conversation)).or_insert(view);
    }

    /// The client's delivery ends with `until`.
    pub fn ended(&mut self, client: &str, conversation: i64, until: i64) {
        self.views.entry((client.to_owned(), conversation)).or_default().until = Some(until);
    }

    /// An event came; `tag` as in [`acknowledged`](Self::acknowledged), none for what is no message.
    pub fn received(&mut self, client: &str, conversation: i64, seq: i64, tag: Option<&str>) {
        let view = self.views.entry((client.to_owned(), conversation)).or_default();
        view.received.push((seq, tag.map(str::to_owned)));
    }

    /// Acknowledged messages that views still wait for.
    pub fn outstanding(&self) -> usize {
        self.views.iter().map(|((_, conversation), view)| self.missing(*conversation, view).count()).sum()
    }

    fn missing<'a>(&'a self, conversation: i64, view: &'a View) -> impl Iterator<Item = i64> + 'a {
        let seen: BTreeSet<i64> = view.received.iter().map(|(seq, _)| *seq).collect();
        let until = view.until.unwrap_or(i64::MAX);
        let promised = self.acknowledged.get(&conversation).into_iter().flat_map(|seqs| seqs.keys().copied());
        promised.filter(move |seq| *seq > view.after && *seq <= until && !seen.contains(seq))
    }

    /// Judges all that was recorded.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { wrong: self.conflicting.clone(), ..Verdict::default() };
        for ((client, conversation), view) in &self.views {
            let name = |seq: i64| format!("{client}: {conversation}-{seq}");
            verdict.deliveries += view.received.len();
            verdict.lost.extend(self.missing(*conversation, view).map(name));
            self.judge_arrivals(*conversation, view, &name, &mut verdict);
        }
        verdict
    }

    fn judge_arrivals(&self, conversation: i64, view: &View, name: &dyn Fn(i64) -> String, verdict: &mut Verdict) {
        let acknowledged = self.acknowledged.get(&conversation);
        let mut seen = BTreeSet::new();
        let mut highest = view.after;
        for (seq, tag) in &view.received {
            if !seen.insert(*seq) {
                verdict.duplicates.push(name(*seq));
                continue;
            }
            if *seq <= view.after || view.until.is_some_and(|until| *seq > until) {
                verdict.wrong.push(format!("{} is outside of what this client may get", name(*seq)));
            } else if *seq < highest {
                verdict.disorder.push(format!("{} behind {highest}", name(*seq)));
            } else if *seq > highest + 1 {
                verdict.gaps.push(format!("{} after {highest}", name(*seq)));
            }
            highest = highest.max(*seq);
            let promised = acknowledged.and_then(|seqs| seqs.get(seq));
            if let (Some(promised), Some(tag)) = (promised, tag)
                && promised != tag
            {
                verdict.wrong.push(format!("{} is {tag:?}, acknowledged as {promised:?}", name(*seq)));
            }
        }
    }
}

impl Verdict {
    /// Nothing lost, doubled, out of order, passed over or mixed up.
    pub fn is_clean(&self) -> bool {
        self.faults().all(|(_, faults)| faults.is_empty())
    }

    fn faults(&self) -> impl Iterator<Item = (&'static str, &Vec<String>)> {
        [
            ("lost", &self.lost),
            ("duplicates", &self.duplicates),
            ("out of order", &self.disorder),
            ("gaps", &self.gaps),
            ("wrong", &self.wrong),
        ]
        .into_iter()
    }
}

impl fmt::Display for Verdict {
    /// Counts, and the first few of each fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} deliveries", self.deliveries)?;
        for (name, faults) in self.faults() {
            write!(f, ", {} {name}", faults.len())?;
        }
        for (name, faults) in self.faults() {
            for fault in faults.iter().take(5) {
                write!(f, "\n  {name}: {fault}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three messages of conversation 7, acknowledged with the seqs 2, 3 and 4.
    fn three() -> History {
        let mut history = History::default();
        for seq in 2..=4 {
            history.acknowledged(7, seq, &format!("m{seq}"));
        }
        history.opened("bob", 7, 1);
        history
    }

    fn receives(seqs: &[i64]) -> Verdict {
        let mut history = three();
        for seq in seqs {
            history.received("bob", 7, *seq, Some(&format!("m{seq}")));
        }
        history.verdict()
    }

    #[test]
    fn each_once_and_in_order_is_clean() {
        let verdict = receives(&[2, 3, 4]);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!(verdict.deliveries, 3);
    }

    #[test]
    fn each_fault_is_found_by_its_name() {
        assert_eq!(receives(&[2, 3]).lost, ["bob: 7-4"]);
        assert_eq!(receives(&[2, 3, 3, 4]).duplicates, ["bob: 7-3"]);
        let swapped = receives(&[2, 4, 3]);
        assert_eq!((swapped.disorder.len(), swapped.gaps.len(), swapped.lost.len()), (1, 1, 0));
        let skipped = receives(&[2, 4]);
        assert_eq!((skipped.gaps.len(), skipped.lost.len()), (1, 1));
        assert_eq!(receives(&[1, 2, 3, 4]).wrong.len(), 1, "before the start");
    }

    #[test]
    fn a_message_under_anothers_seq_is_wrong() {
        let mut history = three();
        history.received("bob", 7, 2, Some("m3"));
        assert_eq!(history.verdict().wrong.len(), 1);
        history.acknowledged(7, 4, "other");
        assert_eq!(history.verdict().wrong.len(), 2, "one seq for two messages");
    }

    #[test]
    fn a_client_that_left_owes_and_is_owed_nothing_behind_its_end() {
        let mut history = three();
        history.ended("bob", 7, 2);
        history.received("bob", 7, 2, None);
        assert!(history.verdict().is_clean());
        history.received("bob", 7, 3, None);
        assert_eq!(history.verdict().wrong.len(), 1);
    }
}
