//! A watch on the embedded store: first the log, then the hub, without a gap or an overlap between them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use futures::stream;

use super::hub::Subscription;
use super::{Inner, blocking, read};
use crate::{Event, Revision, StoreError, WatchStream};

/// Rows of the log read at once.
const REPLAY_ROWS_MAX: usize = 500;

struct Watch {
    inner: Weak<Inner>,
    prefix: String,
    /// Everything up to here has been read or is in `ready`.
    cursor: Revision,
    ready: VecDeque<Event>,
    subscription: Subscription,
    ended: bool,
}

/// Opens a watch; fails at once if history does not reach back to `after`.
pub(super) async fn open(
    inner: &Arc<Inner>,
    prefix: &str,
    after: Revision,
) -> Result<WatchStream, StoreError> {
    let subscription = inner.hub.subscribe(prefix, inner.options.watch_batches_max);
    let mut watch = Watch {
        inner: Arc::downgrade(inner),
        prefix: prefix.to_owned(),
        cursor: after,
        ready: VecDeque::new(),
        subscription,
        ended: false,
    };
    watch.replay().await?;
    Ok(Box::pin(stream::unfold(
        watch,
        |mut watch| async move { watch.next().await.map(|event| (event, watch)) },
    )))
}

// === impl Watch ===

impl Watch {
    async fn next(&mut self) -> Option<Result<Event, StoreError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.advance().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    /// Fills `ready` from the log until that is read, then from the hub.
    async fn advance(&mut self) -> Result<(), StoreError> {
        if self.cursor < self.subscription.from {
            return self.replay().await;
        }
        match self.subscription.queue.recv().await {
            Some(batch) => {
                let wanted =
                    batch.iter().filter(|e| e.revision > self.cursor && e.key.starts_with(&self.prefix));
                self.ready.extend(wanted.cloned());
                Ok(())
            }
            None if self.subscription.too_slow.load(Ordering::Acquire) => {
                let events_max = self.subscription.queue.max_capacity();
                Err(StoreError::WatchTooSlow { prefix: self.prefix.clone(), events_max })
            }
            None => {
                Err(StoreError::Unavailable { detail: "the store was closed or opened again".to_owned() })
            }
        }
    }

    async fn replay(&mut self) -> Result<(), StoreError> {
        let inner = self.inner.upgrade();
        let inner =
            inner.ok_or_else(|| StoreError::Unavailable { detail: "the store is closed".to_owned() })?;
        let (prefix, after, until) = (self.prefix.clone(), self.cursor, self.subscription.from);
        if after >= until {
            // A watch from the future begins when it comes.
            return Ok(());
        }
        let database = inner.database()?;
        let (events, last) =
            blocking(move || read::events(&database, &prefix, after, until, REPLAY_ROWS_MAX)).await?;
        self.ready.extend(events);
        self.cursor = last;
        Ok(())
    }
}
