//! The writer: one thread, one bounded queue, one sync for everything that queued up during the last one.
//!
//! A batch is applied in a transaction, appended to the journal and synced, committed, published and answered, in this
//! order: nobody sees or hears of what is not durable. What has no room in the journal is committed durably itself,
//! which empties the journal. A batch that fails does so as a whole, and database and journal are opened again before
//! the next one: redb refuses to go on after a failed write, and only an opening knows what of the journal holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redb::Database;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::apply::{Marks, Tables};
use super::checkpoints::Checkpoints;
use super::history::{self, Retention};
use super::journal::Journal;
use super::journal::frame::{Draft, Stamp};
use super::layout::{self, failed};
use super::room::Room;
use super::{Inner, expiry};
use crate::{Committed, Event, Mutation, Revision, StoreError, Write};

/// One transaction holds at most so many writes and so many bytes of values.
const BATCH_WRITES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Rows of history removed beside a batch, for each write in it, and at least.
const SWEEP_ROWS_PER_WRITE: usize = 2;
const SWEEP_ROWS_MIN: usize = 64;
const SWEEP_ROWS_IDLE: usize = 1024;
/// The floor of history moves in steps of this, so that most commits do not touch it.
const FLOOR_STEP: u64 = 16;
const EXPIRED_ROWS_MAX: usize = 256;
const IDLE_WAIT: Duration = Duration::from_secs(3600);
/// How long a reopening waits for readers to let go of the old file.
const REOPEN_WAIT: Duration = Duration::from_secs(5);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
pub(super) enum Command {
    Write { write: Write, reply: Reply<Committed> },
    Compact { before: Revision, reply: Reply<()> },
    Stop { reply: Reply<()> },
}

/// The way to the writer. Callers wait for a place in it.
pub(super) struct Queue {
    sender: Mutex<Option<mpsc::Sender<Queued>>>,
    places: Arc<Semaphore>,
}

struct Queued {
    command: Command,
    /// Given back when the command has been answered.
    _place: OwnedSemaphorePermit,
}

struct Writer {
    inner: Arc<Inner>,
    receiver: Receiver<Queued>,
    journal: Journal,
    checkpoints: Checkpoints,
    /// The frame of the batch at hand.
    draft: Draft,
    retention: Retention,
    room: Room,
    /// The earliest deadline of a record, in Unix seconds.
    next_deadline: Option<u64>,
    sweeping: bool,
}

/// A committed transaction: one answer for each write and compaction, in order.
struct Done {
    events: Vec<Event>,
    writes: Vec<Result<Committed, StoreError>>,
    compactions: Vec<Result<(), StoreError>>,
    newest: Revision,
}

/// Starts the thread. It ends when the queue is dropped or closed.
pub(super) fn spawn(inner: Arc<Inner>, journal: Journal) -> Result<Queue, StoreError> {
    let (sender, receiver) = mpsc::channel();
    let places = Arc::new(Semaphore::new(inner.options.queued_writes_max.max(1)));
    let retention = Retention::new(&inner.options, Instant::now(), inner.newest());
    let checkpoints = Checkpoints::new(&inner.options, !journal.is_empty(), Instant::now());
    // A deadline of zero makes the first round look at what ran out while nobody was running.
    let room = Room::new(inner.options.file_bytes_max);
    let writer = Writer {
        inner,
        receiver,
        journal,
        checkpoints,
        draft: Draft::default(),
        retention,
        room,
        next_deadline: Some(0),
        sweeping: true,
    };
    thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run()).map_err(|error| {
        StoreError::Unavailable { detail: format!("cannot start the writer thread: {error}") }
    })?;
    Ok(Queue { sender: Mutex::new(Some(sender)), places })
}

// === impl Queue ===

impl Queue {
    /// Queues a command and waits for its answer. A caller that gives up does not take the command back.
    pub(super) async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let queued = Queued { command: command(reply), _place: place };
        let sent = self.sender.lock().as_ref().map(|sender| sender.send(queued));
        match sent {
            Some(Ok(())) => answer.await.map_err(|_| closed())?,
            _ => Err(closed()),
        }
    }

    /// Lets the writer finish what is queued, and waits for it.
    pub(super) async fn close(&self) {
        let stopped: Result<(), StoreError> = self.call(|reply| Command::Stop { reply }).await;
        drop(stopped);
        self.sender.lock().take();
    }
}

// === impl Writer ===

impl Writer {
    fn run(mut self) {
        loop {
            let batch = match self.receiver.recv_timeout(self.wait()) {
                Ok(first) => self.gather(first),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return self.checkpoint(),
            };
            let stop = self.round(batch);
            if stop.is_some() || self.checkpoints.wait(Instant::now()) == Some(Duration::ZERO) {
                self.checkpoint();
            }
            if let Some(reply) = stop {
                // What queued up behind the stop is answered by its dropped reply.
                drop(self.receiver);
                drop(reply.send(Ok(())));
                return;
            }
        }
    }

    /// How long there is nothing to do unless somebody writes.
    fn wait(&self) -> Duration {
        if self.sweeping {
            return Duration::ZERO;
        }
        let deadline = match self.next_deadline {
            None => IDLE_WAIT,
            // A second of grace, so that a wait never ends just before its deadline.
            Some(deadline) => Duration::from_secs((deadline + 1).saturating_sub(expiry::now_unix_seconds())),
        };
        deadline.min(self.checkpoints.wait(Instant::now()).unwrap_or(IDLE_WAIT)).min(IDLE_WAIT)
    }

    /// Makes the database itself durable, so that the journal may begin again. Nobody's write fails with it.
    fn checkpoint(&mut self) {
        if !self.checkpoints.is_wanted() {
            return;
        }
        let durable = self.inner.database().and_then(|database| {
            let transaction = database.begin_write().map_err(failed)?;
            transaction.commit().map_err(failed)
        });
        match durable {
            Ok(()) => {
                self.journal.restart();
                self.checkpoints.made();
            }
            Err(error) => {
                tracing::error!(%error, "the store could not make a checkpoint; what was written is in its journal");
                self.reopen_after_failure();
                self.checkpoints.failed(Instant::now());
            }
        }
    }

    /// The first command and whatever else is already queued.
    fn gather(&self, first: Queued) -> Vec<Queued> {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_WRITES_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(next) = self.receiver.try_recv() else { break };
            bytes += next.bytes();
            batch.push(next);
        }
        batch
    }

    /// Commits one batch and answers it; gives the reply to a stop, if one was asked for.
    fn round(&mut self, batch: Vec<Queued>) -> Option<Reply<()>> {
        let mut stop = None;
        let mut places = Vec::with_capacity(batch.len());
        let mut writes = Vec::with_capacity(batch.len());
        let mut compactions = Vec::new();
        for queued in batch {
            places.push(queued._place);
            match queued.command {
                Command::Write { write, reply } => writes.push((write, reply)),
                Command::Compact { before, reply } => compactions.push((before, reply)),
                Command::Stop { reply } => stop = Some(reply),
            }
        }
        let mut replies = Vec::with_capacity(writes.len());
        let mut pending = Vec::with_capacity(writes.len());
        for (write, reply) in writes {
            pending.push(write);
            replies.push(reply);
        }
        match self.transact(pending, compactions.iter().map(|(before, _)| *before).collect()) {
            Ok(done) => {
                let newest = done.newest;
                self.inner.newest.store(newest.0, Ordering::Release);
                // Watches hear of a write before its writer does: a writer that then reads a cache finds it there
                // as soon as the cache has run.
                self.inner.hub.publish(done.events.into(), newest);
                for (reply, answer) in replies.into_iter().zip(done.writes) {
                    drop(reply.send(answer));
                }
                for ((_, reply), answer) in compactions.into_iter().zip(done.compactions) {
                    drop(reply.send(answer));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the store could not commit");
                replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
                compactions.into_iter().for_each(|(_, reply)| drop(reply.send(Err(error.clone()))));
                self.reopen_after_failure();
            }
        }
        stop
    }

    fn reopen_after_failure(&mut self) {
        // Nothing due is lost: it is looked at again with the next write.
        (self.sweeping, self.next_deadline) = (false, None);
        if let Err(error) = self.reopen() {
            tracing::error!(%error, "the store could not be opened again");
        }
    }

    /// Applies writes, compactions, expiries and a little sweeping in one transaction. Of sweeping alone nobody was
    /// told, so it need not be durable.
    fn transact(&mut self, writes: Vec<Write>, compactions: Vec<Revision>) -> Result<Done, StoreError> {
        let database = match self.inner.database() {
            Ok(database) => database,
            Err(_) => self.reopen()?,
        };
        let now = expiry::now_unix_seconds();
        let sweep_rows = match writes.len() {
            0 => SWEEP_ROWS_IDLE,
            writes => (writes * SWEEP_ROWS_PER_WRITE).max(SWEEP_ROWS_MIN),
        };

        let mut transaction = database.begin_write().map_err(failed)?;
        let refusal = self.room.refusal(&self.inner.path, &transaction)?;
        let mut tables = Tables::open(&transaction)?;
        let before = tables.marks()?;
        let mut marks = before;
        self.draft.clear();
        let mut done =
            Done { events: Vec::new(), writes: Vec::new(), compactions: Vec::new(), newest: before.newest };
        // Only a write moves the earliest deadline forward; only then, or when it came, is the index looked at.
        let mut deadlines_moved = writes
            .iter()
            .any(|write| matches!(write.mutation, Mutation::Put { lease_ttl_seconds: Some(_), .. }));

        for write in writes {
            if let (Some(full), Mutation::Put { .. }) = (&refusal, &write.mutation) {
                done.writes.push(Err(full.clone()));
                continue;
            }
            let answer = apply(&mut tables, &mut marks, write, now, &mut self.draft, &mut done.events);
            match answer {
                Ok(_) | Err(StoreError::Conflict { .. }) => done.writes.push(answer),
                Err(error) => return Err(error),
            }
        }
        if self.next_deadline.is_some_and(|deadline| deadline <= now) {
            deadlines_moved = true;
            for write in expiry::take_due(&mut tables, now, EXPIRED_ROWS_MAX)? {
                apply(&mut tables, &mut marks, write, now, &mut self.draft, &mut done.events)?;
            }
        }
        for before in compactions {
            done.compactions.push(compact(&mut marks, before));
        }
        let told = (marks.newest, marks.compacted) != (before.newest, before.compacted);
        let floor = self.retention.plan_floor(Instant::now(), marks.newest);
        if floor.0 >= marks.compacted.0 + FLOOR_STEP {
            marks.compacted = floor;
        }
        history::sweep(&mut tables, &mut marks, sweep_rows)?;
        let changed = before != marks || deadlines_moved;
        marks.sequence += u64::from(told);
        tables.set_marks(before, marks)?;
        let next_deadline =
            if deadlines_moved { expiry::next_deadline(&tables)? } else { self.next_deadline };
        drop(tables);
        // A batch of nothing but conflicts, or an early wake-up, leaves no trace.
        if !changed {
            transaction.abort().map_err(failed)?;
        } else if told {
            let stamp = Stamp {
                store: self.journal.store(),
                sequence: marks.sequence,
                now_unix_seconds: now,
                compacted: marks.compacted,
            };
            let frame = self.draft.finish(stamp);
            if self.journal.fits(frame) {
                self.journal.append(frame)?;
                layout::without_sync(&mut transaction)?;
                transaction.commit().map_err(failed)?;
                self.checkpoints.wanted(Instant::now());
            } else {
                transaction.commit().map_err(failed)?;
                self.journal.restart();
                self.checkpoints.made();
            }
        } else {
            layout::without_sync(&mut transaction)?;
            transaction.commit().map_err(failed)?;
            self.checkpoints.wanted(Instant::now());
        }
        self.next_deadline = next_deadline;
        self.sweeping = marks.swept < marks.compacted;
        done.newest = marks.newest;
        Ok(done)
    }

    /// Opens the file again after a failure. Readers get an error meanwhile.
    fn reopen(&mut self) -> Result<Arc<Database>, StoreError> {
        if let Some(mut old) = self.inner.database.swap(None) {
            // The file's lock is held until the last reader has let go of the old handle.
            let until = Instant::now() + REOPEN_WAIT;
            loop {
                match Arc::try_unwrap(old) {
                    Ok(database) => break drop(database),
                    Err(_) if Instant::now() > until => {
                        return Err(StoreError::Unavailable {
                            detail: "readers hold the failed database".to_owned(),
                        });
                    }
                    Err(shared) => old = shared,
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        let options = &self.inner.options;
        let database = Arc::new(layout::open(&self.inner.path, options.cache_bytes)?);
        self.journal = Journal::open(&self.inner.path, &database, options.journal_bytes_max)?;
        self.checkpoints = Checkpoints::new(options, !self.journal.is_empty(), Instant::now());
        let newest = super::read::newest(&database)?;
        if newest < self.inner.newest() {
            // Acknowledged writes are gone: going on would give their revisions out a second time.
            return Err(StoreError::Corrupt {
                detail: format!(
                    "the file ends at revision {newest}, but {} was acknowledged",
                    self.inner.newest()
                ),
            });
        }
        self.inner.newest.store(newest.0, Ordering::Release);
        self.inner.database.store(Some(database.clone()));
        // A failed commit may have become durable all the same; watches must not miss it.
        self.inner.hub.restart(newest);
        self.next_deadline = Some(0);
        Ok(database)
    }
}

// === impl Queued ===

impl Queued {
    fn bytes(&self) -> usize {
        match &self.command {
            Command::Write { write: Write { mutation: Mutation::Put { value, .. }, .. }, .. } => value.len(),
            _ => 0,
        }
    }
}

fn apply(
    tables: &mut Tables<'_>,
    marks: &mut Marks,
    write: Write,
    now: u64,
    draft: &mut Draft,
    events: &mut Vec<Event>,
) -> Result<Committed, StoreError> {
    let revision = Revision(marks.newest.0 + 1);
    let lease_ttl_seconds = match write.mutation {
        Mutation::Put { lease_ttl_seconds, .. } => lease_ttl_seconds,
        Mutation::Delete => None,
    };
    let (committed, event) = tables.apply(write, revision, now)?;
    marks.newest = revision;
    let value = event.current.as_ref().map(|record| record.value.as_ref());
    draft.push(revision, &event.key, value, lease_ttl_seconds);
    events.push(event);
    Ok(committed)
}

fn compact(marks: &mut Marks, before: Revision) -> Result<(), StoreError> {
    if before > marks.newest {
        return Err(StoreError::FutureRevision { requested: before, newest: marks.newest });
    }
    if before <= marks.compacted {
        return Err(StoreError::Compacted { oldest: marks.compacted });
    }
    marks.compacted = before;
    Ok(())
}

fn closed() -> StoreError {
    StoreError::Unavailable { detail: "the store is closed".to_owned() }
}
