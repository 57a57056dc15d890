//! Expectations: what a loop has asked for and its cache has not shown yet.
//!
//! A loop that creates children and reads them from a cache would create them again before the cache catches
//! up. It therefore notes how many creations and which deletions it awaits, and holds still until they are seen
//! or the note is too old to believe. Bound: one note per key of the loop.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::Key;

/// After this an awaited event is taken as lost.
const BELIEVED_FOR: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Default)]
pub struct Expectations {
    notes: Mutex<HashMap<Key, Note>>,
}

struct Note {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<Key, Note>) -> T) -> T {
        f(&mut self.notes.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn note(&self, key: &Key, f: impl FnOnce(&mut Note)) {
        self.with(|notes| {
            let note = notes.entry(key.clone()).or_insert_with(|| Note {
                creations: 0,
                deletions: HashSet::new(),
                since: Instant::now(),
            });
            note.since = Instant::now();
            f(note);
        });
    }

    /// Awaits `count` creations; noted before the first request is sent.
    pub fn expect_creations(&self, key: &Key, count: usize) {
        self.note(key, |n| n.creations += count as i64);
    }

    /// Awaits the deletion of the object with this UID.
    pub fn expect_deletion(&self, key: &Key, uid: &str) {
        self.note(key, |n| {
            n.deletions.insert(uid.to_owned());
        });
    }

    /// A creation was seen, or failed and will never be.
    pub fn creation_observed(&self, key: &Key) {
        self.with(|notes| {
            if let Some(note) = notes.get_mut(key) {
                note.creations -= 1;
            }
        });
    }

    /// A deletion was seen (gone, or going), or failed and will never be.
    pub fn deletion_observed(&self, key: &Key, uid: &str) {
        self.with(|notes| {
            if let Some(note) = notes.get_mut(key) {
                note.deletions.remove(uid);
            }
        });
    }

    /// Whether the cache can be trusted to show all that was done for this key.
    pub fn satisfied(&self, key: &Key) -> bool {
        self.satisfied_at(key, Instant::now())
    }

    fn satisfied_at(&self, key: &Key, now: Instant) -> bool {
        self.with(|notes| match notes.get(key) {
            None => true,
            Some(note) => {
                (note.creations <= 0 && note.deletions.is_empty())
                    || now.duration_since(note.since) > BELIEVED_FOR
            }
        })
    }

    /// Forgets a key whose object is gone, or before a new round.
    pub fn clear(&self, key: &Key) {
        self.with(|notes| notes.remove(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_until_seen_or_too_old() {
        let expectations = Expectations::default();
        let key = Key::new("ns", "rs");
        assert!(expectations.satisfied(&key));
        expectations.expect_creations(&key, 2);
        expectations.creation_observed(&key);
        assert!(!expectations.satisfied(&key));
        expectations.creation_observed(&key);
        assert!(expectations.satisfied(&key));
        expectations.expect_deletion(&key, "u");
        expectations.deletion_observed(&key, "other");
        assert!(!expectations.satisfied(&key));
        let later = Instant::now() + BELIEVED_FOR + Duration::from_secs(1);
        assert!(expectations.satisfied_at(&key, later), "a lost event does not block for ever");
    }
}
