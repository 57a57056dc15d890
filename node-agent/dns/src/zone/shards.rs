//! A hash map cut into pieces that clones share until they differ.
//!
//! It exists so that one changed service copies a few entries, not all of a large cluster's. It must not know what
//! it holds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// With 50,000 services a change copies some 200 entries and clones 256 pointers.
const SHARDS: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Shards<K, V> {
    shards: Vec<Arc<HashMap<K, V>>>,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let empty = Arc::new(HashMap::new());
        Self { shards: vec![empty; SHARDS] }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    fn index(key: &K) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish() as usize % SHARDS
    }

    fn shard(&mut self, key: &K) -> &mut HashMap<K, V> {
        Arc::make_mut(&mut self.shards[Self::index(key)])
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.shards[Self::index(key)].get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.shard(key).get_mut(key)
    }

    pub(super) fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        self.shard(&key).entry(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.shard(&key).insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        // A key that is not there must not cost the copy of a shard.
        self.get(key)?;
        self.shard(key).remove(key)
    }
}
