//! Updates while the watch cache is behind the store: every answer is the one the store's own record gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use penstock_apiserver::error::ApiError;
use penstock_apiserver::registry::{Body, Definition, ListOptions, PatchKind, Registry, Target};
use penstock_store::embedded::Embedded;
use penstock_store::{
    Committed, Expect, ListRequest, Mutation, Page, Record, Revision, Store, StoreError, WatchStream, Write,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::cluster::{config, context};

const KEY: &str = "/registry/core/configmaps/default/a";

/// A store whose watches can be held back, and which counts what is asked of it.
struct Lagging {
    inner: Arc<Embedded>,
    held: watch::Sender<bool>,
    gets: AtomicUsize,
}

#[async_trait::async_trait]
impl Store for Lagging {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        if key == KEY {
            self.gets.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.get(key).await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        self.inner.list(request).await
    }

    async fn commit(&self, write: Write) -> Result<Committed, StoreError> {
        self.inner.commit(write).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        let stream = self.inner.watch(prefix, after).await?;
        let held = self.held.subscribe();
        Ok(Box::pin(stream.then(move |event| {
            let mut held = held.clone();
            async move {
                drop(held.wait_for(|held| !*held).await);
                event
            }
        })))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.revision().await
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.inner.compact(before).await
    }
}

/// An API server that knows the ConfigMap `a` with `data.n` of 1, and hears of nothing that comes after.
struct Scene {
    registry: Arc<Registry>,
    store: Arc<Lagging>,
    definition: Arc<Definition>,
    known: Value,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inner = Embedded::open(&dir.path().join("t.redb")).await.unwrap();
        let store = Arc::new(Lagging { inner, held: watch::Sender::new(false), gets: AtomicUsize::new(0) });
        let registry = Registry::new(store.clone(), config()).await.unwrap();
        let definition = registry.find("", "v1", "configmaps").unwrap();
        let object = json!({"metadata": {"name": "a"}, "data": {"n": "1"}});
        let collection = Target::collection(Some("default"));
        let body = Body::Json(object.to_string().into());
        let known = registry.create(&context(), &definition, &collection, body).await.unwrap().object.value();
        registry.list(&context(), &definition, &collection, &ListOptions::default()).await.unwrap();
        store.held.send_replace(true);
        store.gets.store(0, Ordering::Relaxed);
        Self { registry, store, definition, known, _dir: dir }
    }

    /// What another API server makes of the object.
    async fn elsewhere(&self, mutation: Mutation) -> Revision {
        let write = Write { key: KEY.to_owned(), expect: Expect::Any, mutation };
        self.store.inner.commit(write).await.unwrap().revision
    }

    async fn put_elsewhere(&self, data: Value) -> Revision {
        let mut object = self.known.clone();
        object["data"] = data;
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let value = object.to_string().into();
        self.elsewhere(Mutation::Put { value, lease_ttl_seconds: None }).await
    }

    fn target(&self) -> Target {
        Target::named(Some("default"), "a")
    }

    async fn update(&self, version: Option<&str>, data: Value) -> Result<Value, ApiError> {
        let mut object = self.known.clone();
        object["data"] = data;
        let metadata = object["metadata"].as_object_mut().unwrap();
        match version {
            Some(version) => metadata.insert("resourceVersion".into(), version.into()),
            None => metadata.remove("resourceVersion"),
        };
        let body = Body::Json(object.to_string().into());
        let outcome = self.registry.update(&context(), &self.definition, &self.target(), body).await?;
        Ok(outcome.object.value())
    }

    async fn patch(&self, kind: PatchKind, patch: Value) -> Result<Value, ApiError> {
        let body = patch.to_string().into();
        let outcome = self.registry.patch(&context(), &self.definition, &self.target(), kind, body).await?;
        Ok(outcome.object.value())
    }

    async fn stored(&self) -> Value {
        let record = self.store.inner.get(KEY).await.unwrap().unwrap();
        serde_json::from_slice::<Value>(&record.value).unwrap()["data"].clone()
    }

    fn version(&self) -> &str {
        self.known["metadata"]["resourceVersion"].as_str().unwrap()
    }
}

#[tokio::test]
async fn an_update_of_what_is_known_asks_the_store_for_nothing() {
    let scene = Scene::open().await;
    scene.update(Some(scene.version()), json!({"n": "2"})).await.unwrap();
    assert_eq!(scene.stored().await, json!({"n": "2"}));
    // The cache has not heard of it; the transaction tells what is there.
    let patched = scene.patch(PatchKind::Merge, json!({"data": {"m": "3"}})).await.unwrap();
    assert_eq!(patched["data"], json!({"n": "2", "m": "3"}));
    assert_eq!(scene.store.gets.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_version_the_cache_has_not_heard_of_is_updated() {
    let scene = Scene::open().await;
    let newest = scene.put_elsewhere(json!({"n": "2"})).await;
    let updated = scene.update(Some(&newest.to_string()), json!({"n": "3"})).await.unwrap();
    assert_eq!(updated["data"], json!({"n": "3"}));
}

#[tokio::test]
async fn a_version_that_is_past_is_a_conflict_and_one_that_never_was_too() {
    let scene = Scene::open().await;
    scene.put_elsewhere(json!({"n": "2"})).await;
    let past = scene.update(Some(scene.version()), json!({"n": "3"})).await.unwrap_err();
    let never = scene.update(Some("999999"), json!({"n": "3"})).await.unwrap_err();
    assert!(past.is_conflict() && never.is_conflict(), "{past:?} {never:?}");
    assert_eq!(past.message, never.message);
    assert_eq!(scene.stored().await, json!({"n": "2"}));
}

#[tokio::test]
async fn a_change_that_only_the_cache_has_already_is_made() {
    let scene = Scene::open().await;
    scene.put_elsewhere(json!({"n": "2"})).await;
    let patched = scene.patch(PatchKind::Merge, json!({"data": {"n": "1"}})).await.unwrap();
    assert_eq!(patched["data"], json!({"n": "1"}));
    assert_eq!(scene.stored().await, json!({"n": "1"}));
}

#[tokio::test]
async fn a_change_that_only_the_store_has_already_is_none() {
    let scene = Scene::open().await;
    let newest = scene.put_elsewhere(json!({"n": "2"})).await;
    let patched = scene.patch(PatchKind::Merge, json!({"data": {"n": "2"}})).await.unwrap();
    assert_eq!(patched["metadata"]["resourceVersion"], newest.to_string());
}

#[tokio::test]
async fn a_patch_is_tested_against_what_is_stored() {
    let scene = Scene::open().await;
    scene.put_elsewhere(json!({"n": "2"})).await;
    let test = |n: &str| json!([{"op": "test", "path": "/data/n", "value": n}, {"op": "add", "path": "/data/m", "value": "x"}]);
    scene.patch(PatchKind::Json, test("2")).await.unwrap();
    assert_eq!(scene.stored().await, json!({"n": "2", "m": "x"}));
    scene.patch(PatchKind::Json, test("1")).await.unwrap_err();
}

#[tokio::test]
async fn what_is_gone_is_not_found_whatever_the_cache_has() {
    let scene = Scene::open().await;
    scene.elsewhere(Mutation::Delete).await;
    for answer in [
        scene.update(None, json!({"n": "2"})).await,
        scene.update(Some(scene.version()), json!({"n": "2"})).await,
        scene.update(Some("999999"), json!({"n": "2"})).await,
        scene.patch(PatchKind::Merge, json!({"data": {"n": "1"}})).await,
        scene.patch(PatchKind::Json, json!([{"op": "test", "path": "/data/n", "value": "7"}])).await,
    ] {
        assert!(answer.as_ref().is_err_and(ApiError::is_not_found), "{answer:?}");
    }
}

#[tokio::test]
async fn what_the_cache_has_not_heard_of_is_updated() {
    let scene = Scene::open().await;
    scene.elsewhere(Mutation::Delete).await;
    // The cache hears of the deletion and of nothing more.
    scene.store.held.send_replace(false);
    let collection = Target::collection(Some("default"));
    scene.registry.list(&context(), &scene.definition, &collection, &ListOptions::default()).await.unwrap();
    scene.store.held.send_replace(true);
    scene.put_elsewhere(json!({"n": "5"})).await;
    let patched = scene.patch(PatchKind::Merge, json!({"data": {"m": "6"}})).await.unwrap();
    assert_eq!(patched["data"], json!({"n": "5", "m": "6"}));
}
