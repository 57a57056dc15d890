//! What can be wrong with a backup, in words that say where and what to do.

use std::io;
use std::sync::Arc;

use crate::StoreError;

/// Why a backup could not be written, read or restored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackupError {
    /// The file or connection failed.
    #[error("the backup cannot be {action}")]
    Io {
        action: &'static str,
        #[source]
        source: Arc<io::Error>,
    },

    /// The stream does not begin as a backup does.
    #[error("this is no backup of `orchestrator backup`: it does not begin like one")]
    NotABackup,

    /// Written by a later program.
    #[error(
        "the backup has format {found}, this program reads format {known}: use the program that wrote it, or a later one"
    )]
    UnknownFormat { found: u32, known: u32 },

    /// Bytes are not those that were written.
    #[error(
        "the backup is damaged in its {section}, at byte {offset}: its checksum does not agree; use another backup"
    )]
    Damaged { section: &'static str, offset: u64 },

    /// The stream ends before its end.
    #[error(
        "the backup ends too early, at byte {offset}: it was not written or copied to its end; use another backup"
    )]
    Truncated { offset: u64 },

    /// Something follows the end.
    #[error(
        "something follows the end of the backup, at byte {offset}: the file is not as it was written; use another backup"
    )]
    Trailing { offset: u64 },

    /// The place to restore to holds something.
    #[error("{place} is not empty: {holds}")]
    NotEmpty { place: String, holds: String },

    /// The store that is backed up or restored to failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BackupError {
    pub(super) fn written(source: io::Error) -> Self {
        Self::Io { action: "written", source: Arc::new(source) }
    }

    pub(super) fn read(source: io::Error) -> Self {
        Self::Io { action: "read", source: Arc::new(source) }
    }
}
