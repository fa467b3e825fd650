//! Two lanes for locking reads: what somebody holds waits in one of its own, so that nothing else does.

use std::future::Future;

use proto::rpc::v1::LockedRows;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Runner, batch};
use crate::refusal::Refusal;

/// How a locking read goes about rows that somebody holds, who may do so for seconds: those wait beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// For all, at first: nothing is waited for.
    First,
    /// For what was locked then: core waits for a while.
    Again,
}

impl Lane {
    pub(super) fn locked_rows(self) -> LockedRows {
        match self {
            Lane::First => LockedRows::Skip,
            Lane::Again => LockedRows::Wait,
        }
    }
}

/// A batch in each lane; the value is `None` where the row is locked.
#[derive(Debug)]
pub struct Lanes<K, V> {
    first: Batch<K, Option<V>>,
    again: Batch<K, Option<V>>,
}

/// The ends that make the calls.
pub struct Runners<K, V> {
    first: Runner<K, Option<V>>,
    again: Runner<K, Option<V>>,
}

impl<K, V> Clone for Lanes<K, V> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), again: self.again.clone() }
    }
}

impl<K: Clone, V> Lanes<K, V> {
    pub fn new() -> (Self, Runners<K, V>) {
        let ((first, first_runner), (again, again_runner)) = (batch(), batch());
        (Self { first, again }, Runners { first: first_runner, again: again_runner })
    }

    pub fn of(&self, lane: Lane) -> &Batch<K, Option<V>> {
        match lane {
            Lane::First => &self.first,
            Lane::Again => &self.again,
        }
    }
}

impl<K: Clone, V> Runners<K, V> {
    /// As [`Runner::run`], with as many calls in each lane.
    pub async fn run<F, C>(self, max: usize, in_flight: usize, stop: &CancellationToken, call: impl Fn(Lane) -> C)
    where
        F: Future<Output = Result<Vec<Result<Option<V>, Refusal>>, Refusal>>,
        C: Fn(Vec<K>) -> F,
    {
        let first = self.first.run(max, in_flight, stop.clone(), call(Lane::First));
        let again = self.again.run(max, in_flight, stop.clone(), call(Lane::Again));
        tokio::join!(first, again);
    }
}
