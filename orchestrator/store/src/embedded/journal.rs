//! The journal: what makes a batch durable before the database does (docs/adr/0040).
//!
//! A file beside the database, written from its beginning again after each checkpoint and never made shorter: an
//! append overwrites blocks that are there, so that syncing it costs the file system no change of its own. It holds no
//! more than its bound; a batch that has no room in it is made durable by the database.

pub(super) mod frame;
pub(super) mod replay;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::Database;

use super::apply::Tables;
use super::layout::{self, failed};
use crate::{Revision, StoreError};
use replay::Replay;

/// The file becomes longer by this much at once, in zeros.
const GROWTH_BYTES: u64 = 1 << 20;

/// The open journal of an open database.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// Where the next frame goes.
    end: u64,
    /// Up to here the file has blocks.
    file_bytes: u64,
    bytes_max: u64,
    store: u64,
}

/// The journal of a database.
pub(super) fn path_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

/// Applies what the database lacks of its journal, and gives how many batches that were and where the journal goes on.
/// What was read is handed to `keep` before anybody can see it.
pub(super) fn replay(
    database: &Database,
    journal: &[u8],
    keep: impl FnOnce(&[u8]) -> Result<(), StoreError>,
) -> Result<(usize, usize), StoreError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    layout::without_sync(&mut transaction)?;
    let mut tables = Tables::open(&transaction)?;
    let store = tables.store()?;
    let before = tables.marks()?;
    let Replay { frames, end } = replay::plan(journal, store, before.sequence)
        .map_err(|damage| StoreError::Corrupt { detail: damage.to_string() })?;
    if frames.is_empty() {
        drop(tables);
        transaction.abort().map_err(failed)?;
        return Ok((0, end));
    }
    let mut marks = before;
    let batches = frames.len();
    for frame in frames {
        let sequence = frame.stamp.sequence;
        let contradiction = |what: String| StoreError::Corrupt {
            detail: format!("batch {sequence} of the journal is not of this database: {what}"),
        };
        for (revision, write) in frame.writes {
            if revision.0 != marks.newest.0 + 1 {
                let newest = marks.newest;
                return Err(contradiction(format!("revision {revision} does not follow {newest}")));
            }
            tables.apply(write, revision, frame.stamp.now_unix_seconds).map_err(|error| match error {
                StoreError::Conflict { key, .. } => {
                    contradiction(format!("it deletes {key}, which is absent"))
                }
                error => error,
            })?;
            marks.newest = revision;
        }
        marks.compacted = Revision(marks.compacted.0.max(frame.stamp.compacted.0).min(marks.newest.0));
        marks.sequence = sequence;
    }
    tables.set_marks(before, marks)?;
    drop(tables);
    keep(&journal[..end])?;
    transaction.commit().map_err(failed)?;
    Ok((batches, end))
}

/// The bytes of a database's journal; none if it has none.
pub(super) fn read(database: &Path) -> Result<Vec<u8>, StoreError> {
    let path = path_of(database);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unusable(&path, "read", error)),
    }
}

// === impl Journal ===

impl Journal {
    /// Opens the journal of a database, or makes one, and applies what the database lacks of it.
    pub(super) fn open(path: &Path, database: &Database, bytes_max: u64) -> Result<Self, StoreError> {
        let held = read(path)?;
        let path = path_of(path);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| unusable(&path, "open", error))?;
        if held.is_empty() {
            let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))
                .and_then(|folder| folder.sync_all())
                .map_err(|error| unusable(&path, "create", error))?;
        }
        let (batches, end) = replay(database, &held, |frames| {
            // A sync that failed leaves pages which the kernel takes for written. They are written again, so that
            // what is built upon them is as durable as they are.
            file.write_all_at(frames, 0)
                .and_then(|()| file.sync_data())
                .map_err(|error| unusable(&path, "write", error))
        })?;
        if batches > 0 {
            tracing::info!(batches, "writes were taken from the journal");
        }
        let store = layout::store_number(database)?;
        let file_bytes = held.len() as u64;
        Ok(Self { file, path, end: end as u64, file_bytes, bytes_max, store })
    }

    /// The number of the store whose frames these are.
    pub(super) fn store(&self) -> u64 {
        self.store
    }

    /// Whether it holds nothing that the database could lack.
    pub(super) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Whether a frame has room.
    pub(super) fn fits(&self, frame: &[u8]) -> bool {
        self.end + frame.len() as u64 <= self.bytes_max
    }

    /// Writes a frame and waits until it is on the disk.
    pub(super) fn append(&mut self, frame: &[u8]) -> Result<(), StoreError> {
        let end = self.end + frame.len() as u64;
        self.append_at(frame, end).map_err(|error| unusable(&self.path, "write", error))?;
        self.end = end;
        Ok(())
    }

    fn append_at(&mut self, frame: &[u8], end: u64) -> io::Result<()> {
        if end > self.file_bytes {
            let file_bytes = end.next_multiple_of(GROWTH_BYTES).min(self.bytes_max.max(end));
            let zeros = vec![0; (file_bytes - self.file_bytes) as usize];
            self.file.write_all_at(&zeros, self.file_bytes)?;
            self.file_bytes = file_bytes;
        }
        self.file.write_all_at(frame, self.end)?;
        self.file.sync_data()
    }

    /// Begins again, after everything in it has become durable in the database.
    pub(super) fn restart(&mut self) {
        self.end = 0;
    }
}

fn unusable(path: &Path, action: &str, error: io::Error) -> StoreError {
    let what = match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    };
    StoreError::Unavailable { detail: format!("cannot {action} the journal {}: {what}", path.display()) }
}
