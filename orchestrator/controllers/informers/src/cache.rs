//! The shared caches: one list-and-watch per resource type in a process, whoever asks for it.
//!
//! A cache holds each object once behind an `Arc`, indexed by namespace (through key order) and by controlling
//! owner. Subscribers are told of every change with the old and the new object; they must not block. Fields no
//! loop reads (`managedFields`) are dropped before an object is kept.
//!
//! Bound: as many objects as the server holds of that type.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Key, Meta};

/// What a cache can hold: a typed object of the API.
pub trait Cached:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug + Send + Sync + 'static
{
}
impl<K> Cached for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug + Send + Sync + 'static
{
}

/// A change of one object.
pub enum Delta<'a, K> {
    Added(&'a Arc<K>),
    Updated { old: &'a Arc<K>, new: &'a Arc<K> },
    Deleted(&'a Arc<K>),
}

impl<K> Delta<'_, K> {
    /// The object as it is now, or as it was last.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }
}

type Handler<K> = Box<dyn Fn(&Delta<'_, K>) + Send + Sync>;

/// All objects of one type, kept current.
pub struct Cache<K> {
    objects: RwLock<Objects<K>>,
    // Held while handlers run, so that subscribing and changing are in one order.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

struct Objects<K> {
    by_key: BTreeMap<Key, Arc<K>>,
    by_controller: HashMap<String, BTreeSet<Key>>,
}

impl<K: Cached> Default for Cache<K> {
    fn default() -> Self {
        Self {
            objects: RwLock::new(Objects { by_key: BTreeMap::new(), by_controller: HashMap::new() }),
            handlers: Mutex::new(Vec::new()),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K: Cached> Cache<K> {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Objects<K>> {
        self.objects.read().unwrap_or_else(|e| e.into_inner())
    }

    /// The object of that name.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().by_key.get(key).cloned()
    }

    /// All objects, in key order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().by_key.values().cloned().collect()
    }

    /// All objects of a namespace, in name order.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.read();
        let from = Key::new(namespace, "");
        let range = objects.by_key.range(from..).take_while(|(k, _)| k.namespace == namespace);
        range.map(|(_, object)| object.clone()).collect()
    }

    /// All objects whose controlling owner has this UID.
    pub fn list_controlled(&self, uid: &str) -> Vec<Arc<K>> {
        let objects = self.read();
        let keys = objects.by_controller.get(uid).into_iter().flatten();
        keys.filter_map(|key| objects.by_key.get(key).cloned()).collect()
    }

    /// All objects of a namespace that no one controls.
    pub fn list_orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.list_controlled(&orphans_of(namespace))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `handler` for every object there is (as added), then for every change, in order.
    pub fn subscribe(&self, handler: impl Fn(&Delta<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self.handlers.lock().unwrap_or_else(|e| e.into_inner());
        for object in self.list() {
            handler(&Delta::Added(&object));
        }
        handlers.push(Box::new(handler));
    }

    /// Returns when the first complete list has been taken in.
    pub async fn wait_synced(&self) {
        let mut receiver = self.synced.subscribe();
        // The sender lives in self, so waiting can only end with true.
        let _ = receiver.wait_for(|synced| *synced).await;
    }

    /// Takes in an object that is there; also what tests feed caches with.
    pub fn upsert(&self, mut object: K) {
        strip(&mut object);
        let new = Arc::new(object);
        let handlers = self.handlers.lock().unwrap_or_else(|e| e.into_inner());
        let old = self.objects.write().unwrap_or_else(|e| e.into_inner()).insert(new.clone());
        let delta = match &old {
            // The first list of a restarted watch repeats what is known.
            Some(old)
                if old.meta().resource_version == new.meta().resource_version
                    && new.meta().resource_version.is_some() =>
            {
                return;
            }
            Some(old) if old.uid_str() != new.uid_str() => {
                for handler in handlers.iter() {
                    handler(&Delta::Deleted(old));
                }
                Delta::Added(&new)
            }
            Some(old) => Delta::Updated { old, new: &new },
            None => Delta::Added(&new),
        };
        for handler in handlers.iter() {
            handler(&delta);
        }
    }

    /// Takes out an object that is gone. `last` is its last state, when known.
    pub fn remove(&self, key: &Key, last: Option<K>) {
        let handlers = self.handlers.lock().unwrap_or_else(|e| e.into_inner());
        let removed = self.objects.write().unwrap_or_else(|e| e.into_inner()).remove(key);
        let Some(removed) = removed else { return };
        let removed = match last {
            Some(mut last) => {
                strip(&mut last);
                Arc::new(last)
            }
            None => removed,
        };
        for handler in handlers.iter() {
            handler(&Delta::Deleted(&removed));
        }
    }

    /// Takes out all objects but those seen in a complete list.
    fn retain(&self, seen: &BTreeSet<Key>) {
        let gone: Vec<Key> = self.read().by_key.keys().filter(|k| !seen.contains(*k)).cloned().collect();
        for key in gone {
            self.remove(&key, None);
        }
    }

    /// Marks the first list as complete.
    pub fn mark_synced(&self) {
        self.synced.send_replace(true);
    }

    async fn follow(self: Arc<Self>, client: Client, config: watcher::Config, shutdown: CancellationToken)
    where
        K: Resource,
    {
        let api: Api<K> = Api::all_with(client, &());
        let mut stream = std::pin::pin!(watcher::watcher(api, config));
        let mut seen = BTreeSet::new();
        let mut delay = Duration::from_millis(20);
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                None => return,
                Some(Ok(event)) => {
                    delay = Duration::from_millis(20);
                    self.take_in(event, &mut seen);
                }
                Some(Err(error)) => {
                    tracing::debug!(kind = %K::kind(&()), %error, ?delay, "watch interrupted");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(delay) => {}
                    }
                    delay = (delay * 2).min(Duration::from_secs(10));
                }
            }
        }
    }

    fn take_in(&self, event: Event<K>, seen: &mut BTreeSet<Key>) {
        match event {
            Event::Apply(object) => self.upsert(object),
            Event::Delete(object) => self.remove(&object.key(), Some(object)),
            Event::Init => seen.clear(),
            Event::InitApply(object) => {
                seen.insert(object.key());
                self.upsert(object);
            }
            Event::InitDone => {
                self.retain(seen);
                seen.clear();
                self.mark_synced();
            }
        }
    }
}

impl<K: Cached> Objects<K> {
    fn insert(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let key = object.key();
        let old = self.by_key.insert(key.clone(), object.clone());
        let old_owner = old.as_deref().map(owner_index);
        let new_owner = owner_index(object.as_ref());
        if old_owner.as_ref() != Some(&new_owner) {
            if let Some(owner) = old_owner {
                self.disown(&owner, &key);
            }
            self.by_controller.entry(new_owner).or_default().insert(key);
        }
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.by_key.remove(key)?;
        self.disown(&owner_index(old.as_ref()), key);
        Some(old)
    }

    fn disown(&mut self, owner: &str, key: &Key) {
        if let Some(keys) = self.by_controller.get_mut(owner) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_controller.remove(owner);
            }
        }
    }
}

/// What an object is indexed under: its controller's UID, or its namespace's orphans.
fn owner_index<K: Resource>(object: &K) -> String {
    object.controller_ref().map_or_else(|| orphans_of(object.ns()), |owner| owner.uid.clone())
}

fn orphans_of(namespace: &str) -> String {
    // A slash cannot occur in a UID.
    format!("orphans/{namespace}")
}

fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// The caches of a process by type; cheap to clone.
#[derive(Clone)]
pub struct Informers {
    /// What whoever holds this writes with.
    client: Client,
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    shutdown: CancellationToken,
    /// By type and field selector.
    caches: Mutex<HashMap<(TypeId, &'static str), Arc<dyn Any + Send + Sync>>>,
}

impl Informers {
    /// Caches that follow the server behind `client` until `shutdown`. Nothing is watched before it is asked for.
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        let caches = Mutex::new(HashMap::new());
        Self { client: client.clone(), inner: Arc::new(Inner { client, shutdown, caches }) }
    }

    /// The same caches for somebody who writes with another client.
    pub fn written_with(&self, client: Client) -> Self {
        Self { client, inner: self.inner.clone() }
    }

    /// The client to write with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The cache of a type; the first call starts following it. Must be called within a Tokio runtime.
    pub fn cache<K: Cached>(&self) -> Arc<Cache<K>> {
        self.selection("")
    }

    /// As [`Informers::cache`], of the objects that a field selector selects.
    pub fn selection<K: Cached>(&self, fields: &'static str) -> Arc<Cache<K>> {
        let mut caches = self.inner.caches.lock().unwrap_or_else(|e| e.into_inner());
        let entry = caches.entry((TypeId::of::<K>(), fields)).or_insert_with(|| {
            let cache = Arc::new(Cache::<K>::default());
            let (client, shutdown) = (self.inner.client.clone(), self.inner.shutdown.clone());
            let mut config = watcher::Config::default();
            if !fields.is_empty() {
                config = config.fields(fields);
            }
            // Without its type: Tokio's part of a task is then compiled once, not once a kind.
            let task: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(cache.clone().follow(client, config, shutdown));
            tokio::spawn(task);
            cache
        });
        // The map is keyed by the type, so the downcast cannot miss.
        entry.clone().downcast::<Cache<K>>().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::controller_reference;
    use k8s_openapi::api::core::v1::Pod;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn pod(name: &str, version: &str, owner: Option<&Pod>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.namespace = Some("ns".into());
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.metadata.resource_version = Some(version.into());
        pod.metadata.owner_references = owner.map(|o| vec![controller_reference(o)]);
        pod
    }

    #[test]
    fn the_owner_index_follows_adoption_release_and_deletion() {
        let cache = Cache::<Pod>::default();
        let owner = pod("owner", "1", None);
        cache.upsert(pod("a", "2", Some(&owner)));
        assert_eq!(cache.list_controlled("uid-owner").len(), 1);
        cache.upsert(pod("a", "3", None));
        assert!(cache.list_controlled("uid-owner").is_empty());
        assert_eq!(cache.list_orphans("ns").len(), 1);
        cache.upsert(pod("a", "4", Some(&owner)));
        cache.remove(&Key::new("ns", "a"), None);
        assert!(cache.read().by_controller.is_empty());
    }

    #[test]
    fn a_late_subscriber_sees_everything_once() {
        let cache = Cache::<Pod>::default();
        cache.upsert(pod("a", "1", None));
        let added = Arc::new(AtomicUsize::new(0));
        let counter = added.clone();
        cache.subscribe(move |delta| {
            if let Delta::Added(_) = delta {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        cache.upsert(pod("a", "1", None));
        cache.upsert(pod("a", "2", None));
        cache.upsert(pod("b", "3", None));
        assert_eq!(added.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_complete_list_removes_what_it_does_not_name() {
        let cache = Cache::<Pod>::default();
        let mut seen = BTreeSet::new();
        cache.upsert(pod("old", "1", None));
        cache.take_in(Event::Init, &mut seen);
        cache.take_in(Event::InitApply(pod("new", "2", None)), &mut seen);
        cache.take_in(Event::InitDone, &mut seen);
        let names: Vec<String> = cache.list().iter().map(|p| p.name().to_owned()).collect();
        assert_eq!(names, ["new"]);
    }
}
