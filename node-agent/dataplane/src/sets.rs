//! Maps in an array of maps, swapped without waiting.
//!
//! When an entry of such an array is replaced, the kernel answers only once no program runs any more that may have read
//! the former map: 10 to 20 ms in which the new one is long in use. So a thread waits for the answer, and the caller goes
//! on as soon as the new map is seen. Must not know what a set is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::sys;

/// How many maps are swapped in one call: each is an open file until the kernel has answered.
const SWAPPED_MAX: usize = 512;
/// How many swaps may wait for the kernel at a time; the next waits for the first of them.
const WAITING_MAX: usize = 16;

/// An array of maps.
#[derive(Debug)]
pub struct MapArray {
    outer: Arc<OwnedFd>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    count: Mutex<usize>,
    less: Condvar,
}

/// Swaps that are in use already, of which the kernel has not said yet that nobody reads the former maps.
#[derive(Debug, Default)]
pub struct Settling(Vec<Receiver<io::Result<()>>>);

// === impl MapArray ===

impl MapArray {
    /// Over a map that is open.
    pub fn new(outer: OwnedFd) -> Self {
        Self { outer: Arc::new(outer), waiting: Arc::default() }
    }

    /// How many entries are worth swapping at once, with so many files that this process may have open.
    pub fn entries_at_once(open_files_max: u64) -> usize {
        let half = usize::try_from(open_files_max / 2).unwrap_or(usize::MAX);
        (half / WAITING_MAX).clamp(1, SWAPPED_MAX)
    }

    /// The map at a place, if there is one.
    pub fn get(&self, key: u32) -> io::Result<Option<OwnedFd>> {
        sys::lookup_inner_id(self.outer.as_fd(), key)?.map(sys::map_by_id).transpose()
    }

    /// How many maps there is room for.
    pub fn entries_max(&self) -> io::Result<u32> {
        Ok(sys::map_info(self.outer.as_fd())?.entries_max)
    }

    /// Puts maps in the place of others. Returns when they are in use.
    pub fn swap(&self, entries: Vec<(u32, Arc<OwnedFd>)>, settling: &mut Settling) -> io::Result<()> {
        let Some((last, map)) = entries.last() else { return Ok(()) };
        let (last, wanted) = (*last, sys::map_info(map.as_fd())?.id);
        let (outer, waiting) = (self.outer.clone(), self.waiting.clone());
        waiting.enter();
        let (answer, settled) = mpsc::channel();
        let spawned = std::thread::Builder::new().name("settle".to_owned()).spawn(move || {
            let borrowed: Vec<_> = entries.iter().map(|(key, map)| (*key, map.as_fd())).collect();
            let outcome = sys::update_array_of_maps(outer.as_fd(), &borrowed);
            drop(entries);
            waiting.leave();
            // Nobody may be interested.
            let _ = answer.send(outcome);
        });
        if let Err(error) = spawned {
            self.waiting.leave();
            return Err(error);
        }
        // The kernel takes the entries in order: with the last all are in use.
        loop {
            match settled.try_recv() {
                Ok(outcome) => return outcome,
                Err(TryRecvError::Disconnected) => return Err(io::Error::other("the waiting thread died")),
                Err(TryRecvError::Empty) => {}
            }
            if sys::lookup_inner_id(self.outer.as_fd(), last)? == Some(wanted) {
                settling.0.push(settled);
                return Ok(());
            }
            std::thread::yield_now();
        }
    }
}

// === impl Settling ===

impl Settling {
    /// Returns when no program runs any more that may have read a former map.
    pub fn wait(self) {
        // The maps are in use, so the only answer is that it is done; a thread that died cannot be waited for.
        self.0.into_iter().for_each(|settled| drop(settled.recv()));
    }

    /// Whether there is nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl Waiting ===

impl Waiting {
    fn enter(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = self
            .less
            .wait_while(count, |count| *count >= WAITING_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *count += 1;
    }

    fn leave(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.less.notify_one();
    }
}
