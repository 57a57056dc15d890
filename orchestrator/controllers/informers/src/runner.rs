//! Runs a reconciler: workers take keys from its queue and turn what comes back into done, later, backoff or
//! silence. It knows nothing of what is reconciled.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Failure, WorkQueue};

/// What follows a pass that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Done,
    /// Look again after this time even if nothing changes.
    After(Duration),
}

/// A control loop over keys.
pub trait Reconcile: Send + Sync + 'static {
    /// What names the object of one pass.
    type Key: Clone + Eq + Hash + Ord + Send + Sync + Display + Debug + 'static;
    /// Name in logs.
    const NAME: &'static str;

    /// One pass: observe, plan, apply. Level-triggered: it may be called at any time, any number of times.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Next, Failure>> + Send;
}

/// Runs `workers` workers until `shutdown`; a pass that has begun is finished.
pub async fn run_workers<R: Reconcile>(
    reconciler: Arc<R>,
    queue: Arc<WorkQueue<R::Key>>,
    workers: usize,
    shutdown: CancellationToken,
) {
    let workers = (0..workers.max(1)).map(|_| {
        let (reconciler, queue, shutdown) = (reconciler.clone(), queue.clone(), shutdown.clone());
        async move {
            loop {
                let key = tokio::select! {
                    () = shutdown.cancelled() => return,
                    key = queue.next() => key,
                };
                let result = reconciler.reconcile(&key).await;
                settle::<R>(&queue, &key, result);
                queue.done(&key);
            }
        }
    });
    futures::future::join_all(workers.map(tokio::spawn)).await;
}

fn settle<R: Reconcile>(queue: &WorkQueue<R::Key>, key: &R::Key, result: Result<Next, Failure>) {
    match result {
        Ok(next) => {
            queue.forget(key);
            if let Next::After(delay) = next {
                queue.add_after(key.clone(), delay);
            }
        }
        Err(Failure::Wait { reason, after }) => {
            tracing::debug!(controller = R::NAME, %key, %reason, ?after, "waiting");
            queue.add_after(key.clone(), after);
        }
        Err(Failure::Terminal { reason }) => {
            tracing::warn!(controller = R::NAME, %key, %reason, "giving up until the object changes");
            queue.forget(key);
        }
        Err(error @ Failure::Retry { .. }) => {
            let delay = queue.add_failed(key.clone());
            // Conflicts are everyday life; what keeps failing is news.
            if delay > Duration::from_millis(500) {
                tracing::warn!(controller = R::NAME, %key, %error, ?delay, "failing");
            } else {
                tracing::debug!(controller = R::NAME, %key, %error, ?delay, "again");
            }
        }
    }
}
