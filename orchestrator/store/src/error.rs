//! Everything a store can answer instead of a result, in words an operator can act on.
//!
//! Callers decide by variant (a conflict is retried, a compaction is a relist); the text is for people. Causes
//! of one database do not leak in as types, only as sources.

use crate::{Record, Revision};

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The key does not hold what the write expected.
    #[error("the record {key} is {}, which is not what the write expected", describe(.current))]
    Conflict { key: String, current: Option<Record> },

    /// History no longer reaches the asked revision. `oldest` is the first still readable one, 0 if unknown.
    #[error("the requested revision has been compacted; the oldest one kept is {oldest}")]
    Compacted { oldest: Revision },

    /// The asked revision has not happened.
    #[error("revision {requested} has not happened yet; the newest is {newest}")]
    FutureRevision { requested: Revision, newest: Revision },

    /// The value is beyond the limit.
    #[error("the value of {key} has {value_bytes} bytes; at most {value_bytes_max} can be stored")]
    TooLarge { key: String, value_bytes: usize, value_bytes_max: usize },

    /// The key is empty, too long, or contains a zero byte.
    #[error("{key:?} is not a usable key: it must have 1 to 4096 bytes and no zero byte")]
    InvalidKey { key: String },

    /// A watcher did not read its events fast enough, and the store let go of it.
    #[error("the watch on {prefix} fell behind by more than {events_max} batches and was closed")]
    WatchTooSlow { prefix: String, events_max: usize },

    /// Another process has the database open.
    #[error("the database {path} is in use by another process")]
    Locked { path: String },

    /// The database holds bytes that are not what was written. Nothing was repaired.
    #[error("the database is corrupt: {detail}; restore it from a backup")]
    Corrupt { detail: String },

    /// The database may not grow further. Deletions are still taken.
    #[error("the store is full: {detail}")]
    Full { detail: String },

    /// The database cannot be reached or cannot write (disk full, connection lost, shutting down).
    #[error("the store is unavailable: {detail}")]
    Unavailable { detail: String },
}

fn describe(current: &Option<Record>) -> String {
    match current {
        None => "absent".to_owned(),
        Some(record) => format!("at revision {}", record.modified),
    }
}
