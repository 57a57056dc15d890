//! The integrity check: every page by redb's checksums, every row by ours, and whether the tables agree.
//!
//! It reports and repairs nothing. A running store is checked by rows, from a snapshot; a file that nobody has open
//! by its pages as well.

use std::path::Path;

use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::layout::{
    COMPACTED, Change, EXPIRY, FORMAT, FORMAT_NUMBER, LOG, META, NEWEST, SEQUENCE, STORE, SWEPT, VERSIONS,
    decode_log, decode_version, failed, parse_version_key, version_key,
};
use super::overlay::Overlay;
use super::{blocking, journal, layout};
use crate::{Revision, StoreError};

/// Findings that are told one by one; the others are counted.
const FINDINGS_MAX: usize = 100;
const CACHE_BYTES: usize = 32 << 20;

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Whether pages were checked too, not rows only.
    pub pages: bool,
    pub newest: Revision,
    /// The oldest revision that can still be read.
    pub oldest: Revision,
    /// Records that are there now, and all versions of these and others that history holds.
    pub records: u64,
    pub versions: u64,
    pub log_rows: u64,
    /// Batches of writes that were in the journal alone.
    pub journal_batches: u64,
    pub findings: Vec<Finding>,
    /// Findings beyond those that are told.
    pub findings_untold: u64,
}

/// One thing that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, and with what: a key, a revision, a page.
    pub what: String,
    /// What to do about it.
    pub advice: &'static str,
}

const RESTORE: &str = "restore the store from a backup (`orchestrator restore`)";
const REWRITE: &str = "delete the object and create it again, or restore the store from a backup \
                       (`orchestrator restore`)";
const HISTORY: &str = "the objects themselves are whole: back the store up and restore it \
                       (`orchestrator backup`, `orchestrator restore --replace`), which leaves history behind";

/// Checks a file that nobody has open with its journal, and leaves both as they are.
pub async fn check(path: &Path) -> Result<Checked, StoreError> {
    let path = path.to_owned();
    blocking(move || {
        let unopened = |error: std::io::Error| StoreError::Unavailable {
            detail: format!("cannot open {}: {error}", path.display()),
        };
        // The lock of whoever has the file open.
        let lock = std::fs::File::open(&path).map_err(unopened)?;
        if lock.try_lock_shared().is_err() {
            return Err(StoreError::Locked { path: path.display().to_string() });
        }
        let overlay = Overlay::open(&path).map_err(unopened)?;
        let opened = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(overlay)
            .map_err(failed);
        let mut checked = Checked { pages: true, ..Checked::default() };
        match opened {
            Err(StoreError::Corrupt { detail }) => {
                checked.find(format!("the file's pages: {detail}"), RESTORE);
            }
            Err(error) => return Err(error),
            Ok(mut database) => {
                match database.check_integrity() {
                    Ok(true) => {}
                    Ok(false) => checked.find("the file's pages did not all agree".to_owned(), HISTORY),
                    Err(error) => match failed(error) {
                        StoreError::Corrupt { detail } => {
                            checked.find(format!("the file's pages: {detail}"), RESTORE);
                        }
                        error => return Err(error),
                    },
                }
                take_journal(&database, &path, &mut checked)?;
                rows(&database, &mut checked)?;
            }
        }
        Ok(checked)
    })
    .await
}

/// Applies the journal as an opening would. The database is one whose writes stay in memory.
fn take_journal(database: &Database, path: &Path, checked: &mut Checked) -> Result<(), StoreError> {
    let replayed =
        layout::prepare(database).and_then(|()| journal::replay(database, &journal::read(path)?, |_| Ok(())));
    match replayed {
        Ok((batches, _)) => checked.journal_batches = batches as u64,
        Err(StoreError::Corrupt { detail }) => checked.find(detail, RESTORE),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Checks every row of one snapshot. Only what keeps it from reading on is an error.
pub(super) fn rows(database: &Database, checked: &mut Checked) -> Result<(), StoreError> {
    let snapshot = database.begin_read().map_err(failed)?;
    let examined = examine(&snapshot, checked);
    match examined {
        Err(StoreError::Corrupt { detail }) => {
            checked.find(detail, RESTORE);
            Ok(())
        }
        other => other,
    }
}

fn examine(snapshot: &ReadTransaction, checked: &mut Checked) -> Result<(), StoreError> {
    let meta = snapshot.open_table(META).map_err(failed)?;
    let mut number = |name: &str| -> Result<u64, StoreError> {
        let found = meta.get(name).map_err(failed)?.map(|row| row.value());
        if found.is_none() {
            checked.find(format!("the number {name} is missing"), RESTORE);
        }
        Ok(found.unwrap_or_default())
    };
    let format = number(FORMAT)?;
    let (newest, compacted, swept) = (number(NEWEST)?, number(COMPACTED)?, number(SWEPT)?);
    for name in [STORE, SEQUENCE] {
        number(name)?;
    }
    if format != FORMAT_NUMBER {
        checked.find(format!("the store has format {format}, this program knows {FORMAT_NUMBER}"), RESTORE);
    }
    if swept > compacted || compacted > newest {
        let what = format!(
            "the newest revision is {newest}, history begins at {compacted}, and was swept to {swept}"
        );
        checked.find(what, RESTORE);
    }
    (checked.newest, checked.oldest) = (Revision(newest), Revision(compacted));
    versions(snapshot, checked)?;
    log(snapshot, checked, swept)?;
    expiry(snapshot, checked)
}

fn versions(snapshot: &ReadTransaction, checked: &mut Checked) -> Result<(), StoreError> {
    let table = snapshot.open_table(VERSIONS).map_err(failed)?;
    // The key at hand, and whether its newest version is a record.
    let mut at_hand: Option<(Vec<u8>, bool)> = None;
    for row in table.iter().map_err(failed)? {
        let (row_key, row) = row.map_err(failed)?;
        let row_key = row_key.value();
        checked.versions += 1;
        let Ok((key, revision)) = parse_version_key(row_key) else {
            checked.find(format!("a version has no readable key: {}", row_key.escape_ascii()), RESTORE);
            continue;
        };
        if revision > checked.newest {
            let newest = checked.newest;
            checked.find(
                format!("{key} was written at revision {revision}, after the newest, {newest}"),
                RESTORE,
            );
        }
        let is_record = match decode_version(row_key, row.value()) {
            Ok(record) => {
                if let Some(record) = &record
                    && record.created > revision
                {
                    let created = record.created;
                    checked.find(
                        format!("{key} of revision {revision} was created later, at {created}"),
                        REWRITE,
                    );
                }
                record.is_some()
            }
            Err(_) => {
                checked.find(format!("{key} of revision {revision} is not what was written"), REWRITE);
                true
            }
        };
        match &mut at_hand {
            Some((known, last)) if known.as_slice() == key.as_bytes() => *last = is_record,
            other => {
                checked.records += u64::from(other.as_ref().is_some_and(|(_, is_record)| *is_record));
                *other = Some((key.as_bytes().to_vec(), is_record));
            }
        }
    }
    checked.records += u64::from(at_hand.is_some_and(|(_, is_record)| is_record));
    Ok(())
}

/// History from where it was swept to must be whole: one row a revision, and the versions each row speaks of.
fn log(snapshot: &ReadTransaction, checked: &mut Checked, swept: u64) -> Result<(), StoreError> {
    let table = snapshot.open_table(LOG).map_err(failed)?;
    let versions = snapshot.open_table(VERSIONS).map_err(failed)?;
    let mut expected = swept + 1;
    for row in table.iter().map_err(failed)? {
        let (revision, bytes) = row.map_err(failed)?;
        let revision = revision.value();
        checked.log_rows += 1;
        if revision != expected {
            checked.find(format!("history has revision {revision} where {expected} should be"), HISTORY);
        }
        expected = revision + 1;
        let Ok(row) = decode_log(Revision(revision), bytes.value()) else {
            checked.find(format!("history at revision {revision} is not what was written"), HISTORY);
            continue;
        };
        let mut needed = vec![Revision(revision)];
        if row.change != Change::Created {
            needed.push(row.previous);
        }
        for version in needed {
            if versions.get(version_key(&row.key, version).as_slice()).map_err(failed)?.is_none() {
                let key = &row.key;
                checked.find(format!("{key} of revision {version} is missing from history"), HISTORY);
            }
        }
    }
    if expected != checked.newest.0 + 1 {
        let newest = checked.newest;
        checked.find(format!("history ends before revision {expected}, the newest is {newest}"), HISTORY);
    }
    Ok(())
}

fn expiry(snapshot: &ReadTransaction, checked: &mut Checked) -> Result<(), StoreError> {
    let table = snapshot.open_table(EXPIRY).map_err(failed)?;
    for row in table.iter().map_err(failed)? {
        let (at, key) = row.map_err(failed)?;
        let (_, revision) = at.value();
        if Revision(revision) > checked.newest {
            let (key, newest) = (key.value(), checked.newest);
            checked.find(
                format!("{key} is to run out as of revision {revision}, after the newest, {newest}"),
                HISTORY,
            );
        }
    }
    Ok(())
}

// === impl Checked ===

impl Checked {
    /// Whether everything is as it was written.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, what: String, advice: &'static str) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { what, advice });
        } else {
            self.findings_untold += 1;
        }
    }
}
