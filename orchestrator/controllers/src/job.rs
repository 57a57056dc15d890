//! Job: pods that run to their end, so many at once, until enough have succeeded or too many have failed.
//!
//! Finished pods are kept by a finalizer until they are counted; see [`plan`].

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::expectations::Expectations;
use penstock_informers::failure::{During, gone_is_fine, is_namespace_terminating, is_not_found};
use penstock_informers::identity::controller_reference;
use penstock_informers::selector::Selector;
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use crate::claim::{apply_claims, observe_candidates, plan_claims};
use crate::context::Context;
use crate::pod;

mod indexes;
mod orphans;
pub mod plan;
mod policy;

use plan::{INDEX, INDEX_FAILURES, NewPod, Observed, TRACKING, is_over, is_true, plan};

/// Jobs with another value here are not ours.
const OURS: &str = "kubernetes.io/job-controller";

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        jobs: context.informers.cache(),
        pods: context.informers.cache(),
        expectations: Expectations::default(),
        queue: Arc::new(WorkQueue::new()),
        recorder: context.recorder("job-controller"),
    });
    tokio::join!(controller.jobs.wait_synced(), controller.pods.wait_synced());
    let queue = controller.queue.clone();
    controller.jobs.subscribe(move |delta| queue.add(delta.object().key()));
    let handler = controller.clone();
    controller.pods.subscribe(move |delta| handler.pod_changed(delta));
    tokio::join!(
        orphans::run(
            context.client(),
            controller.pods.clone(),
            controller.jobs.clone(),
            context.shutdown.clone()
        ),
        run_workers(controller.clone(), controller.queue.clone(), 5, context.shutdown),
    );
}

struct Controller {
    client: Client,
    jobs: Arc<Cache<Job>>,
    pods: Arc<Cache<Pod>>,
    expectations: Expectations,
    queue: Arc<WorkQueue<Key>>,
    recorder: Recorder,
}

/// The pod a Job makes.
fn plan_pod(job: &Job, new: &NewPod) -> Option<Pod> {
    let template = &job.spec.as_ref()?.template;
    let prefix = new.index.map_or_else(|| format!("{}-", job.name()), |i| format!("{}-{i}-", job.name()));
    let mut pod = pod::from_template(template, job.ns(), &prefix, controller_reference(job));
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
    let Some(index) = new.index else { return Some(pod) };
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if job.spec.as_ref()?.backoff_limit_per_index.is_some() {
        annotations.insert(INDEX_FAILURES.to_owned(), new.index_failures.to_string());
    }
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{}-{index}", job.name()));
    let containers = spec.containers.iter_mut();
    for container in containers.chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|e| e.name == "JOB_COMPLETION_INDEX") {
            continue;
        }
        env.push(EnvVar {
            name: "JOB_COMPLETION_INDEX".into(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: format!("metadata.labels['{INDEX}']"),
                }),
                ..Default::default()
            }),
        });
    }
    Some(pod)
}

/// The pod need not wait for being counted any more.
async fn release(client: &Client, pod: &Pod) -> Result<(), Failure> {
    if !pod.has_finalizer(TRACKING) {
        return Ok(());
    }
    let patch = serde_json::json!({"metadata": {
        "uid": pod.uid_str(), "$deleteFromPrimitiveList/finalizers": [TRACKING],
    }});
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.ns());
    let patched = api.patch(pod.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
    gone_is_fine(patched).map(drop).during(|| format!("releasing {}", pod.key()))
}

impl Controller {
    fn pod_changed(&self, delta: &Delta<'_, Pod>) {
        let pod = delta.object();
        let Some(owner) = pod.controller_ref() else {
            for job in self.jobs.list_namespace(pod.ns()) {
                let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref());
                if Selector::from_label_selector(selector).matches(pod.metadata.labels.as_ref()) {
                    self.queue.add(job.key());
                }
            }
            return;
        };
        if owner.kind != "Job" {
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

    /// Lets go of pods whose Job is no more or over: nobody will count them.
    async fn release_strays(&self, key: &Key, live_uid: Option<&str>) -> Result<(), Failure> {
        let pods = self.pods.list_namespace(&key.namespace);
        for pod in pods.iter().filter(|p| p.has_finalizer(TRACKING)) {
            let stray = pod
                .controller_ref()
                .is_some_and(|o| o.kind == "Job" && o.name == key.name && Some(o.uid.as_str()) != live_uid);
            if stray {
                self.release(pod).await?;
            }
        }
        Ok(())
    }

    async fn release(&self, pod: &Pod) -> Result<(), Failure> {
        release(&self.client, pod).await
    }

    async fn create(&self, job: &Job, wanted: &[NewPod]) -> Result<(), Failure> {
        let key = job.key();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), job.ns());
        self.expectations.expect_creations(&key, wanted.len());
        for (at, new) in wanted.iter().enumerate() {
            let Some(pod) = plan_pod(job, new) else { continue };
            match api.create(&PostParams::default(), &pod).await {
                Ok(created) => {
                    let message = format!("Created pod: {}", created.name());
                    self.recorder.record(job, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) => {
                    // What refused this one would refuse the rest.
                    (at..wanted.len()).for_each(|_| self.expectations.creation_observed(&key));
                    if !is_namespace_terminating(&error) {
                        let message = format!("Error creating: {error}");
                        self.recorder.record(job, EventType::Warning, "FailedCreate", message);
                    }
                    return Err(Failure::api(format!("creating pods of {key}"), error));
                }
            }
        }
        Ok(())
    }

    async fn delete(&self, job: &Job, victim: &Pod) -> Result<(), Failure> {
        let key = job.key();
        self.expectations.expect_deletion(&key, victim.uid_str());
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: victim.metadata.uid.clone(), resource_version: None }),
            ..Default::default()
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), job.ns());
        match api.delete(victim.name(), &params).await {
            Ok(_) => {
                let message = format!("Deleted pod: {}", victim.name());
                self.recorder.record(job, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.deletion_observed(&key, victim.uid_str());
                if is_not_found(&error) {
                    return Ok(());
                }
                Err(Failure::api(format!("deleting {}", victim.key()), error))
            }
        }
    }

    /// Writes the status and tells of what is new in it.
    async fn write(&self, job: &Job, status: JobStatus) -> Result<(), Failure> {
        let changed = Job { status: Some(status), ..job.clone() };
        let api: Api<Job> = Api::namespaced(self.client.clone(), job.ns());
        let written = api.replace_status(job.name(), &PostParams::default(), &changed).await;
        if gone_is_fine(written).during(|| format!("status of {}", job.key()))?.is_none() {
            return Ok(());
        }
        for condition in changed.status.iter().flat_map(|s| s.conditions.iter().flatten()) {
            if condition.status != "True" || is_true(job, &condition.type_) {
                continue;
            }
            let (kind, reason, message) = match condition.type_.as_str() {
                "Complete" => (EventType::Normal, "Completed", "Job completed"),
                "Failed" => (
                    EventType::Warning,
                    condition.reason.as_deref().unwrap_or("Failed"),
                    condition.message.as_deref().unwrap_or_default(),
                ),
                "Suspended" => (EventType::Normal, "Suspended", "Job suspended"),
                _ => continue,
            };
            self.recorder.record(job, kind, reason, message);
        }
        Ok(())
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "job";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(job) = self.jobs.get(key) else {
            self.expectations.clear(key);
            self.release_strays(key, None).await?;
            return Ok(Next::Done);
        };
        let managed_by = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
        if managed_by.is_some_and(|by| by != OURS) {
            return Ok(Next::Done);
        }
        self.release_strays(key, Some(job.uid_str())).await?;
        if is_over(&job) || job.deleting() {
            for pod in self.pods.list_controlled(job.uid_str()) {
                if pod::is_finished(&pod) || pod.deleting() {
                    self.release(&pod).await?;
                }
            }
            return Ok(Next::Done);
        }
        let selector = Selector::from_label_selector(job.spec.as_ref().and_then(|s| s.selector.as_ref()));
        let candidates = observe_candidates(&self.pods, job.uid_str(), job.ns());
        let claims = plan_claims(job.uid_str(), job.deleting(), &selector, candidates, pod::is_active);
        let pods = apply_claims(&self.client, job.as_ref(), claims).await?;
        let plan = plan(&Observed {
            job: job.clone(),
            pods,
            settled: self.expectations.satisfied(key),
            now: Timestamp::now(),
        });
        for surplus in &plan.surplus {
            self.release(surplus).await?;
            self.delete(&job, surplus).await?;
        }
        for victim in &plan.end {
            self.delete(&job, victim).await?;
        }
        let created = self.create(&job, &plan.create).await;
        if job.status.as_ref() != Some(&plan.status) {
            self.write(&job, plan.status).await?;
        }
        for pod in &plan.release {
            self.release(pod).await?;
        }
        created?;
        Ok(plan.next.map_or(Next::Done, |seconds| Next::After(Duration::from_secs(seconds))))
    }
}
