//! Reads: one key, a page of a snapshot, a stretch of the log. All from one redb snapshot, none waits for a write.

use std::ops::Bound;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::layout::{
    COMPACTED, Change, LOG, META, NEWEST, VERSIONS, damaged, decode_log, decode_version, failed, is_put,
    parse_version_key, version_key,
};
use crate::{Event, ListRequest, Page, Record, Revision, StoreError};

pub(super) fn newest(database: &Database) -> Result<Revision, StoreError> {
    meta(&database.begin_read().map_err(failed)?, NEWEST)
}

pub(super) fn get(database: &Database, key: &str) -> Result<Option<Record>, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    latest(&transaction.open_table(VERSIONS).map_err(failed)?, key)
}

/// The newest version of a key, none if it is absent or deleted.
pub(super) fn latest(
    versions: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &str,
) -> Result<Option<Record>, StoreError> {
    let (first, last) = (version_key(key, Revision(0)), version_key(key, Revision(u64::MAX)));
    let newest = versions.range(first.as_slice()..=last.as_slice()).map_err(failed)?.next_back();
    match newest.transpose().map_err(failed)? {
        None => Ok(None),
        Some((row_key, row)) => decode_version(row_key.value(), row.value()),
    }
}

/// A page of the records under a prefix as they were at a revision.
pub(super) fn list(database: &Database, request: &ListRequest) -> Result<Page, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let newest = meta(&transaction, NEWEST)?;
    let revision = match request.at {
        None => newest,
        Some(at) if at > newest => {
            return Err(StoreError::FutureRevision { requested: at, newest });
        }
        Some(at) => {
            let oldest = meta(&transaction, COMPACTED)?;
            if at < oldest {
                return Err(StoreError::Compacted { oldest });
            }
            at
        }
    };

    let prefix = request.prefix.as_bytes();
    let after = request.after.as_deref().filter(|after| after.as_bytes() > prefix);
    let start = after.map_or_else(|| prefix.to_vec(), |after| version_key(after, Revision(u64::MAX)));
    let versions = transaction.open_table(VERSIONS).map_err(failed)?;
    let mut rows =
        versions.range::<&[u8]>((Bound::Included(start.as_slice()), Bound::Unbounded)).map_err(failed)?;

    let limit = request.limit.unwrap_or(usize::MAX);
    let mut page = Page { records: Vec::new(), revision, more: false, remaining: None };
    let mut following = 0;
    // Versions of one key are neighbours, oldest first: the last one not newer than the snapshot counts.
    let mut candidate = None;
    loop {
        let row = rows.next().transpose().map_err(failed)?;
        let row = row.filter(|(row_key, _)| row_key.value().starts_with(prefix));
        let same_key = match (&row, &candidate) {
            (Some((row_key, _)), Some((known, _))) => key_of(row_key.value()) == key_of(redb_bytes(known)),
            _ => false,
        };
        if !same_key && let Some((row_key, version)) = candidate.take() {
            let version = redb_bytes(&version);
            if page.records.len() < limit {
                page.records.extend(decode_version(redb_bytes(&row_key), version)?);
            } else if is_put(version) {
                following += 1;
                if !request.count_remaining {
                    // One says that there are more; how many would have to be counted to the end.
                    page.more = true;
                    return Ok(page);
                }
            }
        }
        let Some((row_key, version)) = row else { break };
        if parse_version_key(row_key.value())?.1 <= revision {
            candidate = Some((row_key, version));
        }
    }
    page.more = following > 0;
    page.remaining = Some(following);
    Ok(page)
}

fn redb_bytes<'a>(guard: &'a redb::AccessGuard<'_, &'static [u8]>) -> &'a [u8] {
    guard.value()
}

fn key_of(row_key: &[u8]) -> &[u8] {
    &row_key[..row_key.len().saturating_sub(9)]
}

/// Events of the log with `after < revision <= until`, at most `rows_max` rows of it, those under the prefix; and the
/// revision of the last row looked at.
pub(super) fn events(
    database: &Database,
    prefix: &str,
    after: Revision,
    until: Revision,
    rows_max: usize,
) -> Result<(Vec<Event>, Revision), StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let oldest = meta(&transaction, COMPACTED)?;
    if after < oldest {
        return Err(StoreError::Compacted { oldest });
    }
    let log = transaction.open_table(LOG).map_err(failed)?;
    let versions = transaction.open_table(VERSIONS).map_err(failed)?;
    let version = |key: &str, revision: Revision| -> Result<Option<Record>, StoreError> {
        let row_key = version_key(key, revision);
        match versions.get(row_key.as_slice()).map_err(failed)? {
            Some(row) => decode_version(&row_key, row.value()),
            None => Err(damaged(key)),
        }
    };
    let mut found = Vec::new();
    let mut last = until;
    let mut rows = 0;
    for row in log.range(after.0 + 1..=until.0).map_err(failed)? {
        let (revision, bytes) = row.map_err(failed)?;
        let revision = Revision(revision.value());
        let row = decode_log(revision, bytes.value())?;
        if row.key.starts_with(prefix) {
            let current = if row.change == Change::Deleted { None } else { version(&row.key, revision)? };
            let previous =
                if row.change == Change::Created { None } else { version(&row.key, row.previous)? };
            found.push(Event { revision, key: row.key, current, previous });
        }
        rows += 1;
        if rows >= rows_max {
            last = revision;
            break;
        }
    }
    Ok((found, last))
}

pub(super) fn meta(transaction: &ReadTransaction, name: &str) -> Result<Revision, StoreError> {
    let meta = transaction.open_table(META).map_err(failed)?;
    let number = meta.get(name).map_err(failed)?.ok_or_else(|| damaged(name))?.value();
    Ok(Revision(number))
}
