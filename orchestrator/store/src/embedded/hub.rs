//! The hub: hands the events of each commit to the watches that are up to date.
//!
//! A watch is registered at a revision: what came before it is read from the log, what follows arrives here. The
//! writer never waits: a watch whose queue is full is let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{Event, Revision};

/// The events of one commit.
pub(super) type Batch = Arc<[Event]>;

pub(super) struct Hub {
    state: Mutex<State>,
}

struct State {
    published: Revision,
    watches: Vec<Watch>,
    closed: bool,
}

struct Watch {
    prefix: String,
    queue: mpsc::Sender<Batch>,
    too_slow: Arc<AtomicBool>,
}

/// A watch's end of the hub.
pub(super) struct Subscription {
    /// Everything up to here must be read from the log.
    pub(super) from: Revision,
    pub(super) queue: mpsc::Receiver<Batch>,
    pub(super) too_slow: Arc<AtomicBool>,
}

// === impl Hub ===

impl Hub {
    pub(super) fn new(newest: Revision) -> Self {
        Self { state: Mutex::new(State { published: newest, watches: Vec::new(), closed: false }) }
    }

    /// Registers a watch; its queue holds `batches_max` commits.
    pub(super) fn subscribe(&self, prefix: &str, batches_max: usize) -> Subscription {
        let (sender, receiver) = mpsc::channel(batches_max.max(1));
        let too_slow = Arc::new(AtomicBool::new(false));
        let mut state = self.state.lock();
        state.watches.retain(|watch| !watch.queue.is_closed());
        if !state.closed {
            state.watches.push(Watch {
                prefix: prefix.to_owned(),
                queue: sender,
                too_slow: too_slow.clone(),
            });
        }
        Subscription { from: state.published, queue: receiver, too_slow }
    }

    /// Gives a durable commit to the watches it concerns.
    pub(super) fn publish(&self, events: Batch, newest: Revision) {
        let mut state = self.state.lock();
        state.published = newest;
        state.watches.retain(|watch| {
            if !events.iter().any(|event| event.key.starts_with(&watch.prefix)) {
                return true;
            }
            match watch.queue.try_send(events.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    watch.too_slow.store(true, Ordering::Release);
                    false
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }

    /// Ends every watch, so that each resumes from the log; `newest` is where the log now ends.
    pub(super) fn restart(&self, newest: Revision) {
        let mut state = self.state.lock();
        state.published = newest;
        state.watches.clear();
    }

    /// Ends every watch for good.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.watches.clear();
    }
}
