//! Threads that wait for the kernel in the place of others, and stay for the next time.
//!
//! It exists because most changes need one for what takes less time than to start one. Must not know what is waited for.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::sys;

/// How many jobs are under way or wait for a thread at a time; the next waits for the first of them.
pub const JOBS_MAX: usize = 16;
/// How many threads stay when there is nothing to do.
const IDLE_MAX: usize = 2;
/// What a thread is called while it has a job, and while it has none: who looks at the process sees which.
const BUSY: &str = "settle";
const IDLE: &std::ffi::CStr = c"settled";
const BUSY_AGAIN: &std::ffi::CStr = c"settle";

/// What a thread is to do.
pub type Job = Box<dyn FnOnce() + Send>;

/// Some threads, started when they are first needed. Those that are idle end with this.
#[derive(Default)]
pub struct Threads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A job waits, or all is over.
    more: Condvar,
    /// A job is done.
    less: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Those under way too.
    jobs: usize,
    idle: usize,
    is_over: bool,
}

// === impl Threads ===

impl Threads {
    /// Has a thread do something. An error says that there is none.
    pub fn run(&self, job: Job) -> io::Result<()> {
        let state = self.0.state();
        let state = self.0.less.wait_while(state, |state| state.jobs >= JOBS_MAX);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.jobs += 1;
        if state.idle > state.waiting.len() {
            state.waiting.push_back(job);
            drop(state);
            self.0.more.notify_one();
            return Ok(());
        }
        drop(state);
        let shared = self.0.clone();
        let started = std::thread::Builder::new().name(BUSY.to_owned()).spawn(move || shared.work(job));
        if started.is_err() {
            self.0.end_job(&mut self.0.state());
        }
        started.map(drop)
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.more.notify_all();
    }
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does this job, and those that come.
    fn work(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            // A panic there is a defect of ours that must not keep others from their turn.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("what waited for the kernel panicked");
            }
            next = self.next_job();
        }
    }

    /// The next, once there is one; none when this thread is to end.
    fn next_job(&self) -> Option<Job> {
        let mut state = self.state();
        self.end_job(&mut state);
        if state.waiting.is_empty() {
            if state.idle >= IDLE_MAX {
                return None;
            }
            state.idle += 1;
            sys::name_thread(IDLE);
            let nothing = |state: &mut State| state.waiting.is_empty() && !state.is_over;
            state = self.more.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            sys::name_thread(BUSY_AGAIN);
        }
        state.waiting.pop_front()
    }

    fn end_job(&self, state: &mut State) {
        state.jobs -= 1;
        self.less.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Has a thread say which it is.
    fn who(threads: &Threads) -> thread::ThreadId {
        let (says, said) = mpsc::channel();
        threads
            .run(Box::new(move || says.send(thread::current().id()).expect("somebody listens")))
            .expect("a thread");
        said.recv().expect("an answer")
    }

    /// Waits until so many threads have nothing to do.
    fn wait_for_idle(threads: &Threads, idle: usize) {
        while threads.0.state().idle != idle {
            thread::yield_now();
        }
    }

    #[test]
    fn one_thread_does_what_comes_one_after_the_other() {
        let threads = Threads::default();
        let first = who(&threads);
        wait_for_idle(&threads, 1);
        assert_eq!(who(&threads), first);
    }

    #[test]
    fn jobs_do_not_wait_for_each_other_and_few_threads_stay() {
        let threads = Threads::default();
        let (go, gone) = (Arc::new(std::sync::Barrier::new(JOBS_MAX)), mpsc::channel());
        for _ in 0..JOBS_MAX {
            let (go, gone) = (go.clone(), gone.0.clone());
            // All are under way at once, or none ends.
            let job = move || {
                go.wait();
                gone.send(()).expect("somebody listens");
            };
            threads.run(Box::new(job)).expect("a thread");
        }
        (0..JOBS_MAX).for_each(|_| gone.1.recv().expect("each is done"));
        wait_for_idle(&threads, IDLE_MAX);
        while threads.0.state().jobs > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_job_that_panics_takes_nobody_s_turn() {
        let threads = Threads::default();
        for _ in 0..JOBS_MAX * 2 {
            threads.run(Box::new(|| panic!("of the test"))).expect("a thread");
        }
        who(&threads);
    }

    #[test]
    fn idle_threads_end_with_their_owner() {
        let threads = Threads::default();
        who(&threads);
        wait_for_idle(&threads, 1);
        let shared = threads.0.clone();
        drop(threads);
        while Arc::strong_count(&shared) > 1 {
            thread::yield_now();
        }
    }
}
