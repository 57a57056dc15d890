//! The contract every store keeps, as a suite: run the same cases against each implementation.
//!
//! A case is given a store, which may be shared and may already hold anything, and a prefix nobody else uses. Cases
//! panic when the contract is broken, as tests do.

mod caching;
mod history;
mod watching;
mod writing;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::{
    Committed, Event, Expect, ListRequest, Mutation, Page, Revision, Store, StoreError, WatchStream, Write,
};

/// One promise of the contract, and what checks it.
pub struct Case {
    pub name: &'static str,
    pub run: fn(Scene) -> BoxFuture<'static, ()>,
}

/// What a case works with.
#[derive(Clone)]
pub struct Scene {
    pub store: Arc<dyn Store>,
    /// Ends with a slash.
    pub prefix: String,
}

/// Everything the contract promises.
pub fn cases() -> Vec<Case> {
    [writing::CASES, watching::CASES, history::CASES, caching::CASES]
        .into_iter()
        .flat_map(IntoIterator::into_iter)
        .map(|(name, run)| Case { name, run: *run })
        .collect()
}

type Named = (&'static str, fn(Scene) -> BoxFuture<'static, ()>);

/// Lists the cases of a file: the function's name is the promise.
macro_rules! promises {
    ($($case:ident),* $(,)?) => {
        pub(super) const CASES: &[super::Named] = &[$((stringify!($case), |scene| Box::pin($case(scene)))),*];
    };
}
use promises;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits what must happen.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

// === impl Scene ===

impl Scene {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn put(&self, name: &str, expect: Expect, value: &str) -> Result<Committed, StoreError> {
        let mutation =
            Mutation::Put { value: Bytes::copy_from_slice(value.as_bytes()), lease_ttl_seconds: None };
        self.store.commit(Write { key: self.key(name), expect, mutation }).await
    }

    async fn create(&self, name: &str, value: &str) -> Revision {
        self.put(name, Expect::Absent, value).await.expect("the key is new").revision
    }

    async fn update(&self, name: &str, value: &str) -> Revision {
        self.put(name, Expect::Any, value).await.expect("any state is fine").revision
    }

    async fn put_for(&self, name: &str, value: &str, ttl_seconds: u64) -> Revision {
        let mutation = Mutation::Put {
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease_ttl_seconds: Some(ttl_seconds),
        };
        let write = Write { key: self.key(name), expect: Expect::Any, mutation };
        self.store.commit(write).await.expect("any state is fine").revision
    }

    async fn delete(&self, name: &str, expect: Expect) -> Result<Committed, StoreError> {
        self.store.commit(Write { key: self.key(name), expect, mutation: Mutation::Delete }).await
    }

    /// The value of a key.
    async fn value(&self, name: &str) -> Option<String> {
        let record = self.store.get(&self.key(name)).await.expect("reads work")?;
        Some(String::from_utf8(record.value.to_vec()).expect("the test wrote text"))
    }

    async fn list(&self, at: Option<Revision>) -> Page {
        let request = ListRequest { prefix: self.prefix.clone(), at, ..ListRequest::default() };
        self.store.list(request).await.expect("lists work")
    }

    async fn watch(&self, after: Revision) -> WatchStream {
        self.store.watch(&self.prefix, after).await.expect("history reaches back")
    }

    /// Names and values of a page, without the prefix.
    fn contents(&self, page: &Page) -> Vec<(String, String)> {
        let name =
            |key: &str| key.strip_prefix(&self.prefix).expect("lists stay below the prefix").to_owned();
        page.records.iter().map(|r| (name(&r.key), String::from_utf8_lossy(&r.value).into_owned())).collect()
    }
}

async fn next(watch: &mut WatchStream) -> Event {
    soon("an event", watch.next()).await.expect("the watch goes on").expect("the watch is healthy")
}

/// An event as `+name=value`, `~name=old→new` or `-name=old`.
fn sketch(scene: &Scene, event: &Event) -> String {
    let name = event.key.strip_prefix(&scene.prefix).unwrap_or(&event.key);
    let text = |record: &crate::Record| String::from_utf8_lossy(&record.value).into_owned();
    match (&event.previous, &event.current) {
        (None, Some(new)) => format!("+{name}={}", text(new)),
        (Some(old), Some(new)) => format!("~{name}={}→{}", text(old), text(new)),
        (Some(old), None) => format!("-{name}={}", text(old)),
        (None, None) => format!("?{name}"),
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
