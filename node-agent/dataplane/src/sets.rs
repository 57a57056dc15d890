//! Maps in an array of maps, swapped without waiting.
//!
//! When an entry of such an array is replaced, the kernel answers only once no program runs any more that may have read
//! the former map: 10 to 20 ms in which the new one is long in use. So a thread waits for the answer, and the caller goes
//! on as soon as the new map is seen. Must not know what a set is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys;
use crate::threads::{JOBS_MAX, Job, Threads};

/// How many maps are swapped in one call: each is an open file until the kernel has answered.
const SWAPPED_MAX: usize = 512;

/// An array of maps.
#[derive(Debug)]
pub struct MapArray {
    outer: Arc<OwnedFd>,
    threads: Threads,
}

/// How far a thread is with a swap.
enum Progress {
    Begun,
    /// With the kernel's answer.
    Done(io::Result<()>),
}

/// Swaps that are in use already, of which the kernel has not said yet that nobody reads the former maps.
#[derive(Default)]
pub struct Settling(Arc<Mutex<Unsettled>>);

#[derive(Default)]
struct Unsettled {
    swaps: usize,
    /// What is to be done when there are none any more.
    then: Option<Job>,
}

// === impl MapArray ===

impl MapArray {
    /// Over a map that is open.
    pub fn new(outer: OwnedFd) -> Self {
        Self { outer: Arc::new(outer), threads: Threads::default() }
    }

    /// How many entries are worth swapping at once, with so many files that this process may have open.
    pub fn entries_at_once(open_files_max: u64) -> usize {
        let half = usize::try_from(open_files_max / 2).unwrap_or(usize::MAX);
        (half / JOBS_MAX).clamp(1, SWAPPED_MAX)
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
        let outer = self.outer.clone();
        let unsettled = settling.0.clone();
        let (tells, told) = mpsc::channel();
        settling.unsettled().swaps += 1;
        let job: Job = Box::new(move || {
            let borrowed: Vec<_> = entries.iter().map(|(key, map)| (*key, map.as_fd())).collect();
            // Nobody may be interested any more.
            let _ = tells.send(Progress::Begun);
            let outcome = sys::update_array_of_maps(outer.as_fd(), &borrowed);
            drop(entries);
            let _ = tells.send(Progress::Done(outcome));
            Settling(unsettled).end_swap();
        });
        if let Err(error) = self.threads.run(job) {
            settling.unsettled().swaps -= 1;
            return Err(error);
        }
        // Until the thread runs there is nothing to look for.
        let mut news = told.recv().map_err(TryRecvError::from);
        loop {
            match news {
                Ok(Progress::Done(outcome)) => return outcome,
                Err(TryRecvError::Disconnected) => return Err(io::Error::other("the waiting thread died")),
                Ok(Progress::Begun) | Err(TryRecvError::Empty) => {}
            }
            // The kernel takes the entries in order: with the last all are in use.
            if sys::lookup_inner_id(self.outer.as_fd(), last)? == Some(wanted) {
                return Ok(());
            }
            std::thread::yield_now();
            news = told.try_recv();
        }
    }
}

// === impl Settling ===

impl Settling {
    /// Has something done when no program runs any more that may have read a former map: by the thread that waited for that,
    /// or by this one if there is nothing to wait for.
    pub fn then(self, job: Job) {
        let mut unsettled = self.unsettled();
        if unsettled.swaps > 0 {
            unsettled.then = Some(job);
        } else {
            drop(unsettled);
            job();
        }
    }

    /// Whether there is nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.unsettled().swaps == 0
    }

    fn end_swap(self) {
        let mut unsettled = self.unsettled();
        unsettled.swaps -= 1;
        let then = if unsettled.swaps == 0 { unsettled.then.take() } else { None };
        drop(unsettled);
        if let Some(job) = then {
            job();
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, Unsettled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_comes_after_is_done_once_and_with_the_last_swap() {
        let done = Arc::new(AtomicUsize::new(0));
        let job = || -> Job {
            let done = done.clone();
            Box::new(move || {
                done.fetch_add(1, Ordering::Relaxed);
            })
        };
        Settling::default().then(job());
        assert_eq!(done.load(Ordering::Relaxed), 1, "there was nothing to wait for");

        let settling = Settling::default();
        settling.unsettled().swaps = 2;
        let swaps = [Settling(settling.0.clone()), Settling(settling.0.clone())];
        settling.then(job());
        let counts = swaps.map(|swap| {
            swap.end_swap();
            done.load(Ordering::Relaxed)
        });
        assert_eq!(counts, [1, 2]);
    }
}
