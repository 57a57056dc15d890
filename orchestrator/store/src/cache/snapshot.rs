//! A cache as it was at a revision, which pages are read from one after the other while the cache goes on.
//!
//! Those that pages were cut from are kept for as long as the ring of recent events reaches back to them: what they
//! hold beyond the present is then in the ring anyway.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Item;
use super::sorted::Sorted;
use crate::Revision;

/// Kept at most; the oldest goes first.
const KEPT_MAX: usize = 8;

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
pub(super) struct Kept<T>(VecDeque<Snapshot<T>>);

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
        self.forget_before(floor);
        if self.0.iter().any(|kept| kept.revision == snapshot.revision) {
            return;
        }
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(snapshot.clone());
    }

    pub(super) fn get(&self, revision: Revision) -> Option<Snapshot<T>> {
        self.0.iter().find(|kept| kept.revision == revision).cloned()
    }

    pub(super) fn forget_before(&mut self, floor: Revision) {
        self.0.retain(|kept| kept.revision >= floor);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
