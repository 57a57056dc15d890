//! DaemonSet: one pod on every node that fits, replaced node by node when the template changes.
//!
//! Not done yet: `maxSurge`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::expectations::Expectations;
use penstock_informers::failure::{During, gone_is_fine, is_namespace_terminating, is_not_found};
use penstock_informers::selector::Selector;
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use crate::claim::{apply_claims, observe_candidates, plan_claims};
use crate::context::Context;
use crate::revisions::{HASH_LABEL, Revisions};

pub mod plan;

use plan::{Observed, plan, plan_pod, plan_status};

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        sets: context.informers.cache(),
        pods: context.informers.cache(),
        nodes: context.informers.cache(),
        revisions: Revisions { client: context.client(), cache: context.informers.cache() },
        expectations: Expectations::default(),
        queue: Arc::new(WorkQueue::new()),
        recorder: context.recorder("daemonset-controller"),
    });
    tokio::join!(
        controller.sets.wait_synced(),
        controller.pods.wait_synced(),
        controller.nodes.wait_synced(),
        controller.revisions.cache.wait_synced()
    );
    let queue = controller.queue.clone();
    controller.sets.subscribe(move |delta| queue.add(delta.object().key()));
    let handler = controller.clone();
    controller.pods.subscribe(move |delta| handler.pod_changed(delta));
    let handler = controller.clone();
    controller.nodes.subscribe(move |delta| {
        if let Delta::Updated { old, new } = delta
            && plan::same_for_daemons(old, new)
        {
            return;
        }
        handler.sets.list().iter().for_each(|s| handler.queue.add(s.key()));
    });
    run_workers(controller.clone(), controller.queue.clone(), 2, context.shutdown).await;
}

struct Controller {
    client: Client,
    sets: Arc<Cache<DaemonSet>>,
    pods: Arc<Cache<Pod>>,
    nodes: Arc<Cache<Node>>,
    revisions: Revisions,
    expectations: Expectations,
    queue: Arc<WorkQueue<Key>>,
    recorder: Recorder,
}

impl Controller {
    fn pod_changed(&self, delta: &Delta<'_, Pod>) {
        let pod = delta.object();
        let Some(owner) = pod.controller_ref() else {
            for set in self.sets.list_namespace(pod.ns()) {
                let selector = Selector::from_label_selector(set.spec.as_ref().map(|s| &s.selector));
                if selector.matches(pod.metadata.labels.as_ref()) {
                    self.queue.add(set.key());
                }
            }
            return;
        };
        if owner.kind != "DaemonSet" {
            return;
        }
        let key = Key::new(pod.ns(), owner.name.clone());
        match delta {
            Delta::Added(_) => self.expectations.creation_observed(&key),
            Delta::Deleted(_) => self.expectations.deletion_observed(&key, pod.uid_str()),
            Delta::Updated { new, .. } if new.deleting() => {
                self.expectations.deletion_observed(&key, pod.uid_str());
            }
            Delta::Updated { .. } => {}
        }
        self.queue.add(key);
    }

    async fn apply_creations(&self, set: &DaemonSet, nodes: &[String]) -> Result<(), Failure> {
        let key = set.key();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), set.ns());
        self.expectations.expect_creations(&key, nodes.len());
        let mut failed = None;
        for node in nodes {
            let Some(pod) = plan_pod(set, node) else { continue };
            match api.create(&PostParams::default(), &pod).await {
                Ok(created) => {
                    let message = format!("Created pod: {}", created.name());
                    self.recorder.record(set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) => {
                    self.expectations.creation_observed(&key);
                    if !is_namespace_terminating(&error) {
                        let message = format!("Error creating: {error}");
                        self.recorder.record(set, EventType::Warning, "FailedCreate", message);
                        failed = Some(error);
                    }
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(Failure::api(format!("creating pods of {key}"), error)))
    }

    async fn apply_deletions(&self, set: &DaemonSet, victims: &[Arc<Pod>]) -> Result<(), Failure> {
        let key = set.key();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), set.ns());
        victims.iter().for_each(|v| self.expectations.expect_deletion(&key, v.uid_str()));
        for victim in victims {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: victim.metadata.uid.clone(),
                    resource_version: None,
                }),
                ..Default::default()
            };
            match api.delete(victim.name(), &params).await {
                Ok(_) => {
                    let message = format!("Deleted pod: {}", victim.name());
                    self.recorder.record(set, EventType::Normal, "SuccessfulDelete", message);
                }
                Err(error) => {
                    self.expectations.deletion_observed(&key, victim.uid_str());
                    if !is_not_found(&error) {
                        return Err(Failure::api(format!("deleting {}", victim.key()), error));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Controller {
    /// The template's revision is the newest, and history no longer than wanted.
    async fn ensure_history(&self, set: &DaemonSet, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        let Some(spec) = &set.spec else { return Ok(()) };
        let newest = self.revisions.ensure(set, &spec.template).await?;
        let hashes = pods.iter().filter_map(|p| p.label(HASH_LABEL));
        let mut live: BTreeSet<String> = hashes.map(|hash| format!("{}-{hash}", set.name())).collect();
        live.insert(newest.name().to_owned());
        self.revisions.trim(set, &live, spec.revision_history_limit).await
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "daemon-set";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.clear(key);
            return Ok(Next::Done);
        };
        let selector = Selector::from_label_selector(set.spec.as_ref().map(|s| &s.selector));
        let candidates = observe_candidates(&self.pods, set.uid_str(), set.ns());
        let claims = plan_claims(set.uid_str(), set.deleting(), &selector, candidates, |_| true);
        let pods = apply_claims(&self.client, set.as_ref(), claims).await?;
        if !set.deleting() {
            self.ensure_history(&set, &pods).await?;
        }
        let settled = self.expectations.satisfied(key);
        let observed = Observed { set: set.clone(), nodes: self.nodes.list(), pods, now: Timestamp::now() };
        let status = plan_status(&observed);
        if settled && !set.deleting() {
            let plan = plan(&observed);
            self.apply_deletions(&set, &plan.delete).await?;
            self.apply_creations(&set, &plan.create).await?;
        }
        if set.status.as_ref() != Some(&status) {
            let changed = DaemonSet { status: Some(status), ..set.as_ref().clone() };
            let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), set.ns());
            let written = api.replace_status(set.name(), &PostParams::default(), &changed).await;
            gone_is_fine(written).during(|| format!("status of {key}"))?;
        }
        let waits = plan::seconds_until_available(&observed);
        Ok(waits.map_or(Next::Done, |seconds| Next::After(Duration::from_secs(seconds))))
    }
}
