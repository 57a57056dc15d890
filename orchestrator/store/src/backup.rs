//! A backup: every record of one revision in one stream, the same whichever store it was taken from.
//!
//! A backup of the embedded store can be restored into etcd and the other way round. This module knows the form of
//! the stream (`format`), how it is written and read, and what a restored store continues at; the stores know how to
//! give their records and take them. It must not know what a record is of.

mod error;
mod format;
mod reader;
mod writer;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Record, Revision};

pub use error::BackupError;
pub use reader::{Reader, verify};
pub use writer::Writer;

/// More revisions than a store writes between a backup and its loss. A restored store continues so far beyond, that
/// clients which saw later revisions list again instead of mistaking new events for old ones.
pub const REVISIONS_SKIPPED: u64 = 1_000_000_000;

/// What a backup was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Embedded,
    Etcd,
}

/// What a backup says of itself before its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The revision all records are of.
    pub revision: Revision,
    pub taken_unix_seconds: u64,
    pub source: Source,
}

/// One record of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub record: Record,
    /// When the record runs out, in Unix seconds.
    pub expires_unix_seconds: Option<u64>,
}

/// How much has been written or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub records: u64,
    /// Bytes of the records' values.
    pub value_bytes: u64,
}

/// A whole backup, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub header: Header,
    pub total: Progress,
    /// Of everything in the backup.
    pub checksum: u32,
}

/// What a restore made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    pub backup: Summary,
    /// The revision the store continues at: greater than any that was ever given out.
    pub continues_at: Revision,
}

/// Is told of progress now and then. It should not block.
pub type Report<'a> = &'a mut (dyn FnMut(Progress) + Send);

// === impl Header ===

impl Header {
    /// Of a backup taken now.
    pub fn now(revision: Revision, source: Source) -> Self {
        Self { revision, taken_unix_seconds: now_unix_seconds(), source }
    }
}

// === impl Progress ===

impl Progress {
    fn add(&mut self, entry: &Entry) {
        self.records += 1;
        self.value_bytes += entry.record.value.len() as u64;
    }

    /// Whether this is a moment to report: not for every record.
    pub(crate) fn is_worth_a_report(&self) -> bool {
        self.records.is_multiple_of(500)
    }
}

// === impl Source ===

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Embedded => "the embedded store",
            Self::Etcd => "etcd",
        })
    }
}

/// Where a store restored from a backup continues, given the newest revision its place ever gave out.
pub(crate) fn continues_at(header: &Header, newest_there: Revision) -> Revision {
    Revision(header.revision.max(newest_there).0.saturating_add(REVISIONS_SKIPPED))
}

pub(crate) fn now_unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests;
