//! ReplicaSet and ReplicationController: keep so many pods of one template alive.
//!
//! One engine for both kinds. A pass observes owned pods, plans creations, deletions and the status with a pure
//! function, and applies them. Expectations keep a lagging cache from making it create twice.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use penstock_informers::cache::{Cache, Cached, Delta};
use penstock_informers::expectations::Expectations;
use penstock_informers::failure::{During, is_namespace_terminating, is_not_found};
use penstock_informers::identity::controller_reference;
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use crate::claim::{apply_claims, observe_candidates, plan_claims};
use crate::context::Context;
use crate::pod;

pub mod kinds;
pub mod plan;

use kinds::Replicated;
use plan::{Observed, Plan, Trouble, plan};

const WORKERS: usize = 5;

/// Runs both kinds.
pub async fn run(context: Context) {
    let sets = run_kind::<ReplicaSet>(context.clone());
    let controllers = run_kind::<ReplicationController>(context);
    tokio::join!(sets, controllers);
}

async fn run_kind<R: Replicated>(context: Context) {
    let engine = Arc::new(Engine::<R> {
        client: context.client(),
        owners: context.informers.cache(),
        pods: context.informers.cache(),
        expectations: Expectations::default(),
        queue: Arc::new(WorkQueue::new()),
        recorder: context.recorder(R::COMPONENT),
    });
    engine.owners.wait_synced().await;
    engine.pods.wait_synced().await;
    let queue = engine.queue.clone();
    engine.owners.subscribe(move |delta| queue.add(delta.object().key()));
    let weak = engine.clone();
    engine.pods.subscribe(move |delta| weak.pod_changed(delta));
    run_workers(engine.clone(), engine.queue.clone(), WORKERS, context.shutdown).await;
}

struct Engine<R> {
    client: Client,
    owners: Arc<Cache<R>>,
    pods: Arc<Cache<Pod>>,
    expectations: Expectations,
    queue: Arc<WorkQueue<Key>>,
    recorder: Recorder,
}

impl<R: Replicated> Engine<R> {
    fn pod_changed(&self, delta: &Delta<'_, Pod>) {
        match delta {
            Delta::Added(pod) if pod.deleting() => self.pod_going(pod),
            Delta::Added(pod) => match self.owner_key(pod) {
                Some(owner) => {
                    self.expectations.creation_observed(&owner);
                    self.queue.add(owner);
                }
                None => self.offer_orphan(pod),
            },
            Delta::Updated { old, new } => {
                if old.controller_ref().map(|o| &o.uid) != new.controller_ref().map(|o| &o.uid)
                    && let Some(owner) = self.owner_key(old)
                {
                    self.queue.add(owner);
                }
                if new.deleting() {
                    return self.pod_going(new);
                }
                match self.owner_key(new) {
                    Some(owner) => self.queue.add(owner),
                    None => self.offer_orphan(new),
                }
            }
            Delta::Deleted(pod) => self.pod_going(pod),
        }
    }

    fn pod_going(&self, pod: &Pod) {
        if let Some(owner) = self.owner_key(pod) {
            self.expectations.deletion_observed(&owner, pod.uid_str());
            self.queue.add(owner);
        }
    }

    fn owner_key(&self, pod: &Pod) -> Option<Key> {
        let owner = pod.controller_ref()?;
        let ours = owner.kind == R::kind(&()) && owner.api_version == R::api_version(&());
        ours.then(|| Key::new(pod.ns(), owner.name.clone()))
    }

    fn offer_orphan(&self, pod: &Pod) {
        if pod.controller_ref().is_some() {
            return;
        }
        for owner in self.owners.list_namespace(pod.ns()) {
            if owner.selector().matches(pod.metadata.labels.as_ref()) {
                self.queue.add(owner.key());
            }
        }
    }

    async fn observe(&self, owner: &Arc<R>) -> Result<Observed, Failure> {
        let selector = owner.selector();
        let candidates = observe_candidates(&self.pods, owner.uid_str(), owner.ns());
        let claims = plan_claims(owner.uid_str(), owner.deleting(), &selector, candidates, pod::is_active);
        let pods = apply_claims(&self.client, owner.as_ref(), claims).await?;
        Ok(Observed {
            wanted: owner.replicas(),
            deleting: owner.deleting(),
            settled: self.expectations.satisfied(&owner.key()),
            min_ready_seconds: owner.min_ready_seconds(),
            template_labels: owner.template().and_then(|t| t.metadata.as_ref()?.labels.clone()),
            generation: owner.meta().generation,
            status: owner.status(),
            related: self.related(owner),
            pods,
            now: Timestamp::now(),
        })
    }

    /// Pods of all owners that have the same controller (the ReplicaSets of one Deployment), for crowding.
    fn related(&self, owner: &R) -> Vec<Arc<Pod>> {
        let Some(parent) = owner.controller_ref() else {
            return self.pods.list_controlled(owner.uid_str());
        };
        let siblings = self.owners.list_controlled(&parent.uid);
        siblings.iter().flat_map(|s| self.pods.list_controlled(s.uid_str())).collect()
    }

    /// Creates pods in batches that double while all goes well, so that a quota or a webhook that refuses is
    /// asked once and not a thousand times.
    async fn apply_creations(&self, owner: &R, count: usize) -> Result<(), String> {
        let Some(template) = owner.template() else {
            return Ok(());
        };
        let key = owner.key();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), owner.ns());
        let prefix = format!("{}-", owner.name());
        let pod = pod::from_template(template, owner.ns(), &prefix, controller_reference(owner));
        self.expectations.expect_creations(&key, count);
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            let params = PostParams::default();
            let results = futures::future::join_all((0..size).map(|_| api.create(&params, &pod))).await;
            left -= size;
            batch *= 2;
            let mut failed = None;
            for result in results {
                match result {
                    Ok(created) => {
                        let message = format!("Created pod: {}", created.name());
                        self.recorder.record(owner, EventType::Normal, "SuccessfulCreate", message);
                    }
                    Err(error) => {
                        self.expectations.creation_observed(&key);
                        failed = Some(error);
                    }
                }
            }
            if let Some(error) = failed {
                (0..left).for_each(|_| self.expectations.creation_observed(&key));
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating: {error}");
                    self.recorder.record(owner, EventType::Warning, "FailedCreate", message);
                }
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    async fn apply_deletions(&self, owner: &R, victims: &[Arc<Pod>]) -> Result<(), String> {
        let key = owner.key();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), owner.ns());
        victims.iter().for_each(|p| self.expectations.expect_deletion(&key, p.uid_str()));
        let deletions = victims.iter().map(|victim| {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: victim.metadata.uid.clone(),
                    resource_version: None,
                }),
                ..Default::default()
            };
            let api = &api;
            async move { (victim, api.delete(victim.name(), &params).await) }
        });
        let mut failed = None;
        for (victim, result) in futures::future::join_all(deletions).await {
            match result {
                Ok(_) => {
                    let message = format!("Deleted pod: {}", victim.name());
                    self.recorder.record(owner, EventType::Normal, "SuccessfulDelete", message);
                }
                Err(error) => {
                    self.expectations.deletion_observed(&key, victim.uid_str());
                    if !is_not_found(&error) {
                        let message = format!("Error deleting: {error}");
                        self.recorder.record(owner, EventType::Warning, "FailedDelete", message);
                        failed = Some(error.to_string());
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl<R: Replicated> Reconcile for Engine<R> {
    type Key = Key;
    const NAME: &'static str = R::COMPONENT;

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(owner) = self.owners.get(key) else {
            self.expectations.clear(key);
            return Ok(Next::Done);
        };
        let observed = self.observe(&owner).await?;
        let Plan { create, delete, next } = plan(&observed);
        let mut trouble = None;
        if create > 0
            && let Err(message) = self.apply_creations(&owner, create).await
        {
            trouble = Some(Trouble { reason: "FailedCreate", message });
        }
        if !delete.is_empty()
            && let Err(message) = self.apply_deletions(&owner, &delete).await
        {
            trouble = Some(Trouble { reason: "FailedDelete", message });
        }
        let status = plan::plan_status(&observed, trouble.as_ref());
        if status != observed.status {
            let api: Api<R> = Api::namespaced(self.client.clone(), owner.ns());
            let changed = owner.with_status(status);
            match api.replace_status(owner.name(), &PostParams::default(), &changed).await {
                Err(error) if is_not_found(&error) => return Ok(Next::Done),
                other => other.during(|| format!("status of {key}"))?,
            };
        }
        match trouble {
            Some(trouble) => Err(Failure::Retry { what: key.to_string(), source: trouble.message.into() }),
            None => Ok(next.map_or(Next::Done, |seconds| Next::After(Duration::from_secs(seconds)))),
        }
    }
}

/// Bound shared by the generic parts.
pub(crate) trait Owner: Cached + Resource<Scope = NamespaceResourceScope> {}
impl<K: Cached + Resource<Scope = NamespaceResourceScope>> Owner for K {}
