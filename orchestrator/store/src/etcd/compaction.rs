//! Keeps etcd's history short: without it, every version of every object would be kept for ever.
//!
//! Each API server does it by itself. Several agree because compacting to what is compacted already changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Etcd;
use crate::{Revision, Store, StoreError};

/// History is kept for this long at least, and twice that at most; so does Kubernetes (`--etcd-compaction-interval`).
const INTERVAL: Duration = Duration::from_secs(300);

/// Compacts, every five minutes, to where the cluster was five minutes before. Ends when told to.
pub async fn keep_compacted(store: Arc<Etcd>, stop: CancellationToken) {
    let mut before = None;
    loop {
        match compact_to(&store, before).await {
            Ok(newest) => before = Some(newest),
            Err(error) => tracing::warn!(%error, "etcd's history could not be compacted; trying again later"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Compacts to a revision, if there is one, and gives the newest.
async fn compact_to(store: &Etcd, before: Option<Revision>) -> Result<Revision, StoreError> {
    let newest = store.revision().await?;
    match before {
        None => {}
        Some(before) => match store.compact(before).await {
            // Another API server was first.
            Ok(()) | Err(StoreError::Compacted { .. }) => {}
            Err(error) => return Err(error),
        },
    }
    Ok(newest)
}
