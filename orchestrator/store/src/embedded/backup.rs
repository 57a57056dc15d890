//! The embedded store's side of backups: one snapshot read while writes go on, and a new file made of a backup.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::layout::{
    self, COMPACTED, EXPIRY, META, NEWEST, SWEPT, VERSIONS, decode_version, encode_version, failed,
    parse_version_key, version_key,
};
use super::{blocking, journal, read};
use crate::backup::{self, BackupError, Entry, Header, Reader, Report, Restored, Source, Summary, Writer};
use crate::{Revision, StoreError};

/// Records of one transaction of a restore, and bytes of their values.
const BATCH_RECORDS_MAX: usize = 2_000;
const BATCH_BYTES_MAX: u64 = 16 << 20;
const RESTORE_CACHE_BYTES: usize = 32 << 20;

/// Writes one snapshot out as a backup.
pub(super) fn write<W: Write>(
    database: &Database,
    out: W,
    report: Report<'_>,
) -> Result<(Summary, W), BackupError> {
    let snapshot = database.begin_read().map_err(failed)?;
    let revision = read::meta(&snapshot, NEWEST)?;
    let deadlines = deadlines(&snapshot)?;
    let mut writer = Writer::new(out, Header::now(revision, Source::Embedded))?;
    let versions = snapshot.open_table(VERSIONS).map_err(failed)?;
    // Versions of one key are neighbours, oldest first: the last one counts.
    let mut newest: Option<(Vec<u8>, Vec<u8>)> = None;
    let mut give = |row: Option<(Vec<u8>, Vec<u8>)>| -> Result<(), BackupError> {
        let Some((row_key, row)) = row else { return Ok(()) };
        let Some(record) = decode_version(&row_key, &row)? else { return Ok(()) };
        let expires_unix_seconds = deadlines.get(&record.modified).copied();
        writer.put(&Entry { record, expires_unix_seconds })?;
        if writer.progress().is_worth_a_report() {
            report(writer.progress());
        }
        Ok(())
    };
    for row in versions.iter().map_err(failed)? {
        let (row_key, row) = row.map_err(failed)?;
        let (row_key, row) = (row_key.value().to_vec(), row.value().to_vec());
        let (key, _) = parse_version_key(&row_key)?;
        let before = newest.take();
        if let Some((known, _)) = &before
            && parse_version_key(known)?.0 != key
        {
            give(before)?;
        }
        newest = Some((row_key, row));
    }
    give(newest)?;
    writer.finish()
}

/// When records run out, by the revision that said so.
fn deadlines(snapshot: &ReadTransaction) -> Result<HashMap<Revision, u64>, StoreError> {
    let table = snapshot.open_table(EXPIRY).map_err(failed)?;
    let mut deadlines = HashMap::new();
    for row in table.iter().map_err(failed)? {
        let (deadline, revision) = row.map_err(failed)?.0.value();
        deadlines.insert(Revision(revision), deadline);
    }
    Ok(deadlines)
}

/// Whether there is a store, or what is left of one: a journal may hold writes that were acknowledged.
pub fn is_there(store: &Path) -> bool {
    store.exists() || journal::path_of(store).exists()
}

/// Gives a store that nobody has open another name, with its journal.
pub fn rename(store: &Path, to: &Path) -> io::Result<()> {
    for (from, to) in [(store.to_owned(), to.to_owned()), (journal::path_of(store), journal::path_of(to))] {
        match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes a store file from a backup; neither it nor a journal may be there. It continues at a revision beyond the backup's and
/// beyond `newest_there`, the newest that was ever given out in its place.
///
/// What is half written when something fails is removed. Read the backup once before ([`backup::verify`]): this
/// notices damage as well, but only when it comes to it.
pub async fn restore(
    from: impl Read + Send + 'static,
    to: &Path,
    newest_there: Revision,
    mut report: impl FnMut(backup::Progress) + Send + 'static,
) -> Result<Restored, BackupError> {
    let to = to.to_owned();
    blocking(move || Ok(restore_beside(from, &to, newest_there, &mut report))).await?
}

fn restore_beside(
    from: impl Read,
    to: &Path,
    newest_there: Revision,
    report: Report<'_>,
) -> Result<Restored, BackupError> {
    if is_there(to) {
        let (place, holds) = (to.display().to_string(), "there is a store already".to_owned());
        return Err(BackupError::NotEmpty { place, holds });
    }
    // Under another name first, so that a half-written store is never taken for a whole one.
    let partial = partial_of(to);
    remove_if_present(&partial)?;
    let restored = restore_into(from, &partial, newest_there, report).and_then(|restored| {
        fs::rename(&partial, to).map_err(|error| unusable(to, &error))?;
        let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .map_err(|error| unusable(to, &error))?;
        Ok(restored)
    });
    if restored.is_err() {
        remove_if_present(&partial)?;
    }
    restored
}

fn restore_into(
    from: impl Read,
    partial: &Path,
    newest_there: Revision,
    report: Report<'_>,
) -> Result<Restored, BackupError> {
    let mut reader = Reader::new(from)?;
    let continues_at = backup::continues_at(&reader.header(), newest_there);
    let target = layout::open(partial, RESTORE_CACHE_BYTES)?;
    loop {
        let more = restore_batch(&mut reader, &target)?;
        report(reader.progress());
        if !more {
            break;
        }
    }
    let transaction = target.begin_write().map_err(failed)?;
    {
        let mut meta = transaction.open_table(META).map_err(failed)?;
        // Nothing is known of what came before, so nobody may resume from there.
        for name in [NEWEST, COMPACTED, SWEPT] {
            meta.insert(name, continues_at.0).map_err(failed)?;
        }
    }
    transaction.commit().map_err(failed)?;
    Ok(Restored { backup: reader.summary()?, continues_at })
}

/// Writes some records; false when there were no more.
fn restore_batch(reader: &mut Reader<impl Read>, target: &Database) -> Result<bool, BackupError> {
    let mut transaction = target.begin_write().map_err(failed)?;
    // The last transaction makes all of them durable.
    layout::without_sync(&mut transaction)?;
    let before = reader.progress();
    let mut more = true;
    {
        let mut versions = transaction.open_table(VERSIONS).map_err(failed)?;
        let mut expiry = transaction.open_table(EXPIRY).map_err(failed)?;
        for _ in 0..BATCH_RECORDS_MAX {
            let Some(Entry { record, expires_unix_seconds }) = reader.next()? else {
                more = false;
                break;
            };
            let row_key = version_key(&record.key, record.modified);
            let row = encode_version(&row_key, record.created, Some(&record.value));
            versions.insert(row_key.as_slice(), row.as_slice()).map_err(failed)?;
            if let Some(deadline) = expires_unix_seconds {
                expiry.insert((deadline, record.modified.0), record.key.as_str()).map_err(failed)?;
            }
            if reader.progress().value_bytes - before.value_bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
    }
    transaction.commit().map_err(failed)?;
    Ok(more)
}

fn partial_of(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn remove_if_present(file: &Path) -> Result<(), StoreError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(file, &error)),
        _ => Ok(()),
    }
}

fn unusable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable { detail: format!("{}: {error}", path.display()) }
}
