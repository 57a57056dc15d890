//! One watcher of a cache: what it starts with, and a bounded queue of what follows.
//!
//! The cache never waits for a watcher: one whose queue is full is closed and told why. A watcher knows up to which
//! revision it has been told everything, which is what a bookmark says.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::feed::Feed;
use super::state::WatchCache;
use super::{CacheError, CacheEvent, EventFilter, Item};
use crate::Revision;

/// Events of one cache in revision order. After an error the stream ends.
pub struct Watcher<T: Send + Sync + 'static> {
    initial: Vec<Arc<Item<T>>>,
    replay: VecDeque<Arc<CacheEvent<T>>>,
    queue: mpsc::Receiver<Arc<CacheEvent<T>>>,
    /// The start, then the revision of the last event given out.
    told: Revision,
    closed: Arc<Closed>,
    ended: bool,
    events_max: usize,
    id: u64,
    cache: Weak<WatchCache<T>>,
    feed: Arc<Feed>,
}

/// The cache's end of a watcher.
pub(super) struct Slot<T> {
    pub(super) id: u64,
    prefix: String,
    after: Revision,
    filter: Option<EventFilter<T>>,
    queue: mpsc::Sender<Arc<CacheEvent<T>>>,
    closed: Arc<Closed>,
}

/// Why a slot was dropped, readable by its watcher.
#[derive(Default)]
struct Closed(AtomicU8);

const TOO_SLOW: u8 = 1;
const LOST: u8 = 2;

/// How a watcher is asked for.
pub(super) struct Opening<T: Send + Sync + 'static> {
    pub(super) id: u64,
    pub(super) prefix: String,
    pub(super) filter: Option<EventFilter<T>>,
    pub(super) start: Revision,
    pub(super) initial: Vec<Arc<Item<T>>>,
    pub(super) events_max: usize,
    pub(super) cache: Weak<WatchCache<T>>,
    pub(super) feed: Arc<Feed>,
}

// === impl Slot ===

impl<T> Slot<T> {
    /// Whether the event is one the watcher asked for.
    pub(super) fn wants(&self, event: &CacheEvent<T>) -> bool {
        event.revision > self.after
            && event.key.starts_with(&self.prefix)
            && self.filter.as_ref().is_none_or(|filter| filter(event))
    }

    /// Queues an event; false when the watcher is gone or too slow and its slot should be dropped.
    pub(super) fn offer(&self, event: &Arc<CacheEvent<T>>) -> bool {
        if !self.wants(event) {
            return true;
        }
        match self.queue.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.closed.0.store(TOO_SLOW, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// The cache starts over; the watcher cannot be told what happened in between.
    pub(super) fn lose(&self) {
        self.closed.0.store(LOST, Ordering::Release);
    }
}

// === impl Watcher ===

impl<T: Send + Sync + 'static> Watcher<T> {
    /// The two ends of a new watcher.
    pub(super) fn open(opening: Opening<T>) -> (Self, Slot<T>) {
        let events_max = opening.events_max.max(1);
        let (sender, receiver) = mpsc::channel(events_max);
        let closed = Arc::new(Closed::default());
        let slot = Slot {
            id: opening.id,
            prefix: opening.prefix,
            after: opening.start,
            filter: opening.filter,
            queue: sender,
            closed: closed.clone(),
        };
        let watcher = Self {
            initial: opening.initial,
            replay: VecDeque::new(),
            queue: receiver,
            told: opening.start,
            closed,
            ended: false,
            events_max,
            id: opening.id,
            cache: opening.cache,
            feed: opening.feed,
        };
        (watcher, slot)
    }

    pub(super) fn replay(&mut self, events: VecDeque<Arc<CacheEvent<T>>>) {
        self.replay = events;
    }

    /// What the cache held when the watch began, in key order; empty for a watch that resumes. Taken once.
    pub fn take_initial(&mut self) -> Vec<Arc<Item<T>>> {
        std::mem::take(&mut self.initial)
    }

    /// Everything up to this revision has been given out: what a bookmark may say. Meaningful once the initial
    /// items have been passed on.
    pub fn position(&self) -> Revision {
        // Read before looking at the queue: whatever the cache had applied by then is in the queue.
        let applied = self.feed.position();
        if self.replay.is_empty() && self.queue.is_empty() && !self.ended {
            self.told.max(applied)
        } else {
            self.told
        }
    }

    /// The next event; none after an error was given.
    pub async fn next(&mut self) -> Option<Result<Arc<CacheEvent<T>>, CacheError>> {
        StreamExt::next(self).await
    }

    /// The events that are there already, without waiting for one. An error ends the watcher, and says that some are missing.
    pub fn take_ready(&mut self) -> Result<Vec<Arc<CacheEvent<T>>>, CacheError> {
        let mut events: Vec<_> = self.replay.drain(..).collect();
        loop {
            match self.queue.try_recv() {
                Ok(event) => events.push(event),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.ended = true;
                    return Err(self.why_closed());
                }
            }
        }
        self.told = events.last().map_or(self.told, |event| event.revision);
        Ok(events)
    }

    fn why_closed(&self) -> CacheError {
        match self.closed.0.load(Ordering::Acquire) {
            TOO_SLOW => CacheError::TooSlow { events_max: self.events_max },
            _ => CacheError::Compacted { oldest: self.feed.position() },
        }
    }

    fn give(&mut self, event: Arc<CacheEvent<T>>) -> Poll<Option<Result<Arc<CacheEvent<T>>, CacheError>>> {
        self.told = event.revision;
        Poll::Ready(Some(Ok(event)))
    }
}

impl<T: Send + Sync + 'static> Stream for Watcher<T> {
    type Item = Result<Arc<CacheEvent<T>>, CacheError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(event) = self.replay.pop_front() {
            return self.give(event);
        }
        match self.queue.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(event)) => self.give(event),
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(Some(Err(self.why_closed())))
            }
        }
    }
}

impl<T: Send + Sync + 'static> Unpin for Watcher<T> {}

impl<T: Send + Sync + 'static> Drop for Watcher<T> {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.forget(self.id);
        }
    }
}
