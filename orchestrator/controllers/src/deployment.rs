//! Deployment: rolls pods from one template to the next through ReplicaSets, keeps their history, and reports
//! progress.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::failure::{During, gone_is_fine, is_already_exists, is_not_found};
use penstock_informers::selector::Selector;
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use crate::claim::{apply_claims, observe_candidates, plan_claims};
use crate::context::Context;
use crate::pod;

mod limits;
mod plan;
mod revision;
mod rolling;
mod scaling;
mod status;

use plan::{Change, Observed, Update, plan};

const WORKERS: usize = 5;

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        deployments: context.informers.cache(),
        sets: context.informers.cache(),
        pods: context.informers.cache(),
        queue: Arc::new(WorkQueue::new()),
        recorder: context.recorder("deployment-controller"),
    });
    controller.deployments.wait_synced().await;
    controller.sets.wait_synced().await;
    controller.pods.wait_synced().await;
    let queue = controller.queue.clone();
    controller.deployments.subscribe(move |delta| queue.add(delta.object().key()));
    let handler = controller.clone();
    controller.sets.subscribe(move |delta| handler.set_changed(delta));
    let handler = controller.clone();
    controller.pods.subscribe(move |delta| {
        // Recreate waits for the last old pod to be gone.
        if let Delta::Deleted(pod) = delta {
            handler.pod_deleted(pod);
        }
    });
    run_workers(controller.clone(), controller.queue.clone(), WORKERS, context.shutdown).await;
}

struct Controller {
    client: Client,
    deployments: Arc<Cache<Deployment>>,
    sets: Arc<Cache<ReplicaSet>>,
    pods: Arc<Cache<Pod>>,
    queue: Arc<WorkQueue<Key>>,
    recorder: Recorder,
}

impl Controller {
    fn set_changed(&self, delta: &Delta<'_, ReplicaSet>) {
        if let Delta::Updated { old, .. } = delta {
            self.queue_owner(old);
        }
        let set = delta.object();
        if set.controller_ref().is_some() {
            return self.queue_owner(set);
        }
        for deployment in self.deployments.list_namespace(set.ns()) {
            let selector = Selector::from_label_selector(deployment.spec.as_ref().map(|s| &s.selector));
            if selector.matches(set.metadata.labels.as_ref()) {
                self.queue.add(deployment.key());
            }
        }
    }

    fn queue_owner(&self, set: &ReplicaSet) {
        if let Some(owner) = set.controller_ref().filter(|o| o.kind == "Deployment") {
            self.queue.add(Key::new(set.ns(), owner.name.clone()));
        }
    }

    fn pod_deleted(&self, pod: &Pod) {
        let Some(owner) = pod.controller_ref().filter(|o| o.kind == "ReplicaSet") else {
            return;
        };
        if let Some(set) = self.sets.get(&Key::new(pod.ns(), owner.name.clone())) {
            self.queue_owner(&set);
        }
    }

    async fn observe(&self, deployment: Arc<Deployment>, spec: &DeploymentSpec) -> Result<Observed, Failure> {
        let selector = Selector::from_label_selector(Some(&spec.selector));
        let candidates = observe_candidates(&self.sets, deployment.uid_str(), deployment.ns());
        let claims =
            plan_claims(deployment.uid_str(), deployment.deleting(), &selector, candidates, |_| true);
        let sets = apply_claims(&self.client, deployment.as_ref(), claims).await?;
        let new = revision::find_new(spec, &sets);
        let old_pods_running = sets
            .iter()
            .filter(|s| new.as_ref().is_none_or(|n| n.uid_str() != s.uid_str()))
            .any(|s| self.pods.list_controlled(s.uid_str()).iter().any(|p| !pod::is_finished(p)));
        Ok(Observed { deployment, sets, old_pods_running, now: Timestamp::now() })
    }

    async fn apply(&self, deployment: &Deployment, change: &Change) -> Result<(), Failure> {
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), deployment.ns());
        match change {
            Change::Create(set) => self.apply_creation(deployment, &sets, set).await,
            Change::Update(update) => self.apply_update(deployment, &sets, update).await,
            Change::Delete { name, uid } => {
                let params = DeleteParams {
                    preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                    ..DeleteParams::background()
                };
                let deleted = gone_is_fine(sets.delete(name, &params).await);
                deleted.map(drop).during(|| format!("deleting ReplicaSet {name}"))
            }
            Change::Revision(revision) => {
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), deployment.ns());
                let patch = serde_json::json!({"metadata": {
                    "uid": deployment.uid_str(), "annotations": {revision::REVISION: revision},
                }});
                let patched =
                    api.patch(deployment.name(), &PatchParams::default(), &Patch::Merge(&patch)).await;
                gone_is_fine(patched).map(drop).during(|| format!("revision of {}", deployment.key()))
            }
        }
    }

    async fn apply_creation(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), Failure> {
        let replicas = revision::replicas(set);
        match sets.create(&PostParams::default(), set).await {
            Ok(_) => {
                if replicas > 0 {
                    self.record_scale(deployment, set.name(), 0, replicas);
                }
                Ok(())
            }
            Err(error) if is_already_exists(&error) => self.settle_collision(deployment, sets, set).await,
            Err(error) => {
                let message = format!("Failed to create new replica set {:?}: {error}", set.name());
                self.recorder.record(deployment, EventType::Warning, "ReplicaSetCreateError", message);
                Err(Failure::api(format!("creating ReplicaSet {}", set.name()), error))
            }
        }
    }

    /// The name is taken: by our own set the cache does not show yet, or by another template's with the same hash.
    async fn settle_collision(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), Failure> {
        let existing = sets.get(set.name()).await.during(|| format!("reading ReplicaSet {}", set.name()))?;
        let templates = (
            existing.spec.as_ref().and_then(|s| s.template.as_ref()),
            set.spec.as_ref().and_then(|s| s.template.as_ref()),
        );
        let same = matches!(templates, (Some(a), Some(b)) if revision::same_template(a, b));
        if existing.controlled_by(deployment.uid_str()) && same {
            return Ok(());
        }
        let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0) + 1;
        let patch = serde_json::json!({
            "metadata": {"resourceVersion": deployment.metadata.resource_version},
            "status": {"collisionCount": collisions},
        });
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), deployment.ns());
        api.patch_status(deployment.name(), &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .during(|| format!("collision count of {}", deployment.key()))?;
        Err(Failure::again(format!("name {} is taken by another template", set.name())))
    }

    async fn apply_update(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        update: &Update,
    ) -> Result<(), Failure> {
        let mut spec = serde_json::Map::new();
        if let Some(replicas) = update.replicas {
            spec.insert("replicas".into(), replicas.into());
        }
        if let Some(seconds) = update.min_ready_seconds {
            spec.insert("minReadySeconds".into(), seconds.into());
        }
        let patch = serde_json::json!({
            "metadata": {"resourceVersion": update.resource_version, "annotations": update.annotations},
            "spec": spec,
        });
        sets.patch(&update.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .during(|| format!("updating ReplicaSet {}", update.name))?;
        if let Some(replicas) = update.replicas.filter(|r| *r != update.was) {
            self.record_scale(deployment, &update.name, update.was, replicas);
        }
        Ok(())
    }

    fn record_scale(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder.record(deployment, EventType::Normal, "ScalingReplicaSet", message);
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "deployment";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(deployment) = self.deployments.get(key) else {
            return Ok(Next::Done);
        };
        let Some(spec) = &deployment.spec else {
            return Ok(Next::Done);
        };
        if Selector::from_label_selector(Some(&spec.selector)).is_everything() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.record(deployment.as_ref(), EventType::Warning, "SelectingAll", message);
            return Ok(Next::Done);
        }
        let observed = self.observe(deployment.clone(), spec).await?;
        let mut created = None;
        for change in plan(&observed) {
            self.apply(&deployment, &change).await?;
            if let Change::Create(set) = &change {
                created = Some(set.name().to_owned());
            }
        }
        let outlook = status::plan_status(&observed, created.as_deref());
        if deployment.status.as_ref() != Some(&outlook.status) {
            let api: Api<Deployment> = Api::namespaced(self.client.clone(), deployment.ns());
            let changed = Deployment { status: Some(outlook.status), ..deployment.as_ref().clone() };
            match api.replace_status(deployment.name(), &PostParams::default(), &changed).await {
                Err(error) if is_not_found(&error) => return Ok(Next::Done),
                // Our own revision annotation may have moved the version: the next pass is on its way.
                other => other.during(|| format!("status of {key}"))?,
            };
        }
        let seconds = outlook.check_after_seconds.and_then(|s| u64::try_from(s).ok());
        Ok(seconds.map_or(Next::Done, |s| Next::After(Duration::from_secs(s))))
    }
}

#[cfg(test)]
mod tests;
