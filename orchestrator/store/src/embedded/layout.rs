//! The file: which tables there are, how their rows are written, and how the file is opened.
//!
//! Rows carry a checksum of key and content, compared at every read, because redb verifies its own only after a
//! crash and when asked. This is the only module that knows bytes.
//!
//! | table    | row                                                                     |
//! |----------|-------------------------------------------------------------------------|
//! | versions | key, 0, revision (8, big endian) → kind (1), created (8), crc (4), value |
//! | log      | revision → change (1), previous version's revision (8), crc (4), key     |
//! | expiry   | deadline in Unix seconds, revision → key                                 |
//! | meta     | name → number                                                            |

use std::collections::hash_map::RandomState;
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

use crate::{Record, Revision, StoreError};

pub(super) const VERSIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("versions");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const EXPIRY: TableDefinition<(u64, u64), &str> = TableDefinition::new("expiry");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Names in `meta`.
pub(super) const FORMAT: &str = "format";
pub(super) const NEWEST: &str = "newest";
/// Snapshots and watches reach back to here.
pub(super) const COMPACTED: &str = "compacted";
/// Log rows up to here are gone; it follows `COMPACTED` in small steps.
pub(super) const SWEPT: &str = "swept";

/// Which store this is, drawn by lot when it is made: the journal of another one is not taken for its own.
pub(super) const STORE: &str = "store";
/// The last batch of the journal that is in the database.
pub(super) const SEQUENCE: &str = "sequence";

/// Format 1 had no journal: a program that knows no other must not open a store whose last writes are in one.
pub(super) const FORMAT_NUMBER: u64 = 2;
const FORMAT_WITHOUT_JOURNAL: u64 = 1;
const VERSION_HEADER_BYTES: usize = 1 + 8 + 4;
const LOG_HEADER_BYTES: usize = 1 + 8 + 4;
const PUT: u8 = 1;
const TOMBSTONE: u8 = 2;

/// What a revision did to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Change {
    Created = 1,
    Updated = 2,
    Deleted = 3,
}

/// A row of `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogRow {
    pub(super) change: Change,
    /// The version this one replaced; 0 for a creation.
    pub(super) previous: Revision,
    pub(super) key: String,
}

/// Opens or creates the file and makes sure its tables exist. What it creates is for its owner only: Secrets are in
/// it.
pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Database, StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(directory) = parent {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| unopened(path, &error))?;
    }
    let created = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(unopened(path, &error)),
    };
    let reported = path.to_owned();
    let database = Builder::new()
        .set_cache_size(cache_bytes)
        .set_check_integrity_on_open(true)
        .set_repair_callback(move |session| {
            if session.progress() == 0.0 {
                tracing::debug!(path = %reported.display(), "checking the database");
            }
        })
        .create(path)
        .map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.display().to_string() },
            error => failed(error),
        })?;
    prepare(&database)?;
    if created {
        // The file's name must survive a crash as well as its content.
        File::open(parent.unwrap_or(Path::new(".")))
            .and_then(|file| file.sync_all())
            .map_err(|error| unopened(path, &error))?;
    }
    Ok(database)
}

/// Makes what is missing: everything in a new file, what the journal needs in one of format 1.
pub(super) fn prepare(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let found = match transaction.open_table(META) {
        Ok(meta) => meta.get(FORMAT).map_err(failed)?.map(|row| row.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(failed(error)),
    };
    drop(transaction);
    match found {
        Some(FORMAT_NUMBER) => return Ok(()),
        None | Some(FORMAT_WITHOUT_JOURNAL) => {}
        Some(found) => {
            return Err(StoreError::Corrupt {
                detail: format!("the file has format {found}, this program reads up to {FORMAT_NUMBER}"),
            });
        }
    }
    let transaction = database.begin_write().map_err(failed)?;
    {
        let mut meta = transaction.open_table(META).map_err(failed)?;
        // std's hashers are keyed by the system's random numbers.
        let store = RandomState::new().build_hasher().finish();
        for (name, number) in [(FORMAT, FORMAT_NUMBER), (STORE, store), (SEQUENCE, 0)] {
            meta.insert(name, number).map_err(failed)?;
        }
        if found.is_none() {
            if meta.get(NEWEST).map_err(failed)?.is_some() {
                return Err(StoreError::Corrupt { detail: "the file has no format".to_owned() });
            }
            // Revision 0 means "none" and 1 is the empty store's, as in etcd: a list of it has a usable revision.
            for name in [NEWEST, COMPACTED, SWEPT] {
                meta.insert(name, 1).map_err(failed)?;
            }
            transaction.open_table(VERSIONS).map_err(failed)?;
            transaction.open_table(LOG).map_err(failed)?;
            transaction.open_table(EXPIRY).map_err(failed)?;
        }
    }
    transaction.commit().map_err(failed)
}

/// Which store this is.
pub(super) fn store_number(database: &Database) -> Result<u64, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let meta = transaction.open_table(META).map_err(failed)?;
    Ok(meta.get(STORE).map_err(failed)?.ok_or_else(|| damaged(STORE))?.value())
}

/// Makes a transaction one that the next durable one makes durable.
pub(super) fn without_sync(transaction: &mut WriteTransaction) -> Result<(), StoreError> {
    transaction.set_durability(Durability::None).map_err(|error| StoreError::Unavailable {
        detail: format!("the database takes no batches: {error}"),
    })
}

/// The row key of one version.
pub(super) fn version_key(key: &str, revision: Revision) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 9);
    bytes.extend_from_slice(key.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&revision.0.to_be_bytes());
    bytes
}

/// The key and revision of a row key.
pub(super) fn parse_version_key(bytes: &[u8]) -> Result<(&str, Revision), StoreError> {
    let split = bytes.len().checked_sub(9).filter(|at| bytes[*at] == 0);
    let (key, revision) =
        split.map(|at| (&bytes[..at], &bytes[at + 1..])).ok_or_else(|| damaged("a version's key"))?;
    let key = str::from_utf8(key).map_err(|_| damaged("a version's key"))?;
    Ok((key, Revision(big_endian(revision))))
}

/// The row of a version; no value is a tombstone.
pub(super) fn encode_version(row_key: &[u8], created: Revision, value: Option<&[u8]>) -> Vec<u8> {
    let content = value.unwrap_or_default();
    let kind = if value.is_some() { PUT } else { TOMBSTONE };
    let mut row = Vec::with_capacity(VERSION_HEADER_BYTES + content.len());
    row.push(kind);
    row.extend_from_slice(&created.0.to_le_bytes());
    row.extend_from_slice(&checksum(row_key, kind, created.0, content).to_le_bytes());
    row.extend_from_slice(content);
    row
}

/// Whether the row is a put, without looking at its content.
pub(super) fn is_put(row: &[u8]) -> bool {
    row.first() == Some(&PUT)
}

/// The record of a version; none for a tombstone.
pub(super) fn decode_version(row_key: &[u8], row: &[u8]) -> Result<Option<Record>, StoreError> {
    let (key, modified) = parse_version_key(row_key)?;
    let (header, content) = row.split_at_checked(VERSION_HEADER_BYTES).ok_or_else(|| damaged(key))?;
    let (kind, created) = (header[0], little_endian(&header[1..9]));
    if checksum(row_key, kind, created, content).to_le_bytes() != header[9..] {
        return Err(damaged(key));
    }
    match kind {
        TOMBSTONE => Ok(None),
        PUT => Ok(Some(Record {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(content),
            created: Revision(created),
            modified,
        })),
        _ => Err(damaged(key)),
    }
}

pub(super) fn encode_log(revision: Revision, row: &LogRow) -> Vec<u8> {
    let kind = row.change as u8;
    let mut bytes = Vec::with_capacity(LOG_HEADER_BYTES + row.key.len());
    bytes.push(kind);
    bytes.extend_from_slice(&row.previous.0.to_le_bytes());
    let sum = checksum(&revision.0.to_be_bytes(), kind, row.previous.0, row.key.as_bytes());
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(row.key.as_bytes());
    bytes
}

pub(super) fn decode_log(revision: Revision, bytes: &[u8]) -> Result<LogRow, StoreError> {
    let named = || damaged(&format!("the log at revision {revision}"));
    let (header, key) = bytes.split_at_checked(LOG_HEADER_BYTES).ok_or_else(named)?;
    let (kind, previous) = (header[0], little_endian(&header[1..9]));
    if checksum(&revision.0.to_be_bytes(), kind, previous, key).to_le_bytes() != header[9..] {
        return Err(named());
    }
    let change = match kind {
        1 => Change::Created,
        2 => Change::Updated,
        3 => Change::Deleted,
        _ => return Err(named()),
    };
    let key = str::from_utf8(key).map_err(|_| named())?.to_owned();
    Ok(LogRow { change, previous: Revision(previous), key })
}

/// One place where redb's many errors become the store's.
pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(detail) => StoreError::Corrupt { detail },
        redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
            StoreError::Unavailable { detail: "the disk is full".to_owned() }
        }
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            StoreError::Corrupt { detail: format!("the file is not a database of this program: {error}") }
        }
        error => StoreError::Unavailable { detail: error.to_string() },
    }
}

/// A row that is not what was written.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt { detail: format!("the row of {what} fails its checksum or has no known form") }
}

fn unopened(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable { detail: format!("cannot open {}: {error}", path.display()) }
}

fn checksum(row_key: &[u8], kind: u8, number: u64, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(row_key);
    hasher.update(&[kind]);
    hasher.update(&number.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_version_reads_back_as_it_was_written(key in "[^\0]{1,40}", created: u64, modified: u64, value: Vec<u8>) {
            let row_key = version_key(&key, Revision(modified));
            let row = encode_version(&row_key, Revision(created), Some(&value));
            let record = decode_version(&row_key, &row).unwrap().unwrap();
            prop_assert_eq!(record.key, key);
            prop_assert_eq!((record.created.0, record.modified.0), (created, modified));
            prop_assert_eq!(record.value, value);
        }

        #[test]
        fn a_flipped_bit_anywhere_in_a_version_is_noticed(value: Vec<u8>, position: prop::sample::Index, bit in 0u32..8) {
            let row_key = version_key("/registry/core/pods/a/b", Revision(7));
            let mut row = encode_version(&row_key, Revision(3), Some(&value));
            let at = position.index(row.len());
            row[at] ^= 1u8 << bit;
            let answer = decode_version(&row_key, &row);
            prop_assert!(matches!(answer, Err(StoreError::Corrupt { .. })), "{:?}", answer);
        }

        #[test]
        fn a_log_row_reads_back_as_it_was_written(key in "[^\0]{1,40}", revision: u64, previous: u64) {
            let row = LogRow { change: Change::Updated, previous: Revision(previous), key };
            let bytes = encode_log(Revision(revision), &row);
            prop_assert_eq!(decode_log(Revision(revision), &bytes).unwrap(), row);
            prop_assert!(decode_log(Revision(revision ^ 1), &bytes).is_err());
        }
    }

    #[test]
    fn versions_of_a_key_sort_together_and_by_age() {
        let mut rows = [
            version_key("/a/b", Revision(300)),
            version_key("/a", Revision(1)),
            version_key("/a", Revision(256)),
        ];
        rows.sort();
        let keys: Vec<_> = rows.iter().map(|row| parse_version_key(row).unwrap()).collect();
        assert_eq!(keys, [("/a", Revision(1)), ("/a", Revision(256)), ("/a/b", Revision(300))]);
    }

    #[test]
    fn bytes_that_are_no_row_are_reported_not_read() {
        assert!(parse_version_key(b"short").is_err());
        assert!(decode_version(&version_key("/a", Revision(1)), b"x").is_err());
        assert!(decode_log(Revision(1), b"").is_err());
    }
}
