//! StatefulSet: pods with names, storage and an order. One pass makes the claims and pods that may be made now,
//! and deletes those that may go now; what else there is to do follows when these are ready or gone.
//!
//! Not done yet: `persistentVolumeClaimRetentionPolicy` (claims are always retained).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::failure::{
    During, gone_is_fine, is_already_exists, is_namespace_terminating, is_not_found,
};
use penstock_informers::selector::Selector;
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use crate::claim::{apply_claims, observe_candidates, plan_claims};
use crate::context::Context;
use crate::pod;
use crate::revisions::{HASH_LABEL, Revisions, template_of};

pub mod identity;
pub mod plan;

use identity::{ordinal_of, plan_pod, plan_volume_claims};
use plan::{Observed, plan, plan_status};

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        sets: context.informers.cache(),
        pods: context.informers.cache(),
        volume_claims: context.informers.cache(),
        revisions: Revisions { client: context.client(), cache: context.informers.cache() },
        queue: Arc::new(WorkQueue::new()),
        recorder: context.recorder("statefulset-controller"),
    });
    tokio::join!(
        controller.sets.wait_synced(),
        controller.pods.wait_synced(),
        controller.volume_claims.wait_synced(),
        controller.revisions.cache.wait_synced()
    );
    let queue = controller.queue.clone();
    controller.sets.subscribe(move |delta| queue.add(delta.object().key()));
    let handler = controller.clone();
    controller.pods.subscribe(move |delta| handler.pod_changed(delta));
    run_workers(controller.clone(), controller.queue.clone(), 3, context.shutdown).await;
}

struct Controller {
    client: Client,
    sets: Arc<Cache<StatefulSet>>,
    pods: Arc<Cache<Pod>>,
    volume_claims: Arc<Cache<PersistentVolumeClaim>>,
    revisions: Revisions,
    queue: Arc<WorkQueue<Key>>,
    recorder: Recorder,
}

impl Controller {
    fn pod_changed(&self, delta: &Delta<'_, Pod>) {
        let pod = delta.object();
        match pod.controller_ref() {
            Some(owner) if owner.kind == "StatefulSet" => {
                self.queue.add(Key::new(pod.ns(), owner.name.clone()))
            }
            Some(_) => {}
            None => {
                for set in self.sets.list_namespace(pod.ns()) {
                    if ordinal_of(&set, pod.name()).is_some() {
                        self.queue.add(set.key());
                    }
                }
            }
        }
    }

    async fn observe(&self, set: &Arc<StatefulSet>) -> Result<Observed, Failure> {
        let spec = set
            .spec
            .as_ref()
            .ok_or_else(|| Failure::Terminal { reason: format!("{} has no spec", set.key()) })?;
        let selector = Selector::from_label_selector(Some(&spec.selector));
        let candidates = observe_candidates(&self.pods, set.uid_str(), set.ns());
        let is_member = |p: &Pod| ordinal_of(set, p.name()).is_some();
        let claims = plan_claims(set.uid_str(), set.deleting(), &selector, candidates, is_member);
        let pods = apply_claims(&self.client, set.as_ref(), claims).await?;
        let update = self.revisions.ensure(set.as_ref(), &spec.template).await?;
        let status = set.status.clone().unwrap_or_default();
        // The first template is current and update at once; later the status remembers what was complete.
        let known = self.revisions.of(set.as_ref());
        let current = status
            .current_revision
            .and_then(|name| known.iter().find(|r| r.name() == name).cloned())
            .unwrap_or_else(|| update.clone());
        Ok(Observed {
            set: set.clone(),
            pods: pods.into_iter().filter(|p| is_member(p)).collect(),
            current: current.name().to_owned(),
            update: update.name().to_owned(),
            current_template: template_of(&current).unwrap_or_else(|| spec.template.clone()),
            now: Timestamp::now(),
        })
    }

    async fn create_pod(
        &self,
        set: &StatefulSet,
        ordinal: i32,
        revision: &str,
        template: &PodTemplateSpec,
    ) -> Result<(), Failure> {
        let volume_claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), set.ns());
        for wanted in plan_volume_claims(set, ordinal) {
            if self.volume_claims.get(&wanted.key()).is_some() {
                continue;
            }
            match volume_claims.create(&PostParams::default(), &wanted).await {
                Err(error) if !is_already_exists(&error) => {
                    return Err(self.refused(set, "Claim", wanted.name(), error));
                }
                _ => {}
            }
        }
        let wanted = plan_pod(set, ordinal, revision, template);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), set.ns());
        match pods.create(&PostParams::default(), &wanted).await {
            Ok(created) => {
                let message =
                    format!("create Pod {} in StatefulSet {} successful", created.name(), set.name());
                self.recorder.record(set, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            // A stranger has the name, or the cache lags: the name's next change brings us back.
            Err(error) if is_already_exists(&error) => {
                Err(Failure::again(format!("{}/{} exists already", set.ns(), wanted.name())))
            }
            Err(error) => Err(self.refused(set, "Pod", wanted.name(), error)),
        }
    }

    fn refused(&self, set: &StatefulSet, what: &str, name: &str, error: kube::Error) -> Failure {
        if !is_namespace_terminating(&error) {
            let message = format!("create {what} {name} in StatefulSet {} failed error: {error}", set.name());
            self.recorder.record(set, EventType::Warning, "FailedCreate", message);
        }
        Failure::api(format!("creating {name}"), error)
    }

    async fn delete_pod(&self, set: &StatefulSet, victim: &Pod) -> Result<(), Failure> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: victim.metadata.uid.clone(), resource_version: None }),
            ..Default::default()
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), set.ns());
        match pods.delete(victim.name(), &params).await {
            Ok(_) => {
                let message =
                    format!("delete Pod {} in StatefulSet {} successful", victim.name(), set.name());
                self.recorder.record(set, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(Failure::api(format!("deleting {}", victim.key()), error)),
        }
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "stateful-set";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(set) = self.sets.get(key) else {
            return Ok(Next::Done);
        };
        let observed = self.observe(&set).await?;
        let mut outcome = Ok(());
        if !set.deleting() {
            let plan = plan(&observed);
            for (ordinal, updated) in plan.create {
                let (revision, template) = match &set.spec {
                    Some(spec) if updated => (&observed.update, &spec.template),
                    _ => (&observed.current, &observed.current_template),
                };
                outcome = self.create_pod(&set, ordinal, revision, template).await;
                if outcome.is_err() {
                    break;
                }
            }
            for victim in &plan.delete {
                self.delete_pod(&set, victim).await?;
            }
        }
        let status = plan_status(&observed);
        if set.status.as_ref() != Some(&status) {
            let changed = StatefulSet { status: Some(status.clone()), ..set.as_ref().clone() };
            let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), set.ns());
            let written = api.replace_status(set.name(), &PostParams::default(), &changed).await;
            gone_is_fine(written).during(|| format!("status of {key}"))?;
        }
        outcome?;
        let mut live: BTreeSet<String> =
            [status.current_revision, status.update_revision].into_iter().flatten().collect();
        live.extend(observed.pods.iter().filter_map(|p| p.label(HASH_LABEL).map(str::to_owned)));
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit);
        self.revisions.trim(set.as_ref(), &live, limit).await?;
        let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        let waits =
            observed.pods.iter().filter_map(|p| pod::seconds_until_available(p, min_ready, observed.now));
        let next = waits.filter(|s| *s > 0).min().and_then(|s| u64::try_from(s).ok());
        Ok(next.map_or(Next::Done, |seconds| Next::After(Duration::from_secs(seconds))))
    }
}
