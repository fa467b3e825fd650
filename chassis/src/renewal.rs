//! What a process has from the issuer and keeps fresh: its published keys, a service's own token.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Backoff, Dependency, http::HttpError};

/// Fetches until `draining`: at once, again after the time that each fetch answers with, and with back-off while it
/// fails. What was fetched before stays in use meanwhile; it may still be good.
pub(crate) async fn keep_fresh<F: Future<Output = Result<Duration, String>>>(
    draining: CancellationToken,
    dependency: Dependency,
    mut fetch: impl FnMut() -> F,
) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let wait = match fetch().await {
            Ok(next) => {
                dependency.up();
                backoff.reset();
                next
            }
            Err(error) => {
                dependency.down(&error);
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = draining.cancelled() => return,
        }
    }
}

/// The first answer of servers that are asked in turn at `path`; else what each of them said.
pub(crate) async fn first_answer<T, F: Future<Output = Result<T, HttpError>>>(
    base_urls: &[String],
    path: &str,
    mut ask: impl FnMut(String) -> F,
) -> Result<T, String> {
    let mut failures = Vec::new();
    for base in base_urls {
        match ask(format!("{base}{path}")).await {
            Ok(answer) => return Ok(answer),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(failures.join("; "))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;
    use crate::Readiness;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_named_and_tried_again_soon() {
        let (readiness, draining, tries) =
            (Readiness::default(), CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let dependency = readiness.dependency("keys");
        let counted = Arc::clone(&tries);
        let fresh = keep_fresh(draining.clone(), dependency, move || {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Err("away".to_owned()) } else { Ok(Duration::from_secs(3600)) } }
        });
        let task = tokio::spawn(fresh);
        tokio::task::yield_now().await;
        assert_eq!(readiness.missing()[0].reason, "away");
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
        assert!(readiness.missing().is_empty());
        draining.cancel();
        task.await.unwrap();
        assert_eq!(tries.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn servers_are_asked_in_turn_and_all_failures_told() {
        let urls = ["http://a.test".to_owned(), "http://b.test".to_owned()];
        let failed = |url: &str| HttpError::Failed { url: url.to_owned(), message: "away".into() };
        let second =
            first_answer(
                &urls,
                "/x",
                |url| async move { if url == "http://b.test/x" { Ok(1) } else { Err(failed(&url)) } },
            );
        assert_eq!(second.await, Ok(1));
        let none: Result<(), _> = first_answer(&urls, "/x", |url| async move { Err(failed(&url)) }).await;
        assert_eq!(none, Err("http://a.test/x: away; http://b.test/x: away".to_owned()));
    }
}
