//! The embedded store: redb in one file, for a control plane on one machine.
//!
//! Every write goes through one thread that takes whatever is queued, applies it in one transaction and makes it
//! durable with one write to the journal beside the file: that is where the throughput comes from, and what gives
//! revisions their order. Records are kept by key and revision, so that snapshots and watches reach back as far as
//! history is kept. Reads use redb's snapshots and never wait for the writer. Why redb: docs/adr/0003-embedded-store.md;
//! why a journal: docs/adr/0040-a-journal-before-the-database.md.

mod apply;
mod backup;
mod check;
mod checkpoints;
mod expiry;
mod history;
mod hub;
mod journal;
mod layout;
mod overlay;
mod read;
mod room;
mod stream;
mod writer;

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use redb::Database;

use crate::backup::{BackupError, Progress, Summary};
use crate::{Committed, ListRequest, Page, Record, Revision, Store, StoreError, WatchStream};
use hub::Hub;
use journal::Journal;
use writer::{Command, Queue};

pub use backup::{is_there, rename, restore};
pub use check::{Checked, Finding, check};

/// The bounds of an embedded store.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedOptions {
    /// Memory for redb's page cache, in bytes.
    pub cache_bytes: usize,
    /// History older than this may be forgotten.
    pub history_age_max: Duration,
    /// History is never longer than this, however young.
    pub history_revisions_max: u64,
    /// History is never shorter than this, however old.
    pub history_revisions_min: u64,
    /// Writes that may wait for the writer; further ones wait for room.
    pub queued_writes_max: usize,
    /// Batches of events a watch may lag before it is closed.
    pub watch_batches_max: usize,
    /// The file's quota: beyond it only deletions are taken, [`StoreError::Full`] is the answer to others.
    pub file_bytes_max: u64,
    /// The journal's bound in bytes. What has no room in it any more is a checkpoint: the database itself is made durable.
    pub journal_bytes_max: u64,
    /// A checkpoint is made when nothing was written for this long.
    pub checkpoint_idle: Duration,
    /// A checkpoint is made when something is in the journal alone for this long.
    pub checkpoint_age_max: Duration,
}

/// A store in one file, owned by this process.
pub struct Embedded {
    inner: Arc<Inner>,
    queue: Queue,
}

/// What the writer thread, readers and watches share.
struct Inner {
    path: PathBuf,
    options: EmbeddedOptions,
    /// None while closed, or between a failed write and a successful reopening.
    database: ArcSwapOption<Database>,
    /// The newest durable revision.
    newest: AtomicU64,
    hub: Hub,
}

// === impl Embedded ===

impl Embedded {
    /// Opens the database file, creating it and its directory if absent, with default bounds. Checks the file's
    /// integrity; [`StoreError::Locked`] when another process has it, [`StoreError::Corrupt`] when it is damaged.
    pub async fn open(path: &Path) -> Result<Arc<Self>, StoreError> {
        Self::open_with(path, EmbeddedOptions::default()).await
    }

    /// As [`Embedded::open`], with bounds of the caller's.
    pub async fn open_with(path: &Path, options: EmbeddedOptions) -> Result<Arc<Self>, StoreError> {
        let path = path.to_owned();
        blocking(move || {
            let database = Arc::new(layout::open(&path, options.cache_bytes)?);
            let journal = Journal::open(&path, &database, options.journal_bytes_max)?;
            let newest = read::newest(&database)?;
            let inner = Arc::new(Inner {
                path,
                options,
                database: ArcSwapOption::from(Some(database)),
                newest: AtomicU64::new(newest.0),
                hub: Hub::new(newest),
            });
            let queue = writer::spawn(inner.clone(), journal)?;
            Ok(Arc::new(Self { inner, queue }))
        })
        .await
    }

    /// Finishes the writes that are queued and closes the file. Later calls answer [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.queue.close().await;
        let inner = self.inner.clone();
        // Dropping the database writes its allocator state, which makes the next opening quicker.
        let closed = blocking(move || {
            inner.database.store(None);
            inner.hub.close();
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::warn!(%error, "the embedded store did not close cleanly");
        }
    }

    /// Writes every record of one revision out as a backup, while the store goes on being used. Pages of that revision
    /// are kept until it is done, so whoever reads must not stop reading for long.
    pub async fn backup<W: Write + Send + 'static>(
        &self,
        out: W,
        mut report: impl FnMut(Progress) + Send + 'static,
    ) -> Result<(Summary, W), BackupError> {
        self.read(move |database| Ok(backup::write(database, out, &mut report))).await?
    }

    /// Checks every row of one revision, while the store goes on being used. Nothing is repaired.
    pub async fn check_rows(&self) -> Result<Checked, StoreError> {
        self.read(|database| {
            let mut checked = Checked::default();
            check::rows(database, &mut checked)?;
            Ok(checked)
        })
        .await
    }

    /// Runs a read where it may block, and turns a panic of the database into an answer.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.inner.database()?;
        blocking(move || query(&database)).await
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        // A few pages, nearly always in memory: handing the question to another thread and waiting for its answer would
        // take longer than the answer, and every update begins with one.
        let database = self.inner.database()?;
        let found = std::panic::catch_unwind(AssertUnwindSafe(|| read::get(&database, key)));
        found.unwrap_or_else(|_| Err(contradiction()))
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        self.read(move |database| read::list(database, &request)).await
    }

    async fn commit(&self, write: crate::Write) -> Result<Committed, StoreError> {
        write.check()?;
        self.queue.call(|reply| Command::Write { write, reply }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        stream::open(&self.inner, prefix, after).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.database()?;
        Ok(self.inner.newest())
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.queue.call(|reply| Command::Compact { before, reply }).await
    }
}

// === impl Inner ===

impl Inner {
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        self.database.load_full().ok_or_else(|| StoreError::Unavailable {
            detail: format!("the database {} is closed", self.path.display()),
        })
    }

    fn newest(&self) -> Revision {
        Revision(self.newest.load(Ordering::Acquire))
    }
}

// === impl EmbeddedOptions ===

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 8 << 20,
            history_age_max: Duration::from_secs(300),
            history_revisions_max: 50_000,
            // A page token of a quiet kind ends with its time, as clients expect.
            history_revisions_min: 0,
            queued_writes_max: 1024,
            watch_batches_max: 1024,
            file_bytes_max: 8 << 30,
            journal_bytes_max: 16 << 20,
            checkpoint_idle: Duration::from_secs(1),
            checkpoint_age_max: Duration::from_secs(10),
        }
    }
}

/// Runs what may block on the blocking pool. redb panics on some damaged files: that is corruption, not a crash.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(contradiction()),
        Err(_) => Err(StoreError::Unavailable { detail: "the process is shutting down".to_owned() }),
    }
}

/// What a panic of redb means.
fn contradiction() -> StoreError {
    StoreError::Corrupt { detail: "the database contradicts itself (see the panic above)".to_owned() }
}
