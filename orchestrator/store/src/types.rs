//! The words of the store: revisions, records, writes, pages, events, and the trait over them.
//!
//! They exist so that the API server is written once against any database. They must not name a database,
//! and hold no policy beyond the limits every implementation shares.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

use crate::StoreError;

/// The largest value a record may hold, in bytes (1.5 MiB, etcd's default limit for a request).
pub const VALUE_BYTES_MAX: usize = 1_572_864;

/// The longest key a record may have, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;

/// A point in the store's history. One counter for the whole store; 0 means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// One stored value with the revisions that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    pub value: Bytes,
    /// The revision that created the key (since it was last absent).
    pub created: Revision,
    /// The revision that last wrote it.
    pub modified: Revision,
}

/// What must hold of the key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything. A delete still needs the key to exist.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Revision(Revision),
}

/// What a write does to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Stores the value. With a time to live the record is deleted (an ordinary event) some seconds after it
    /// ran out; a later put without one makes the record permanent again.
    Put { value: Bytes, lease_ttl_seconds: Option<u64> },
    /// Removes the key. Deleting an absent key is a conflict whose current record is none.
    Delete,
}

/// One compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub expect: Expect,
    pub mutation: Mutation,
}

/// A write that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision of this write; for a put, the record's new `modified`.
    pub revision: Revision,
    /// What the key held before.
    pub previous: Option<Record>,
}

/// A question for the records under a prefix, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    pub prefix: String,
    /// The snapshot to read; none reads the newest.
    pub at: Option<Revision>,
    /// Only keys after this one (exclusive).
    pub after: Option<String>,
    /// At most this many records.
    pub limit: Option<usize>,
    /// Whether [`Page::remaining`] is wanted. It may cost as much as reading all that remains.
    pub count_remaining: bool,
}

/// Records of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub records: Vec<Record>,
    /// The snapshot the page is of. Pass it as `at` to read on.
    pub revision: Revision,
    /// Whether the limit cut the answer short.
    pub more: bool,
    /// How many records of the snapshot follow the page; none if that is not known, which it is when it was asked for
    /// and when nothing follows.
    pub remaining: Option<u64>,
}

/// One change. `current` is none when the key was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: Revision,
    pub key: String,
    pub current: Option<Record>,
    pub previous: Option<Record>,
}

/// Events in revision order. After an error the stream ends.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Event, StoreError>> + Send>>;

/// A versioned key-value store.
///
/// Reads are linearizable: they see every write that was acknowledged before they began.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest record of a key.
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError>;

    /// The records under a prefix. [`StoreError::Compacted`] when `at` is older than history, and
    /// [`StoreError::FutureRevision`] when it has not happened yet.
    async fn list(&self, request: ListRequest) -> Result<Page, StoreError>;

    /// Compare and set. The write is durable when this returns; [`StoreError::Conflict`] carries what the key
    /// holds instead.
    async fn commit(&self, write: Write) -> Result<Committed, StoreError>;

    /// Every event under the prefix with a revision greater than `after`, in order, without end.
    /// [`StoreError::Compacted`] (here or as the stream's last item) when history no longer reaches back so far.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError>;

    /// The newest revision.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// Forgets history before the revision: snapshots and watches from earlier points become
    /// [`StoreError::Compacted`]. Reading at `before` itself stays possible.
    async fn compact(&self, before: Revision) -> Result<(), StoreError>;
}

// === impl Revision ===

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Write ===

impl Write {
    /// Refuses keys and values beyond the limits every store shares, before any database sees them.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.key.is_empty() || self.key.len() > KEY_BYTES_MAX || self.key.contains('\0') {
            return Err(StoreError::InvalidKey { key: self.key.chars().take(128).collect() });
        }
        if let Mutation::Put { value, .. } = &self.mutation
            && value.len() > VALUE_BYTES_MAX
        {
            return Err(StoreError::TooLarge {
                key: self.key.clone(),
                value_bytes: value.len(),
                value_bytes_max: VALUE_BYTES_MAX,
            });
        }
        Ok(())
    }
}
