//! The watch cache when the store's watch fails under it: cut, cut for longer than history lasts, replaced by a
//! backup.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use penstock_store::cache::{CacheError, CacheOptions, Feed, WatchCache, Watcher};
use penstock_store::embedded::Embedded;
use penstock_store::{
    Committed, Expect, ListRequest, Mutation, Page, Record, Revision, Store, StoreError, WatchStream, Write,
};
use tempfile::TempDir;
use tokio::sync::watch;

/// A store whose watches can be cut and refused. What is behind it can be exchanged.
struct Faulty {
    inner: Mutex<Arc<Embedded>>,
    /// Watches of an older generation than this end.
    generation: watch::Sender<u64>,
    refusing: Mutex<bool>,
}

impl Faulty {
    fn over(store: Arc<Embedded>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(store),
            generation: watch::Sender::new(0),
            refusing: Mutex::new(false),
        })
    }

    fn store(&self) -> Arc<Embedded> {
        self.inner.lock().clone()
    }

    /// Ends every watch.
    fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    fn refuse(&self, refusing: bool) {
        *self.refusing.lock() = refusing;
    }

    async fn put(&self, key: &str, value: &str) -> Revision {
        let mutation = Mutation::Put { value: value.to_owned().into(), lease_ttl_seconds: None };
        self.commit(Write { key: key.to_owned(), expect: Expect::Any, mutation }).await.unwrap().revision
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.store().get(key).await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        self.store().list(request).await
    }

    async fn commit(&self, write: Write) -> Result<Committed, StoreError> {
        self.store().commit(write).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        if *self.refusing.lock() {
            return Err(StoreError::Unavailable { detail: "refused by the test".to_owned() });
        }
        let stream = self.store().watch(prefix, after).await?;
        let mut generations = self.generation.subscribe();
        let own = *generations.borrow_and_update();
        Ok(Box::pin(stream.take_until(async move {
            drop(generations.wait_for(|generation| *generation != own).await);
        })))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store().revision().await
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.store().compact(before).await
    }
}

async fn scene() -> (TempDir, Arc<Faulty>, Arc<WatchCache<String>>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Faulty::over(Embedded::open(&directory.path().join("store.redb")).await.unwrap());
    let decode = |record: &Record| Ok(String::from_utf8(record.value.to_vec())?);
    let cache = WatchCache::new(Feed::new(store.clone()), "/a/", decode, CacheOptions::default());
    (directory, store, cache)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it happens in time")
}

async fn values(cache: &WatchCache<String>) -> Vec<String> {
    cache.list("/a/").await.unwrap().0.iter().map(|item| item.value.clone()).collect()
}

async fn value(watcher: &mut Watcher<String>) -> String {
    soon(watcher.next()).await.unwrap().unwrap().current.as_ref().unwrap().value.clone()
}

#[tokio::test]
async fn a_cut_watch_is_resumed_and_watchers_miss_nothing() {
    let (_directory, store, cache) = scene().await;
    let mut watcher = cache.watch("/a/", None).await.unwrap();
    for round in 0..3 {
        store.refuse(true);
        store.cut();
        store.put("/a/x", &format!("{round} during")).await;
        store.refuse(false);
        store.put("/a/x", &format!("{round} after")).await;
        assert_eq!(value(&mut watcher).await, format!("{round} during"));
        assert_eq!(value(&mut watcher).await, format!("{round} after"));
    }
}

#[tokio::test]
async fn when_history_is_gone_watchers_must_list_again_and_the_cache_does() {
    let (_directory, store, cache) = scene().await;
    let kept = store.put("/a/kept", "old").await;
    store.put("/a/gone", "old").await;
    let mut watcher = cache.watch("/a/", None).await.unwrap();
    store.refuse(true);
    store.cut();
    store.put("/a/kept", "new").await;
    let mutation = Mutation::Delete;
    let last = store
        .commit(Write { key: "/a/gone".to_owned(), expect: Expect::Any, mutation })
        .await
        .unwrap()
        .revision;
    store.compact(last).await.unwrap();
    store.refuse(false);

    let end = soon(watcher.next()).await;
    assert!(matches!(end, Some(Err(CacheError::Compacted { .. }))), "no event is made up: {end:?}");
    assert_eq!(values(&cache).await, ["new"]);
    let stale = cache.watch("/a/", Some(kept)).await.map(|_| ());
    assert!(matches!(stale, Err(CacheError::Compacted { .. })), "{stale:?}");
    let mut again = cache.watch("/a/", None).await.unwrap();
    store.put("/a/more", "live").await;
    assert_eq!(value(&mut again).await, "live");
}

#[tokio::test]
async fn a_store_that_went_back_in_time_is_listed_again() {
    let (directory, store, cache) = scene().await;
    store.put("/a/x", "one").await;
    store.put("/a/x", "two").await;
    assert_eq!(values(&cache).await, ["two"]);
    let mut watcher = cache.watch("/a/", None).await.unwrap();
    let earlier = Embedded::open(&directory.path().join("earlier.redb")).await.unwrap();
    *store.inner.lock() = earlier;
    store.cut();
    let end = soon(watcher.next()).await;
    assert!(matches!(end, Some(Err(CacheError::Compacted { .. }))), "{end:?}");
    assert_eq!(values(&cache).await, Vec::<String>::new());
    let written = store.put("/a/y", "after").await;
    soon(cache.wait_for(written)).await.unwrap();
    assert_eq!(values(&cache).await, ["after"]);
}
