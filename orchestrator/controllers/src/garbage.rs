//! The garbage collector: what is owned goes with its owner, in the background, before it (foreground), or not at
//! all (orphan).
//!
//! Follows the metadata of every object of every resource, builds the graph of owners, and decides object by
//! object. An owner the graph does not know is looked up live before anything is deleted for its absence.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use penstock_informers::failure::{During, gone_is_fine, is_not_found};
use penstock_informers::{Failure, Next, Reconcile, WorkQueue, run_workers};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::discovery::{Found, observe_resources};

pub mod graph;

use graph::{Graph, Identity, Verdict};

const DISCOVER_EVERY: Duration = Duration::from_secs(30);
const WORKERS: usize = 10;
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Runs the controller. Its key is an object's UID.
pub async fn run(context: Context) {
    let collector = Arc::new(Collector {
        client: context.client(),
        graph: Mutex::default(),
        resources: RwLock::default(),
        queue: Arc::new(WorkQueue::new()),
    });
    let follow = collector.clone().follow_resources(context.shutdown.clone());
    let work = run_workers(collector.clone(), collector.queue.clone(), WORKERS, context.shutdown);
    tokio::join!(follow, work);
}

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    /// By (apiVersion, kind).
    resources: RwLock<HashMap<(String, String), Found>>,
    queue: Arc<WorkQueue<String>>,
}

impl Collector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Follows every resource there is; new ones (CRDs) are picked up as they are discovered.
    async fn follow_resources(self: Arc<Self>, shutdown: CancellationToken) {
        let mut followed: BTreeMap<(String, String), CancellationToken> = BTreeMap::new();
        let mut delay = Duration::from_millis(200);
        loop {
            match observe_resources(&self.client).await {
                Ok(found) => {
                    delay = DISCOVER_EVERY;
                    self.take_resources(found, &mut followed, &shutdown);
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery failed; owners are not followed yet");
                    delay = (delay * 2).min(DISCOVER_EVERY);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    fn take_resources(
        self: &Arc<Self>,
        found: Vec<Found>,
        followed: &mut BTreeMap<(String, String), CancellationToken>,
        shutdown: &CancellationToken,
    ) {
        let name = |f: &Found| (f.resource.api_version.clone(), f.resource.kind.clone());
        let found: BTreeMap<_, Found> = found.into_iter().map(|f| (name(&f), f)).collect();
        followed.retain(|name, stop| {
            let stays = found.contains_key(name);
            if !stays {
                stop.cancel();
            }
            stays
        });
        *self.resources.write().unwrap_or_else(|e| e.into_inner()) =
            found.iter().map(|(name, found)| (name.clone(), found.clone())).collect();
        for (name, found) in found {
            let followable =
                found.can("watch") && found.can("list") && found.can("delete") && !found.is_event();
            if !followable || followed.contains_key(&name) {
                continue;
            }
            let stop = shutdown.child_token();
            followed.insert(name, stop.clone());
            tokio::spawn(self.clone().follow(found.resource, stop));
        }
    }

    async fn follow(self: Arc<Self>, resource: ApiResource, stop: CancellationToken) {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &resource);
        let mut stream = std::pin::pin!(watcher::watcher(api, watcher::Config::default()));
        let mut seen = std::collections::HashSet::new();
        let mut delay = Duration::from_millis(50);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => event,
            };
            let touched = match event {
                None => return,
                Some(Err(error)) => {
                    tracing::debug!(kind = %resource.kind, %error, "metadata watch interrupted");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(Duration::from_secs(10));
                    continue;
                }
                Some(Ok(event)) => {
                    delay = Duration::from_millis(50);
                    self.take_event(event, &resource, &mut seen)
                }
            };
            touched.into_iter().for_each(|uid| self.queue.add(uid));
        }
    }

    fn take_event(
        &self,
        event: Event<PartialObjectMeta<DynamicObject>>,
        resource: &ApiResource,
        seen: &mut std::collections::HashSet<String>,
    ) -> Vec<String> {
        let mut graph = self.graph();
        match event {
            Event::Init => {
                seen.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                seen.extend(object.metadata.uid.clone());
                graph.upsert(identity(resource, &object.metadata), &object.metadata)
            }
            Event::Apply(object) => graph.upsert(identity(resource, &object.metadata), &object.metadata),
            Event::Delete(object) => graph.remove(object.metadata.uid.as_deref().unwrap_or_default()),
            Event::InitDone => graph.retain(&resource.api_version, &resource.kind, seen),
        }
    }

    fn api(&self, identity: &Identity) -> Option<Api<DynamicObject>> {
        let resources = self.resources.read().unwrap_or_else(|e| e.into_inner());
        let found = resources.get(&(identity.api_version.clone(), identity.kind.clone()))?;
        let client = self.client.clone();
        Some(if found.namespaced {
            Api::namespaced_with(client, &identity.namespace, &found.resource)
        } else {
            Api::all_with(client, &found.resource)
        })
    }

    /// Whether an owner the graph does not know exists after all.
    async fn owner_exists(&self, owner: &OwnerReference, namespace: &str) -> Result<bool, Failure> {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let found = {
            let resources = self.resources.read().unwrap_or_else(|e| e.into_inner());
            let exact = resources.get(&(owner.api_version.clone(), owner.kind.clone()));
            // An older version of a kind is the same object.
            let other =
                || resources.values().find(|f| f.resource.group == group && f.resource.kind == owner.kind);
            exact.or_else(other).cloned()
        };
        let Some(found) = found else {
            return Err(Failure::Wait {
                reason: format!("kind {} of {} is not known to the server", owner.kind, owner.api_version),
                after: Duration::from_secs(30),
            });
        };
        if found.namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned from inside a namespace: nothing can be decided.
            return Ok(true);
        }
        let api: Api<DynamicObject> = if found.namespaced {
            Api::namespaced_with(self.client.clone(), namespace, &found.resource)
        } else {
            Api::all_with(self.client.clone(), &found.resource)
        };
        let live =
            api.get_metadata_opt(&owner.name).await.during(|| format!("reading owner {}", owner.name))?;
        Ok(live.is_some_and(|l| l.metadata.uid.as_deref() == Some(&owner.uid)))
    }

    async fn collect(&self, uid: &str) -> Result<(), Failure> {
        let Some(item) = self.graph().get(uid) else {
            return Ok(());
        };
        let Some(api) = self.api(&item.identity) else {
            return Err(Failure::again(format!("{} is not discovered yet", item.identity.kind)));
        };
        if item.orphaning {
            return self.orphan_dependents(uid, &item.identity, &api).await;
        }
        if item.waiting {
            return self.finish_foreground(uid, &item.identity, &api).await;
        }
        if item.deleting || item.owners.is_empty() {
            return Ok(());
        }
        let name = &item.identity.name;
        let live = api.get_metadata_opt(name).await.during(|| format!("reading {name}"))?;
        let Some(live) = live.filter(|l| l.metadata.uid.as_deref() == Some(uid)) else {
            let touched = self.graph().remove(uid);
            touched.into_iter().for_each(|uid| self.queue.add(uid));
            return Ok(());
        };
        let owners = live.metadata.owner_references.clone().unwrap_or_default();
        let mut exists = HashMap::new();
        for owner in &owners {
            let known = self.graph().get(&owner.uid).is_some();
            let there = known || self.owner_exists(owner, &item.identity.namespace).await?;
            exists.insert(owner.uid.clone(), there);
        }
        let verdict = self.graph().judge(uid, &owners, &exists);
        self.apply(verdict, &item.identity, &live.metadata, &api).await
    }

    async fn apply(
        &self,
        verdict: Verdict,
        identity: &Identity,
        live: &ObjectMeta,
        api: &Api<DynamicObject>,
    ) -> Result<(), Failure> {
        let name = &identity.name;
        match verdict {
            Verdict::Keep => Ok(()),
            Verdict::DropOwners(gone) => {
                let left: Vec<_> =
                    live.owner_references.iter().flatten().filter(|o| !gone.contains(&o.uid)).collect();
                let patch = serde_json::json!({"metadata": {
                    "resourceVersion": live.resource_version, "ownerReferences": left,
                }});
                patch_metadata(api, name, &patch).await
            }
            Verdict::Delete { foreground, unblock } => {
                if unblock {
                    let mut owners = live.owner_references.clone().unwrap_or_default();
                    owners.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
                    let patch = serde_json::json!({"metadata": {"uid": live.uid, "ownerReferences": owners}});
                    patch_metadata(api, name, &patch).await?;
                }
                let has = |finalizer: &str| live.finalizers.iter().flatten().any(|f| f == finalizer);
                let policy = if has(ORPHAN) {
                    PropagationPolicy::Orphan
                } else if foreground || has(FOREGROUND) {
                    PropagationPolicy::Foreground
                } else {
                    PropagationPolicy::Background
                };
                let params = DeleteParams {
                    propagation_policy: Some(policy),
                    preconditions: Some(Preconditions { uid: live.uid.clone(), resource_version: None }),
                    ..Default::default()
                };
                tracing::debug!(kind = %identity.kind, namespace = %identity.namespace, %name, "collected");
                gone_is_fine(api.delete(name, &params).await).map(drop).during(|| format!("deleting {name}"))
            }
        }
    }

    /// An owner deleted in the foreground goes when nothing that blocks it is left.
    async fn finish_foreground(
        &self,
        uid: &str,
        identity: &Identity,
        api: &Api<DynamicObject>,
    ) -> Result<(), Failure> {
        let blocking = self.graph().blocking(uid);
        if !blocking.is_empty() {
            blocking.into_iter().for_each(|uid| self.queue.add(uid));
            return Ok(());
        }
        self.remove_finalizer(uid, identity, api, FOREGROUND).await
    }

    async fn orphan_dependents(
        &self,
        uid: &str,
        identity: &Identity,
        api: &Api<DynamicObject>,
    ) -> Result<(), Failure> {
        let dependents = self.graph().dependents(uid);
        for dependent in dependents {
            let Some(dependent_api) = self.api(&dependent) else {
                continue;
            };
            let live = dependent_api.get_metadata_opt(&dependent.name).await;
            let Some(live) = live.during(|| format!("reading {}", dependent.name))? else {
                continue;
            };
            let owners = live.metadata.owner_references.unwrap_or_default();
            if !owners.iter().any(|o| o.uid == uid) {
                continue;
            }
            let left: Vec<_> = owners.iter().filter(|o| o.uid != uid).collect();
            let patch = serde_json::json!({"metadata": {
                "resourceVersion": live.metadata.resource_version, "ownerReferences": left,
            }});
            patch_metadata(&dependent_api, &dependent.name, &patch).await?;
        }
        self.remove_finalizer(uid, identity, api, ORPHAN).await
    }

    async fn remove_finalizer(
        &self,
        uid: &str,
        identity: &Identity,
        api: &Api<DynamicObject>,
        finalizer: &str,
    ) -> Result<(), Failure> {
        let live =
            api.get_metadata_opt(&identity.name).await.during(|| format!("reading {}", identity.name))?;
        let Some(live) = live.filter(|l| l.metadata.uid.as_deref() == Some(uid)) else {
            return Ok(());
        };
        let finalizers = live.metadata.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            return Ok(());
        }
        let left: Vec<_> = finalizers.iter().filter(|f| *f != finalizer).collect();
        let patch = serde_json::json!({"metadata": {
            "resourceVersion": live.metadata.resource_version, "finalizers": left,
        }});
        patch_metadata(api, &identity.name, &patch).await
    }
}

async fn patch_metadata(
    api: &Api<DynamicObject>,
    name: &str,
    patch: &serde_json::Value,
) -> Result<(), Failure> {
    match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if is_not_found(&error) => Ok(()),
        other => other.map(drop).during(|| format!("patching {name}")),
    }
}

fn identity(resource: &ApiResource, meta: &ObjectMeta) -> Identity {
    Identity {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

impl Reconcile for Collector {
    type Key = String;
    const NAME: &'static str = "garbage-collector";

    async fn reconcile(&self, key: &String) -> Result<Next, Failure> {
        self.collect(key).await.map(|()| Next::Done)
    }
}
