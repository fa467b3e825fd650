//! Two-stage shutdown and supervision of tasks.
//!
//! The first SIGTERM or SIGINT (or a critical task that ends) starts *draining*: intake stops, work in flight is
//! finished. A second signal, or the end of the grace period, is the *hard stop*: what still runs is left.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

/// Tokens of both stages and the tracker of all tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    draining: CancellationToken,
    stopping: CancellationToken,
    tracker: TaskTracker,
    failure: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    pub fn new() -> Self {
        Self {
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            tracker: TaskTracker::new(),
            failure: Arc::default(),
        }
    }

    /// Cancelled at the first signal: take nothing new, finish what is there.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Cancelled at the hard stop: end now.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Resolves when draining begins.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }

    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Runs a task that the process waits for at its end, until the hard stop.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let spawned = self.tracker.spawn(task);
        self.tracker.spawn(async move {
            if let Err(error) = spawned.await
                && error.is_panic()
            {
                error!(task = name, %error, "a task panicked");
            }
        });
    }

    /// Runs a task that the process can't live without: its end before draining ends the process with exit 1.
    pub fn spawn_critical(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let spawned = self.tracker.spawn(task);
        let lifecycle = self.clone();
        self.tracker.spawn(async move {
            let failure = match spawned.await {
                Ok(Ok(())) if lifecycle.is_draining() => return,
                Ok(Ok(())) => anyhow!("the task {name:?} ended unasked"),
                Ok(Err(error)) => error.context(format!("the task {name:?} failed")),
                Err(error) => anyhow!("the task {name:?} panicked: {error}"),
            };
            lifecycle.fail(failure);
        });
    }

    /// Begins draining, as a signal would.
    pub fn begin_draining(&self) {
        self.draining.cancel();
    }

    /// Begins draining because of a failure; the first one decides the exit.
    pub fn fail(&self, failure: anyhow::Error) {
        error!("{failure:#}");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.draining.cancel();
    }

    pub(crate) fn listen_for_signals(&self, grace: Duration) -> std::io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let (draining, stopping) = (self.draining.clone(), self.stopping.clone());
        tokio::spawn(async move {
            for first in [true, false] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                if first && !draining.is_cancelled() {
                    info!(grace_ms = grace.as_millis() as u64, "draining; a second signal stops at once");
                    draining.cancel();
                } else {
                    warn!("a second signal: stopping now");
                    stopping.cancel();
                }
            }
        });
        Ok(())
    }

    /// Waits for the service's main future and then for all tasks, within the grace period once draining began.
    pub(crate) async fn supervise(&self, main: JoinHandle<anyhow::Result<()>>, grace: Duration) -> anyhow::Result<()> {
        let stopping = self.stopping.clone();
        let draining = self.draining.clone();
        tokio::spawn(async move {
            draining.cancelled().await;
            tokio::time::sleep(grace).await;
            if !stopping.is_cancelled() {
                warn!(grace_ms = grace.as_millis() as u64, "the grace period is over: stopping now");
                stopping.cancel();
            }
        });
        let all = async {
            let main = main.await.context("the service panicked").and_then(|outcome| outcome);
            self.draining.cancel();
            self.tracker.close();
            self.tracker.wait().await;
            main
        };
        let outcome = tokio::select! {
            outcome = all => outcome,
            () = self.stopping.cancelled() => Err(anyhow!("stopped before everything was drained")),
        };
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    async fn supervise(lifecycle: &Lifecycle) -> anyhow::Result<()> {
        let drained = lifecycle.clone();
        let main = tokio::spawn(async move {
            drained.drained().await;
            Ok(())
        });
        lifecycle.supervise(main, GRACE).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_that_ends_early_fails_the_process() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn_critical("reader", async { Ok(()) });
        let failure = supervise(&lifecycle).await.unwrap_err();
        assert!(failure.to_string().contains("\"reader\" ended unasked"), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_tasks_and_is_no_failure() {
        let lifecycle = Lifecycle::new();
        let draining = lifecycle.draining();
        lifecycle.spawn("flush", async move {
            draining.cancelled().await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        });
        lifecycle.begin_draining();
        let begun = tokio::time::Instant::now();
        supervise(&lifecycle).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_period_bounds_the_drain() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("stuck", std::future::pending());
        lifecycle.begin_draining();
        let begun = tokio::time::Instant::now();
        assert!(supervise(&lifecycle).await.is_err());
        assert_eq!(begun.elapsed(), GRACE);
    }
}
