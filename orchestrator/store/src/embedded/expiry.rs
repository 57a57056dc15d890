//! Records with a time to live: finding those that ran out, by an index of deadlines.
//!
//! A row of the index is only a hint: the record may have been written again since, which makes the row void. So
//! writes never have to look for the row of the version they replace.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redb::ReadableTable;

use super::apply::Tables;
use super::layout::failed;
use super::read;
use crate::{Expect, Mutation, Revision, StoreError, Write};

pub(super) fn now_unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The earliest deadline, in Unix seconds.
pub(super) fn next_deadline(tables: &Tables<'_>) -> Result<Option<u64>, StoreError> {
    let first = tables.expiry.first().map_err(failed)?;
    Ok(first.map(|(row, _)| row.value().0))
}

/// Takes at most `rows_max` rows whose time has come off the index; gives the deletions that are due.
pub(super) fn take_due(tables: &mut Tables<'_>, now: u64, rows_max: usize) -> Result<Vec<Write>, StoreError> {
    let mut rows = Vec::new();
    for row in tables.expiry.range(..=(now, u64::MAX)).map_err(failed)?.take(rows_max) {
        let (at, key) = row.map_err(failed)?;
        rows.push((at.value(), key.value().to_owned()));
    }
    let mut due = Vec::new();
    for (at, key) in rows {
        tables.expiry.remove(at).map_err(failed)?;
        let revision = Revision(at.1);
        if read::latest(&tables.versions, &key)?.is_some_and(|record| record.modified == revision) {
            due.push(Write { key, expect: Expect::Revision(revision), mutation: Mutation::Delete });
        }
    }
    Ok(due)
}
