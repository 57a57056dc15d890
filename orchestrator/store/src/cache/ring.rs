//! The ring of recent events: what lets a watcher that lost its connection resume without a new list.
//!
//! Bounded by count and by the bytes of the records its events stand for. It knows from which revision on it is
//! complete; it does not know who resumes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{CacheEvent, CacheOptions};
use crate::Revision;

pub(super) struct Ring<T> {
    events: VecDeque<Arc<CacheEvent<T>>>,
    bytes: usize,
    /// Every event after this revision is in the ring.
    floor: Revision,
    events_max: usize,
    bytes_max: usize,
}

// === impl Ring ===

impl<T> Ring<T> {
    pub(super) fn new(floor: Revision, options: &CacheOptions) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            floor,
            events_max: options.ring_events_max.max(1),
            bytes_max: options.ring_bytes_max,
        }
    }

    /// Every event after this revision is here.
    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    pub(super) fn push(&mut self, event: Arc<CacheEvent<T>>) {
        self.bytes += weight(&event);
        self.events.push_back(event);
        while self.events.len() > self.events_max || (self.bytes > self.bytes_max && self.events.len() > 1) {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= weight(&oldest);
            self.floor = oldest.revision;
        }
    }

    /// The events after a revision, oldest first, or the oldest revision that could be resumed from.
    pub(super) fn after(
        &self,
        from: Revision,
    ) -> Result<impl Iterator<Item = &Arc<CacheEvent<T>>>, Revision> {
        if from < self.floor {
            return Err(self.floor);
        }
        Ok(self.events.range(self.events.partition_point(|event| event.revision <= from)..))
    }
}

/// The bytes an event keeps alive: the version it replaced (the new one is usually in the cache as well).
fn weight<T>(event: &CacheEvent<T>) -> usize {
    event.previous.as_ref().or(event.current.as_ref()).map_or(0, |item| item.value_bytes) + event.key.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64) -> Arc<CacheEvent<()>> {
        Arc::new(CacheEvent { revision: Revision(revision), key: "/k".into(), current: None, previous: None })
    }

    fn revisions(ring: &Ring<()>, from: u64) -> Result<Vec<u64>, u64> {
        ring.after(Revision(from))
            .map(|events| events.map(|event| event.revision.0).collect())
            .map_err(|r| r.0)
    }

    #[test]
    fn resuming_gives_exactly_the_events_after_the_revision() {
        let mut ring = Ring::new(Revision(10), &CacheOptions::default());
        [12, 15, 15, 20].into_iter().for_each(|revision| ring.push(event(revision)));
        assert_eq!(revisions(&ring, 10), Ok(vec![12, 15, 15, 20]));
        assert_eq!(revisions(&ring, 12), Ok(vec![15, 15, 20]));
        assert_eq!(revisions(&ring, 20), Ok(vec![]));
        assert_eq!(revisions(&ring, 9), Err(10));
    }

    #[test]
    fn a_full_ring_forgets_the_oldest_and_knows_it() {
        let options = CacheOptions { ring_events_max: 2, ..CacheOptions::default() };
        let mut ring = Ring::new(Revision(0), &options);
        (1..=4).for_each(|revision| ring.push(event(revision)));
        assert_eq!(revisions(&ring, 2), Ok(vec![3, 4]));
        assert_eq!(revisions(&ring, 1), Err(2));
    }

    #[test]
    fn bytes_bound_the_ring_but_never_empty_it() {
        let options = CacheOptions { ring_bytes_max: 1, ..CacheOptions::default() };
        let mut ring = Ring::new(Revision(0), &options);
        (1..=3).for_each(|revision| ring.push(event(revision)));
        assert_eq!(revisions(&ring, 2), Ok(vec![3]));
    }
}
