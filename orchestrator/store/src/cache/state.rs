//! The cache itself: a sorted map of decoded records, kept current by the feed, answering lists, gets and watches.
//!
//! It starts cold. The first use attaches it to the feed, lists the prefix while holding back what the feed sends,
//! and then applies what was held back: from there on map and revision agree. A cache that lost events goes cold
//! again and closes its watchers, rather than guess.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::feed::{Feed, Sink};
use super::ring::Ring;
use super::snapshot::{Kept, Snapshot};
use super::sorted::Sorted;
use super::watcher::{Opening, Slot, Watcher};
use super::{CacheError, CacheEvent, CacheOptions, Decode, DecodeError, EventFilter, Item};
use crate::{Event, ListRequest, Record, Revision, StoreError};

/// Records asked for at once while a cache fills.
const LOAD_PAGE_RECORDS: usize = 500;
/// Events held back while a cache fills; beyond them the fill starts again.
const HELD_BACK_EVENTS_MAX: usize = 20_000;
const LOAD_ATTEMPTS_MAX: usize = 5;

/// The decoded records under one prefix, shared by all readers and watchers.
pub struct WatchCache<T: Send + Sync + 'static> {
    feed: Arc<Feed>,
    prefix: String,
    decode: Decode<T>,
    options: CacheOptions,
    state: RwLock<State<T>>,
    /// Locked after `state`, if both are.
    kept: Mutex<Kept<T>>,
    /// Held while the cache fills, so that it fills once.
    filling: tokio::sync::Mutex<()>,
    attached: AtomicBool,
    watchers_made: AtomicU64,
    own: Weak<Self>,
}

struct State<T> {
    phase: Phase,
    items: Sorted<T>,
    ring: Ring<T>,
    /// The newest of the list's revision and the last event's applied here.
    applied: Revision,
    slots: Vec<Slot<T>>,
    /// Records that did not decode: key and reason. They are absent from `items`.
    undecodable: BTreeMap<String, String>,
}

enum Phase {
    Cold,
    Filling(Vec<Event>),
    Warm,
}

// === impl WatchCache ===

impl<T: Send + Sync + 'static> WatchCache<T> {
    /// A cold cache of the records whose key starts with `prefix` (end it with a slash). `decode` runs once for
    /// every version of a record, on the feed's task: it should not block.
    pub fn new(
        feed: Arc<Feed>,
        prefix: impl Into<String>,
        decode: impl Fn(&Record) -> Result<T, DecodeError> + Send + Sync + 'static,
        options: CacheOptions,
    ) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            feed,
            prefix: prefix.into(),
            decode: Box::new(decode),
            options,
            state: RwLock::new(State::cold(&options)),
            kept: Mutex::new(Kept::new()),
            filling: tokio::sync::Mutex::new(()),
            attached: AtomicBool::new(false),
            watchers_made: AtomicU64::new(0),
            own: own.clone(),
        })
    }

    /// The record of a key, as of [`WatchCache::revision`].
    pub async fn get(&self, key: &str) -> Result<Option<Arc<Item<T>>>, CacheError> {
        self.ensure_warm().await?;
        Ok(self.state.read().items.get(key).cloned())
    }

    /// The record of a key as it is cached, without waiting for anything; none while the cache is cold.
    pub fn peek(&self, key: &str) -> Option<Arc<Item<T>>> {
        self.state.read().items.get(key).cloned()
    }

    /// The records whose key starts with `prefix`, in key order, and the revision they are of.
    pub async fn list(&self, prefix: &str) -> Result<(Vec<Arc<Item<T>>>, Revision), CacheError> {
        self.ensure_warm().await?;
        let state = self.state.read();
        Ok((state.under(prefix), self.revision_of(&state)))
    }

    /// What the cache holds now, to be read from in pages. It costs little, however much there is.
    pub async fn snapshot(&self) -> Result<Snapshot<T>, CacheError> {
        self.ensure_warm().await?;
        let state = self.state.read();
        Ok(Snapshot::new(state.items.clone(), self.revision_of(&state)))
    }

    /// Keeps a snapshot for [`WatchCache::snapshot_at`], for some time.
    pub fn keep(&self, snapshot: &Snapshot<T>) {
        let state = self.state.read();
        // One of before the cache started over is of no use to its successor.
        if matches!(state.phase, Phase::Warm) && snapshot.revision() >= state.ring.floor() {
            self.kept.lock().keep(snapshot, state.ring.floor());
        }
    }

    /// What the cache held at a revision: the present one, or one that is kept. Otherwise the store knows, if anybody
    /// does: it also tells when the revision is too old to go on from, which clients rely on even where nothing has
    /// changed.
    pub async fn snapshot_at(&self, revision: Revision) -> Result<Option<Snapshot<T>>, CacheError> {
        self.ensure_warm().await?;
        {
            let state = self.state.read();
            if revision == self.revision_of(&state) {
                return Ok(Some(Snapshot::new(state.items.clone(), revision)));
            }
        }
        Ok(self.kept.lock().get(revision))
    }

    /// Waits until the cache has applied everything up to the revision. The caller sets the deadline: a revision
    /// that never happens is waited for without end.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), CacheError> {
        self.ensure_warm().await?;
        if self.revision() >= revision {
            return Ok(());
        }
        let mut positions = self.feed.positions();
        let waited = positions.wait_for(|position| *position >= revision).await;
        waited.map(|_| ()).map_err(|_| closed().into())
    }

    /// Waits until the cache holds every write acknowledged before the call, and gives the revision that was the
    /// store's newest: what a consistent read needs.
    pub async fn wait_until_current(&self) -> Result<Revision, CacheError> {
        let newest = self.feed.store().revision().await?;
        self.wait_for(newest).await?;
        Ok(newest)
    }

    /// Every event up to this revision is applied.
    pub fn revision(&self) -> Revision {
        self.revision_of(&self.state.read())
    }

    /// Watches the keys that start with `prefix`. Without `from`, the watcher begins with the present records
    /// ([`Watcher::take_initial`]); with it, with the event after that revision.
    pub async fn watch(&self, prefix: &str, from: Option<Revision>) -> Result<Watcher<T>, CacheError> {
        self.open(prefix, from, None).await
    }

    /// As [`WatchCache::watch`], queueing only events the filter accepts. Initial items are not filtered. The filter
    /// runs under the cache's lock for every event: keep it to a comparison.
    pub async fn watch_where(
        &self,
        prefix: &str,
        from: Option<Revision>,
        filter: EventFilter<T>,
    ) -> Result<Watcher<T>, CacheError> {
        self.open(prefix, from, Some(filter)).await
    }

    /// How many watchers are open.
    pub fn watchers(&self) -> usize {
        self.state.read().slots.len()
    }

    /// How many records there are whose key starts with `prefix`, not counting beyond `max`; none while the cache is cold.
    /// Waits for nothing.
    pub fn count(&self, prefix: &str, max: usize) -> usize {
        let (_, there) = self.state.read().items.page(prefix, None, Some(0));
        there.min(max)
    }

    /// Records that could not be decoded, by key, with the reason. They are left out of lists.
    pub fn undecodable(&self) -> BTreeMap<String, String> {
        self.state.read().undecodable.clone()
    }

    /// Drops a watcher's slot.
    pub(super) fn forget(&self, id: u64) {
        self.state.write().slots.retain(|slot| slot.id != id);
    }

    async fn open(
        &self,
        prefix: &str,
        from: Option<Revision>,
        filter: Option<EventFilter<T>>,
    ) -> Result<Watcher<T>, CacheError> {
        self.ensure_warm().await?;
        let mut state = self.state.write();
        let (start, initial) = match from {
            None => (self.revision_of(&state), state.under(prefix)),
            Some(from) => (from, Vec::new()),
        };
        let (mut watcher, slot) = Watcher::open(Opening {
            id: self.watchers_made.fetch_add(1, Ordering::Relaxed),
            prefix: prefix.to_owned(),
            filter,
            start,
            initial,
            events_max: self.options.watcher_events_max,
            cache: self.own.clone(),
            feed: self.feed.clone(),
        });
        if let Some(from) = from {
            let missed: Result<VecDeque<_>, Revision> = state
                .ring
                .after(from)
                .map(|events| events.filter(|event| slot.wants(event)).cloned().collect());
            match missed {
                Ok(events) => watcher.replay(events),
                Err(oldest) => {
                    // The watcher's drop takes the lock to remove a slot that was never added.
                    drop(state);
                    return Err(CacheError::Compacted { oldest });
                }
            }
        }
        state.slots.push(slot);
        Ok(watcher)
    }

    /// The revision the state is of. Under the state's lock nothing further is applied, and the feed publishes a
    /// position only after applying, so the greater of the two is always true.
    fn revision_of(&self, state: &State<T>) -> Revision {
        state.applied.max(self.feed.position())
    }

    /// Fills the cache unless it is warm.
    async fn ensure_warm(&self) -> Result<(), CacheError> {
        if matches!(self.state.read().phase, Phase::Warm) {
            return Ok(());
        }
        let _filling = self.filling.lock().await;
        if matches!(self.state.read().phase, Phase::Warm) {
            return Ok(());
        }
        self.feed.ensure_started().await?;
        if !self.attached.swap(true, Ordering::AcqRel) {
            self.feed.attach(self.own.clone());
        }
        for _ in 0..LOAD_ATTEMPTS_MAX {
            if self.fill().await? {
                return Ok(());
            }
        }
        Err(StoreError::Unavailable {
            detail: format!("{} changes faster than it can be listed", self.prefix),
        }
        .into())
    }

    /// Lists the prefix and applies what happened meanwhile; false when that was too much to hold back.
    async fn fill(&self) -> Result<bool, StoreError> {
        // Holding back begins before the list, so no event falls between the two.
        *self.state.write() = State { phase: Phase::Filling(Vec::new()), ..State::cold(&self.options) };
        let mut request = ListRequest {
            prefix: self.prefix.clone(),
            limit: Some(LOAD_PAGE_RECORDS),
            ..ListRequest::default()
        };
        let mut items = Sorted::new();
        let mut undecodable = BTreeMap::new();
        let listed = loop {
            let page = self.feed.store().list(request.clone()).await?;
            for record in &page.records {
                match self.item(record) {
                    Ok(item) => items.push(item),
                    Err(reason) => drop(undecodable.insert(record.key.clone(), reason)),
                }
            }
            if !page.more {
                break page.revision;
            }
            request.at = Some(page.revision);
            request.after = page.records.last().map(|record| record.key.clone());
        };

        let mut state = self.state.write();
        let Phase::Filling(held_back) = std::mem::replace(&mut state.phase, Phase::Cold) else {
            return Ok(false);
        };
        state.items = items;
        state.undecodable = undecodable;
        state.applied = listed;
        state.ring = Ring::new(listed, &self.options);
        state.phase = Phase::Warm;
        self.apply_to(&mut state, &held_back);
        Ok(true)
    }

    fn apply_to(&self, state: &mut State<T>, events: &[Event]) {
        // Compared with the revision before the batch: several events of one revision all count.
        let applied = state.applied;
        for event in events.iter().filter(|e| e.revision > applied && e.key.starts_with(&self.prefix)) {
            let current = event.current.as_ref().and_then(|record| match self.item(record) {
                Ok(item) => Some(item),
                Err(reason) => {
                    state.undecodable.insert(record.key.clone(), reason);
                    None
                }
            });
            if current.is_some() || event.current.is_none() {
                state.undecodable.remove(&event.key);
            }
            state.take(event.revision, &event.key, current);
        }
    }

    fn item(&self, record: &Record) -> Result<Arc<Item<T>>, String> {
        match (self.decode)(record) {
            Ok(value) => Ok(Arc::new(Item {
                key: record.key.as_str().into(),
                created: record.created,
                revision: record.modified,
                value_bytes: record.value.len(),
                value,
            })),
            Err(error) => {
                tracing::error!(key = record.key, revision = %record.modified, %error, "a stored record cannot be decoded");
                Err(error.to_string())
            }
        }
    }
}

impl<T: Send + Sync + 'static> Sink for WatchCache<T> {
    fn prefix(&self) -> &str {
        &self.prefix
    }

    fn apply(&self, events: &[Event]) {
        let mut state = self.state.write();
        match &mut state.phase {
            Phase::Cold => {}
            Phase::Filling(held_back) => {
                held_back.extend(events.iter().filter(|event| event.key.starts_with(&self.prefix)).cloned());
                if held_back.len() > HELD_BACK_EVENTS_MAX {
                    state.phase = Phase::Cold;
                }
            }
            Phase::Warm => {
                self.apply_to(&mut state, events);
                let mut kept = self.kept.lock();
                if !kept.is_empty() {
                    kept.forget_before(state.ring.floor());
                }
            }
        }
    }

    fn lose(&self) {
        let mut state = self.state.write();
        state.slots.iter().for_each(Slot::lose);
        *state = State::cold(&self.options);
        self.kept.lock().clear();
    }
}

// === impl State ===

impl<T> State<T> {
    fn cold(options: &CacheOptions) -> Self {
        Self {
            phase: Phase::Cold,
            items: Sorted::new(),
            ring: Ring::new(Revision(0), options),
            applied: Revision(0),
            slots: Vec::new(),
            undecodable: BTreeMap::new(),
        }
    }

    fn under(&self, prefix: &str) -> Vec<Arc<Item<T>>> {
        self.items.page(prefix, None, None).0
    }

    /// Puts one change into the map, the ring and every watcher's queue.
    fn take(&mut self, revision: Revision, key: &str, current: Option<Arc<Item<T>>>) {
        self.applied = self.applied.max(revision);
        let previous = match &current {
            Some(item) => self.items.insert(item.clone()),
            None => self.items.remove(key),
        };
        let key = match (&current, &previous) {
            (Some(item), _) | (None, Some(item)) => item.key.clone(),
            // A record nobody was shown (it never decoded) disappeared.
            (None, None) => return,
        };
        let event = Arc::new(CacheEvent { revision, key, current, previous });
        self.slots.retain(|slot| slot.offer(&event));
        self.ring.push(event);
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable { detail: "the store watch has stopped".to_owned() }
}
