//! Backup while running, and restore into a new file.
//!
//! A backup is a store file of its own, holding one snapshot with its history. A restored store continues at a
//! revision far beyond the backup's, so that clients which saw later revisions list again instead of mistaking new
//! events for old ones.

use std::fs;
use std::path::Path;

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, Value, WriteTransaction,
};

use super::layout::{self, COMPACTED, EXPIRY, LOG, META, NEWEST, VERSIONS, failed};
use super::{blocking, read};
use crate::{Revision, StoreError};

/// More revisions than a store writes between a backup and its loss.
const RESTORE_REVISIONS_SKIPPED: u64 = 1_000_000_000;
const COPY_CACHE_BYTES: usize = 8 << 20;

/// Copies one snapshot into a file that must not exist yet; gives its revision.
pub(super) fn copy(database: &Database, to: &Path) -> Result<Revision, StoreError> {
    write_beside(to, |partial| {
        let source = database.begin_read().map_err(failed)?;
        let target = layout::open(partial, COPY_CACHE_BYTES)?;
        let transaction = target.begin_write().map_err(failed)?;
        copy_table(&source, &transaction, VERSIONS)?;
        copy_table(&source, &transaction, LOG)?;
        copy_table(&source, &transaction, EXPIRY)?;
        copy_table(&source, &transaction, META)?;
        transaction.commit().map_err(failed)?;
        read::newest(&target)
    })
}

/// Makes a store file from a backup. The target must not exist. Gives the revision the store continues at.
pub async fn restore(from: &Path, to: &Path) -> Result<Revision, StoreError> {
    let (from, to) = (from.to_owned(), to.to_owned());
    blocking(move || {
        write_beside(&to, |partial| {
            fs::copy(&from, partial).map_err(|error| unavailable(&from, &error))?;
            let target = layout::open(partial, COPY_CACHE_BYTES)?;
            let newest = Revision(read::newest(&target)?.0 + RESTORE_REVISIONS_SKIPPED);
            let transaction = target.begin_write().map_err(failed)?;
            {
                let mut meta = transaction.open_table(META).map_err(failed)?;
                for name in [NEWEST, COMPACTED] {
                    meta.insert(name, newest.0).map_err(failed)?;
                }
            }
            transaction.commit().map_err(failed)?;
            Ok(newest)
        })
    })
    .await
}

/// Writes a file under another name first, so that a half-written one is never taken for a whole.
fn write_beside<T>(to: &Path, write: impl FnOnce(&Path) -> Result<T, StoreError>) -> Result<T, StoreError> {
    if to.exists() {
        return Err(StoreError::Unavailable { detail: format!("{} exists already", to.display()) });
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    if partial.exists() {
        fs::remove_file(partial).map_err(|error| unavailable(partial, &error))?;
    }
    let written = write(partial)?;
    fs::rename(partial, to).map_err(|error| unavailable(to, &error))?;
    Ok(written)
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    source: &ReadTransaction,
    target: &WriteTransaction,
    table: TableDefinition<K, V>,
) -> Result<(), StoreError> {
    let rows = source.open_table(table).map_err(failed)?;
    let mut copy = target.open_table(table).map_err(failed)?;
    for row in rows.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        copy.insert(key.value(), value.value()).map_err(failed)?;
    }
    Ok(())
}

fn unavailable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable { detail: format!("{}: {error}", path.display()) }
}
