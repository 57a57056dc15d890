//! A cache as it was at a revision, which pages are read from one after the other while the cache goes on.
//!
//! Those that pages were cut from are kept for as long as the ring of recent events reaches back to them: what they
//! hold beyond the present is then in the ring anyway. And not for ever where nothing happens: a token that pages go on
//! from ends some time, as clients of upstream expect it to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Item;
use super::sorted::Sorted;
use crate::Revision;

/// Kept at most; the oldest goes first.
const KEPT_MAX: usize = 8;
/// Kept this long at most, the time between two compactions upstream.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// What a cache held at a revision.
pub struct Snapshot<T> {
    items: Sorted<T>,
    revision: Revision,
}

/// Part of a snapshot.
pub struct CachePage<T> {
    /// In key order.
    pub items: Vec<Arc<Item<T>>>,
    /// How many follow.
    pub remaining: usize,
}

/// Snapshots that somebody may come back to.
pub(super) struct Kept<T>(VecDeque<Since<T>>);

/// A snapshot and when somebody was first given a part of it.
struct Since<T> {
    snapshot: Snapshot<T>,
    at: Instant,
}

// === impl Snapshot ===

impl<T> Snapshot<T> {
    pub(super) fn new(items: Sorted<T>, revision: Revision) -> Self {
        Self { items, revision }
    }

    /// What it is of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The records whose key starts with the prefix and comes after the key, at most `limit`. What it costs does not
    /// depend on how many follow.
    pub fn page(&self, prefix: &str, after: Option<&str>, limit: Option<usize>) -> CachePage<T> {
        let (items, remaining) = self.items.page(prefix, after, limit);
        CachePage { items, remaining }
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), revision: self.revision }
    }
}

// === impl Kept ===

impl<T> Kept<T> {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Keeps a snapshot, and forgets those older than the floor.
    pub(super) fn keep(&mut self, snapshot: &Snapshot<T>, floor: Revision) {
        self.keep_at(snapshot, floor, Instant::now());
    }

    fn keep_at(&mut self, snapshot: &Snapshot<T>, floor: Revision, now: Instant) {
        self.forget_before(floor);
        if self.0.iter().any(|kept| kept.snapshot.revision == snapshot.revision) {
            return;
        }
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Since { snapshot: snapshot.clone(), at: now });
    }

    pub(super) fn get(&mut self, revision: Revision) -> Option<Snapshot<T>> {
        self.get_at(revision, Instant::now())
    }

    fn get_at(&mut self, revision: Revision, now: Instant) -> Option<Snapshot<T>> {
        self.0.retain(|kept| now.duration_since(kept.at) < KEPT_FOR);
        self.0.iter().find(|kept| kept.snapshot.revision == revision).map(|kept| kept.snapshot.clone())
    }

    pub(super) fn forget_before(&mut self, floor: Revision) {
        self.0.retain(|kept| kept.snapshot.revision >= floor);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_is_asked_for_again_and_again_ends_all_the_same() {
        let mut kept: Kept<()> = Kept::new();
        let snapshot = Snapshot::new(Sorted::new(), Revision(7));
        let begin = Instant::now();
        for seconds in [0, 100, 200, 299] {
            let now = begin + Duration::from_secs(seconds);
            kept.keep_at(&snapshot, Revision(1), now);
            assert!(kept.get_at(Revision(7), now).is_some(), "after {seconds} s");
        }
        assert!(kept.get_at(Revision(7), begin + KEPT_FOR).is_none());
        assert!(kept.is_empty());
    }
}
