//! The watch cache: one decoded copy of every record of a resource, shared by all who read and watch it.
//!
//! The API server answers lists, gets and watches from here, so that their cost does not grow with the database's
//! and a change is decoded once however many watch it. One [`Feed`] reads the store's events for all caches; a
//! [`WatchCache`] is one prefix of it, started by its first use. The cache knows keys, revisions and a decode
//! function; it must not know what it caches, nor how watchers encode it.

mod feed;
mod ring;
mod snapshot;
mod sorted;
mod state;
mod watcher;

use std::sync::Arc;

use crate::{Record, Revision, StoreError};

pub use feed::Feed;
pub use snapshot::{CachePage, Snapshot};
pub use state::WatchCache;
pub use watcher::Watcher;

/// Why a record could not be decoded.
pub type DecodeError = Box<dyn std::error::Error + Send + Sync>;

/// Chooses the events a watcher is queued for, so that thousands of narrow watchers cost no wake-up each.
pub type EventFilter<T> = Box<dyn Fn(&CacheEvent<T>) -> bool + Send + Sync>;

/// One decoded record.
#[derive(Debug)]
pub struct Item<T> {
    pub key: Arc<str>,
    pub created: Revision,
    /// The revision of this version of the record: its resourceVersion.
    pub revision: Revision,
    /// Length of the encoded record.
    pub value_bytes: usize,
    pub value: T,
}

/// One change of the cache. `current` is none for a deletion; `previous` is none for a creation.
#[derive(Debug)]
pub struct CacheEvent<T> {
    pub revision: Revision,
    pub key: Arc<str>,
    pub current: Option<Arc<Item<T>>>,
    pub previous: Option<Arc<Item<T>>>,
}

/// The bounds of one cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    /// How many recent events are kept for watchers that come back.
    pub ring_events_max: usize,
    /// How many bytes of encoded records those events may stand for.
    pub ring_bytes_max: usize,
    /// How many events a watcher may lag before it is closed.
    pub watcher_events_max: usize,
}

/// Why the cache could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// The asked revision is no longer in the ring of recent events: list again.
    #[error("the requested revision is too old; the oldest one that can be resumed from is {oldest}")]
    Compacted { oldest: Revision },

    /// The watcher did not keep up and was closed: list again or resume from the last event seen.
    #[error("the watcher fell behind by more than {events_max} events and was closed")]
    TooSlow { events_max: usize },

    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Turns a record into what the cache shares.
pub(crate) type Decode<T> = Box<dyn Fn(&Record) -> Result<T, DecodeError> + Send + Sync>;

// === impl CacheOptions ===

impl Default for CacheOptions {
    fn default() -> Self {
        Self { ring_events_max: 1024, ring_bytes_max: 4 << 20, watcher_events_max: 1024 }
    }
}
