//! Pods that lost their Job, by a change of labels or by a deletion that orphans them: nobody counts them any more, so they
//! lose the finalizer that made them wait for being counted. With it they, and their namespace, could never go.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use penstock_informers::cache::Cache;
use penstock_informers::selector::Selector;
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};
use tokio_util::sync::CancellationToken;

use super::plan::TRACKING;
use super::release;

/// Runs beside the controller, over its caches.
pub async fn run(client: Client, pods: Arc<Cache<Pod>>, jobs: Arc<Cache<Job>>, shutdown: CancellationToken) {
    let queue = Arc::new(WorkQueue::new());
    let adder = queue.clone();
    pods.subscribe(move |delta| {
        if is_orphan(delta.object()) {
            adder.add(delta.object().key());
        }
    });
    run_workers(Arc::new(Orphans { client, pods, jobs }), queue, 1, shutdown).await;
}

struct Orphans {
    client: Client,
    pods: Arc<Cache<Pod>>,
    jobs: Arc<Cache<Job>>,
}

fn is_orphan(pod: &Pod) -> bool {
    pod.has_finalizer(TRACKING) && pod.controller_ref().is_none()
}

/// Whether the Job may adopt the pod: then it is the Job's to count.
fn may_adopt(job: &Job, pod: &Pod) -> bool {
    let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref());
    !job.deleting()
        && !pod.deleting()
        && Selector::from_label_selector(selector).matches(pod.metadata.labels.as_ref())
}

impl Reconcile for Orphans {
    type Key = Key;
    const NAME: &'static str = "job-orphans";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(pod) = self.pods.get(key).filter(|pod| is_orphan(pod)) else { return Ok(Next::Done) };
        if !self.jobs.list_namespace(&key.namespace).iter().any(|job| may_adopt(job, &pod)) {
            release(&self.client, &pod).await?;
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_left_to_a_job_that_may_adopt_it() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"job": "a"},
            "finalizers": [TRACKING]}}))
        .unwrap();
        let job = |label: &str, metadata: serde_json::Value| -> Job {
            serde_json::from_value(json!({"metadata": metadata,
                "spec": {"template": {}, "selector": {"matchLabels": {"job": label}}}}))
            .unwrap()
        };
        assert!(is_orphan(&pod));
        assert!(may_adopt(&job("a", json!({})), &pod));
        assert!(!may_adopt(&job("b", json!({})), &pod));
        assert!(!may_adopt(&job("a", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})), &pod));
        let mut owned = pod.clone();
        owned.metadata.owner_references =
            serde_json::from_value(json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": "u",
                "controller": true}]))
            .unwrap();
        assert!(!is_orphan(&owned));
    }
}
