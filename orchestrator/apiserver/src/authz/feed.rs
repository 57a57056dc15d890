//! Keeps the policy index current: one watch a kind, from the registry's own caches.
//!
//! A watch that ends or fails is started again from a fresh list, so the index converges whatever happens. Until the
//! first lists are in, [`spawn`] does not return: an API server never serves with an empty policy.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::policy::Policy;
use crate::error::ApiError;
use crate::registry::{Context, Definition, ListOptions, Registry, Target, WatchItem};

const GROUP: &str = "rbac.authorization.k8s.io";
/// Pause before a failed watch is started again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The four kinds, and how each enters and leaves the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Role,
    Binding,
}

const SOURCES: [(&str, Kind); 4] = [
    ("clusterroles", Kind::Role),
    ("roles", Kind::Role),
    ("clusterrolebindings", Kind::Binding),
    ("rolebindings", Kind::Binding),
];

/// Names in the index that came from one source.
type Known = HashSet<(String, String)>;

/// Fills the policy and keeps it current until `shutdown`.
pub async fn spawn(
    registry: Arc<Registry>,
    policy: Arc<RwLock<Policy>>,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    for (plural, kind) in SOURCES {
        let Some(definition) = registry.find(GROUP, "v1", plural) else {
            continue;
        };
        let mut known = Known::new();
        let revision = load(&registry, &definition, kind, &policy, &mut known).await?;
        let (registry, policy, shutdown) = (registry.clone(), policy.clone(), shutdown.clone());
        tokio::spawn(async move {
            let work = follow(&registry, &definition, kind, &policy, known, revision);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = work => {}
            }
        });
    }
    Ok(())
}

/// Lists one kind into the index, forgets what is gone, and returns the list's revision.
async fn load(
    registry: &Registry,
    definition: &Definition,
    kind: Kind,
    policy: &RwLock<Policy>,
    known: &mut Known,
) -> Result<u64, ApiError> {
    let context = Context::system();
    let listed = registry.list(&context, definition, &Target::default(), &ListOptions::default()).await?;
    let mut present = Known::new();
    let mut index = policy.write();
    for item in &listed.items {
        put(&mut index, kind, &item.value());
        present.insert((item.namespace.clone(), item.name.clone()));
    }
    for (namespace, name) in known.difference(&present) {
        remove(&mut index, kind, namespace, name);
    }
    *known = present;
    Ok(listed.resource_version)
}

async fn follow(
    registry: &Registry,
    definition: &Definition,
    kind: Kind,
    policy: &RwLock<Policy>,
    mut known: Known,
    mut revision: u64,
) {
    let context = Context::system();
    loop {
        let options = ListOptions { resource_version: Some(revision.to_string()), ..ListOptions::default() };
        if let Ok(mut events) = registry.watch(&context, definition, &Target::default(), &options).await {
            while let Some(event) = events.next().await {
                match event {
                    WatchItem::Added(object) | WatchItem::Modified(object) => {
                        known.insert((object.namespace.clone(), object.name.clone()));
                        put(&mut policy.write(), kind, &object.value());
                    }
                    WatchItem::Deleted(object) => {
                        known.remove(&(object.namespace.clone(), object.name.clone()));
                        remove(&mut policy.write(), kind, &object.namespace, &object.name);
                    }
                    WatchItem::Bookmark(_) => {}
                    WatchItem::Error(error) => {
                        tracing::debug!(%error, resource = %definition.plural, "policy watch ended");
                        break;
                    }
                }
            }
        }
        loop {
            tokio::time::sleep(RETRY_AFTER).await;
            match load(registry, definition, kind, policy, &mut known).await {
                Ok(at) => {
                    revision = at;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, resource = %definition.plural, "policy could not be listed")
                }
            }
        }
    }
}

fn put(policy: &mut Policy, kind: Kind, object: &serde_json::Value) {
    match kind {
        Kind::Role => policy.put_role(object),
        Kind::Binding => policy.put_binding(object),
    }
}

fn remove(policy: &mut Policy, kind: Kind, namespace: &str, name: &str) {
    match kind {
        Kind::Role => policy.remove_role(namespace, name),
        Kind::Binding => policy.remove_binding(namespace, name),
    }
}
