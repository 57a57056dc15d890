//! The feed: one watch on the whole store, handing each event to the cache whose prefix it falls under.
//!
//! A hundred caches cost one store watch and one task. Because the feed sees every event, its position is every
//! cache's position: an idle resource is known to be current without asking the database. It must not know what
//! the caches decode.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use parking_lot::RwLock;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Event, Revision, Store, StoreError, WatchStream};

/// How many events are applied before the position is published again.
const BATCH_EVENTS_MAX: usize = 1024;
const BACKOFF_MS_MIN: u64 = 50;
const BACKOFF_MS_MAX: u64 = 5_000;

/// The one watch behind all caches of a store. It starts with the first cache that is used and ends when dropped.
pub struct Feed {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    started: OnceCell<()>,
    _stop: DropGuard,
    stopped: CancellationToken,
}

/// What the feed's task and its caches both touch.
struct Shared {
    /// Every event up to here has been applied by every attached cache.
    position: watch::Sender<Revision>,
    sinks: RwLock<Vec<Weak<dyn Sink>>>,
}

/// A cache, as the feed sees it.
pub(super) trait Sink: Send + Sync {
    fn prefix(&self) -> &str;
    /// Applies those of the events that are under the prefix. Never blocks.
    fn apply(&self, events: &[Event]);
    /// Events were lost: what is cached is void until it is listed again.
    fn lose(&self);
}

// === impl Feed ===

impl Feed {
    /// A feed of everything in the store. Nothing runs until a cache is used.
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        let stopped = CancellationToken::new();
        let shared = Shared { position: watch::Sender::new(Revision(0)), sinks: RwLock::new(Vec::new()) };
        Arc::new(Self {
            store,
            shared: Arc::new(shared),
            started: OnceCell::new(),
            _stop: stopped.clone().drop_guard(),
            stopped,
        })
    }

    /// The store the feed reads.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Every event up to this revision is in the caches.
    pub fn position(&self) -> Revision {
        *self.shared.position.borrow()
    }

    /// Follows the position: bookmarks and consistent reads wait on it.
    pub fn positions(&self) -> watch::Receiver<Revision> {
        self.shared.position.subscribe()
    }

    /// Starts the watch at the store's present revision, once.
    pub(super) async fn ensure_started(&self) -> Result<(), StoreError> {
        self.started
            .get_or_try_init(|| async {
                let start = self.store.revision().await?;
                let stream = self.store.watch("", start).await?;
                self.shared.position.send_replace(start);
                let task = Task { store: self.store.clone(), shared: self.shared.clone() };
                let stopped = self.stopped.clone();
                tokio::spawn(async move {
                    tokio::select! { () = stopped.cancelled() => {}, () = task.run(start, stream) => {} }
                });
                Ok(())
            })
            .await
            .copied()
    }

    /// From now on the sink is given every event under its prefix.
    pub(super) fn attach(&self, sink: Weak<dyn Sink>) {
        self.shared.sinks.write().push(sink);
    }
}

/// The feed's running half. It holds no cache alive.
struct Task {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
}

// === impl Task ===

impl Task {
    async fn run(self, mut position: Revision, mut stream: WatchStream) {
        let mut backoff_ms = BACKOFF_MS_MIN;
        loop {
            let error = self.follow(&mut position, stream, &mut backoff_ms).await;
            tracing::warn!(%error, %position, "the store watch ended; resuming");
            let mut lost = matches!(error, StoreError::Compacted { .. });
            stream = loop {
                tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
                backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
                match self.resume(&mut position, &mut lost).await {
                    Ok(stream) => break stream,
                    Err(error) => tracing::warn!(%error, %position, "the store watch could not be resumed"),
                }
            };
        }
    }

    /// Applies events until the stream ends, and says why it did.
    async fn follow(&self, position: &mut Revision, stream: WatchStream, backoff_ms: &mut u64) -> StoreError {
        // Events of one revision (a lease that ran out deletes many keys) are ready together. Applying a chunk
        // under one lock, and publishing the position after it, keeps readers from seeing half of them.
        let mut chunks = stream.ready_chunks(BATCH_EVENTS_MAX);
        while let Some(chunk) = chunks.next().await {
            let mut failed = None;
            let mut events = Vec::with_capacity(chunk.len());
            for event in chunk {
                match event {
                    Ok(event) => events.push(event),
                    Err(error) => failed = Some(error),
                }
            }
            let sinks: Vec<_> = self.shared.sinks.read().iter().filter_map(Weak::upgrade).collect();
            for sink in sinks.iter().filter(|sink| events.iter().any(|e| e.key.starts_with(sink.prefix()))) {
                sink.apply(&events);
            }
            if let Some(last) = events.last() {
                *position = last.revision.max(*position);
                self.shared.position.send_replace(*position);
                *backoff_ms = BACKOFF_MS_MIN;
            }
            if let Some(error) = failed {
                return error;
            }
        }
        StoreError::Unavailable { detail: "the watch ended".to_owned() }
    }

    /// Watches on from the position. When events were lost, makes every cache start over from the present.
    async fn resume(&self, position: &mut Revision, lost: &mut bool) -> Result<WatchStream, StoreError> {
        let newest = self.store.revision().await?;
        // A database put back from a backup is behind what was seen; its new events would be taken for old ones.
        *lost |= newest < *position;
        if !*lost {
            match self.store.watch("", *position).await {
                Err(StoreError::Compacted { .. }) => *lost = true,
                other => return other,
            }
        }
        let stream = self.store.watch("", newest).await?;
        let mut sinks = self.shared.sinks.write();
        sinks.retain(|sink| sink.strong_count() > 0);
        for sink in sinks.iter().filter_map(Weak::upgrade) {
            sink.lose();
        }
        *position = newest;
        self.shared.position.send_replace(newest);
        Ok(stream)
    }
}
