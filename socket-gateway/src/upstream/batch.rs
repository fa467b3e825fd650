//! Requests of many, put together into calls: what waits when a call can begin goes along.

use std::{fmt, future::Future};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;

/// Keys that wait for a call to begin; who comes on top waits to be taken.
const QUEUE: usize = 4096;

type Waiting<K, V> = (K, oneshot::Sender<Result<V, Refusal>>);

/// Where a batch is asked. Cheap to clone.
pub struct Batch<K, V>(mpsc::Sender<Waiting<K, V>>);

impl<K, V> Clone for Batch<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> fmt::Debug for Batch<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batch")
    }
}

/// The end that makes the calls.
pub struct Runner<K, V>(mpsc::Receiver<Waiting<K, V>>);

pub fn batch<K, V>() -> (Batch<K, V>, Runner<K, V>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Batch(sender), Runner(receiver))
}

impl<K, V> Batch<K, V> {
    /// The answer to one key.
    pub async fn get(&self, key: K) -> Result<V, Refusal> {
        let (sender, answer) = oneshot::channel();
        let gone = || Refusal::unavailable("the gateway is going away");
        self.0.send((key, sender)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl<K: Clone, V> Runner<K, V> {
    /// Makes calls of at most `max` keys, `in_flight` at once, until `stop`. A call answers in the order of its keys.
    pub async fn run<F, C>(mut self, max: usize, in_flight: usize, stop: CancellationToken, call: C)
    where
        F: Future<Output = Result<Vec<Result<V, Refusal>>, Refusal>>,
        C: Fn(Vec<K>) -> F,
    {
        let mut calls = FuturesUnordered::new();
        let mut taken: Vec<Waiting<K, V>> = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = calls.next(), if !calls.is_empty() => {}
                count = self.0.recv_many(&mut taken, max), if calls.len() < in_flight => {
                    if count == 0 {
                        return;
                    }
                    let (keys, senders): (Vec<K>, Vec<_>) = taken.drain(..).unzip();
                    let answer = call(keys);
                    calls.push(async move {
                        match answer.await {
                            Ok(answers) => {
                                // Who does not wait any more needs no answer.
                                senders.into_iter().zip(answers).for_each(|(sender, answer)| drop(sender.send(answer)));
                            }
                            Err(refusal) => {
                                senders.into_iter().for_each(|sender| drop(sender.send(Err(refusal.clone()))));
                            }
                        }
                    });
                }
            }
        }
    }
}

/// Asks for all in one call, and where that is too much for one answer (`None`) for each half of it, and so on. The
/// answers, and what is too much even alone.
pub async fn in_parts<K, A, F>(asked: Vec<K>, ask: impl Fn(Vec<K>) -> F) -> Result<(Vec<A>, Vec<K>), Refusal>
where
    K: Clone,
    F: Future<Output = Result<Option<Vec<A>>, Refusal>>,
{
    let (mut answers, mut too_large) = (Vec::new(), Vec::new());
    let mut parts = vec![asked];
    while let Some(mut part) = parts.pop() {
        match ask(part.clone()).await? {
            Some(more) => answers.extend(more),
            None if part.len() > 1 => {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
            }
            None => too_large.extend(part),
        }
    }
    Ok((answers, too_large))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_too_much_for_one_answer_is_asked_for_in_halves() {
        let calls = std::cell::RefCell::new(Vec::new());
        let ask = |sizes: Vec<usize>| {
            calls.borrow_mut().push(sizes.len());
            let fits = sizes.iter().sum::<usize>() <= 10;
            async move { Ok(fits.then_some(sizes)) }
        };
        let (answers, too_large) = in_parts(vec![4, 5, 6, 3, 11], ask).await.unwrap();
        assert_eq!((answers, too_large), (vec![4, 5, 6, 3], vec![11]));
        assert_eq!(*calls.borrow(), [5, 2, 3, 1, 2, 1, 1]);
        let failing = |_| async { Err::<Option<Vec<()>>, _>(Refusal::unavailable("core is away")) };
        assert!(in_parts(vec![1], failing).await.is_err());
    }

    #[tokio::test]
    async fn what_waits_goes_along_in_one_call_and_each_gets_its_own_answer() {
        let (batch, runner) = batch::<i64, i64>();
        let asked: Vec<_> = (0..5)
            .map(|key| {
                tokio::spawn({
                    let batch = batch.clone();
                    async move { batch.get(key).await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let stop = CancellationToken::new();
        let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&calls);
        tokio::spawn(runner.run(100, 1, stop.clone(), move |keys: Vec<i64>| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move { Ok(keys.into_iter().map(|key| Ok(key * 10)).collect()) }
        }));
        for (key, asked) in asked.into_iter().enumerate() {
            assert_eq!(asked.await.unwrap(), Ok(key as i64 * 10));
        }
        assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
        stop.cancel();
        drop(batch);
    }
}
