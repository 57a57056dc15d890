//! A keyed work queue: a key waits at most once, is worked on by one worker at a time, and comes back after a
//! backoff of its own when it failed. Bursts of events for one object coalesce into one pass.
//!
//! Bound: one entry per distinct key, and keys are objects that exist (or existed a moment ago).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// See the module.
pub struct WorkQueue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys that must be worked on: waiting in `ready`, or asked for again while being worked on.
    dirty: HashSet<K>,
    working: HashSet<K>,
    later: BTreeMap<Instant, BTreeSet<K>>,
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Ord> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                working: HashSet::new(),
                later: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
            }),
            wake: Notify::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<K>> {
        // A panic in a holder leaves plain data behind; the loops go on.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Asks for a pass over `key`; a no-op when it already waits.
    pub fn add(&self, key: K) {
        if self.lock().push(key) {
            self.wake.notify_one();
        }
    }

    /// Asks for a pass after `delay`; the earlier of two such wishes wins.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.lock();
        match state.due.get(&key) {
            Some(existing) if *existing <= at => return,
            Some(existing) => {
                let existing = *existing;
                state.forget_timer(&key, existing);
            }
            None => {}
        }
        state.due.insert(key.clone(), at);
        state.later.entry(at).or_default().insert(key);
        drop(state);
        self.wake.notify_one();
    }

    /// Asks for a pass after the key's backoff, which doubles with every failure; returns the delay.
    pub fn add_failed(&self, key: K) -> Duration {
        let delay = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = BACKOFF_FIRST.saturating_mul(1 << (*failures).min(16)).min(BACKOFF_MAX);
            *failures += 1;
            delay
        };
        self.add_after(key, delay);
        delay
    }

    /// Forgets the failures of a key that succeeded.
    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// The next key; waits until there is one. The caller gives it back with [`WorkQueue::done`].
    pub async fn next(&self) -> K {
        loop {
            let woken = self.wake.notified();
            let deadline = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    // Another worker sees to the rest, and watches the clock while this one works.
                    if !state.ready.is_empty() || !state.later.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.later.keys().next().copied()
            };
            match deadline {
                Some(at) => {
                    tokio::select! {
                        () = woken => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => woken.await,
            }
        }
    }

    /// Ends work on a key; it is queued again at once if it was asked for meanwhile.
    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Keys waiting for a worker.
    pub fn len(&self) -> usize {
        self.lock().ready.len()
    }

    /// Whether no key waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    /// Marks the key dirty; true when a worker should wake.
    fn push(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry() {
            if *entry.key() > now {
                break;
            }
            for key in entry.remove() {
                self.due.remove(&key);
                self.push(key);
            }
        }
    }

    fn forget_timer(&mut self, key: &K, at: Instant) {
        if let Some(keys) = self.later.get_mut(&at) {
            keys.remove(key);
            if keys.is_empty() {
                self.later.remove(&at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_key_added_twice_is_worked_on_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_key_added_while_worked_on_comes_back_after_done() {
        let queue = WorkQueue::new();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(queue.next().now_or_never().is_none(), "one worker at a time");
        queue.done(&"a");
        assert_eq!(queue.next().now_or_never(), Some("a"));
    }

    #[tokio::test]
    async fn the_earlier_of_two_delays_wins() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        // Hours, so that it does not matter how long these lines take.
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        queue.add_after("a", hours(50));
        queue.add_after("a", hours(5));
        queue.add_after("a", hours(20));
        queue.lock().promote(start + hours(4));
        assert!(queue.is_empty());
        queue.lock().promote(start + hours(6));
        assert_eq!(queue.next().now_or_never(), Some("a"));
        queue.done(&"a");
        assert!(queue.lock().later.is_empty(), "the other timers are gone");
    }

    #[tokio::test]
    async fn backoff_doubles_and_is_forgotten_after_success() {
        let queue = WorkQueue::new();
        assert_eq!(queue.add_failed("a"), Duration::from_millis(5));
        assert_eq!(queue.add_failed("a"), Duration::from_millis(10));
        for _ in 0..30 {
            queue.add_failed("a");
        }
        assert_eq!(queue.add_failed("a"), BACKOFF_MAX);
        queue.forget(&"a");
        assert_eq!(queue.add_failed("a"), Duration::from_millis(5));
    }
}
