//! Answers of others, remembered for a while, so that each is not asked the same question for every request.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// At most so many answers, each until its time; when there is no room even without the old ones, all are forgotten.
pub(crate) struct Remembered<K, V> {
    entries_max: usize,
    entries: Mutex<HashMap<K, (V, Instant)>>,
}

// === impl Remembered ===

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    pub fn new(entries_max: usize) -> Self {
        Self { entries_max, entries: Mutex::default() }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        self.get_at(Instant::now(), key)
    }

    /// Remembers for `time`; not at all when it is zero.
    pub fn put(&self, key: K, value: V, time: Duration) {
        self.put_at(Instant::now(), key, value, time);
    }

    fn get_at(&self, now: Instant, key: &K) -> Option<V> {
        let entries = self.entries.lock();
        entries.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value.clone())
    }

    fn put_at(&self, now: Instant, key: K, value: V, time: Duration) {
        // A time so long that the clock cannot hold it is a mistake, and not worth an answer that never changes.
        let Some(until) = now.checked_add(time).filter(|until| *until > now) else { return };
        let mut entries = self.entries.lock();
        if entries.len() >= self.entries_max {
            entries.retain(|_, (_, until)| *until > now);
        }
        if entries.len() >= self.entries_max {
            entries.clear();
        }
        entries.insert(key, (value, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_for_their_time_and_never_too_many() {
        let remembered = Remembered::new(2);
        let (start, time) = (Instant::now(), Duration::from_secs(10));
        remembered.put_at(start, "a", 1, time);
        remembered.put_at(start, "never", 1, Duration::ZERO);
        assert_eq!((remembered.get_at(start, &"a"), remembered.get_at(start, &"never")), (Some(1), None));
        let later = start + time;
        assert_eq!(remembered.get_at(later, &"a"), None);
        remembered.put_at(later, "b", 2, time);
        remembered.put_at(later, "c", 3, time);
        let both = (remembered.get_at(later, &"b"), remembered.get_at(later, &"c"));
        assert_eq!(both, (Some(2), Some(3)), "old ones make room");
        remembered.put_at(later, "d", 4, time);
        assert_eq!((remembered.get_at(later, &"b"), remembered.get_at(later, &"d")), (None, Some(4)));
    }
}
