//! Jobs run to their end, whatever that is.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use penstock_informers::Meta;
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn job(exit: Option<&str>, spec: Value) -> Value {
    let annotations = exit.map(|code| json!({"stand-in/exit": code}));
    let mut full = json!({"template": {
        "metadata": {"annotations": annotations.unwrap_or_else(|| json!({}))},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "demo:1"}]}}});
    full.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
    json!({"metadata": {"name": "work"}, "spec": full})
}

fn has(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_counts_every_success_once_and_completes() {
    let cluster = Cluster::start(&["n1"]).await;
    let spec = json!({"completions": 5, "parallelism": 2});
    cluster.create::<Job>(job(Some("0"), spec)).await;
    let done = cluster.until::<Job>("work", |j| has(j, "Complete")).await;
    let status = done.status.expect("a status");
    assert_eq!((status.succeeded, status.failed, status.active), (Some(5), None, None));
    assert!(status.completion_time.is_some() && status.start_time.is_some());
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 5).await;
    assert!(pods.iter().all(|p| p.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexed_job_has_one_pod_for_each_index() {
    let cluster = Cluster::start(&["n1"]).await;
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    cluster.create::<Job>(job(Some("0"), spec)).await;
    let done = cluster.until::<Job>("work", |j| has(j, "Complete")).await;
    let completed = done.status.and_then(|s| s.completed_indexes);
    assert_eq!(completed.as_deref(), Some("0-2"));
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 3).await;
    let mut hosts: Vec<_> = pods.iter().filter_map(|p| p.spec.as_ref()?.hostname.clone()).collect();
    hosts.sort();
    assert_eq!(hosts, ["work-0", "work-1", "work-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_too_often_ends_what_still_runs() {
    let cluster = Cluster::start(&["n1"]).await;
    let spec = json!({"completions": 2, "parallelism": 2, "backoffLimit": 0});
    cluster.create::<Job>(job(None, spec)).await;
    let pods = cluster
        .until_all::<Pod>(|pods| {
            let running = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            pods.len() == 2 && pods.iter().all(running)
        })
        .await;
    let failed = kube::api::Patch::Merge(json!({"status": {"phase": "Failed"}}));
    cluster.api::<Pod>().patch_status(pods[0].name(), &Default::default(), &failed).await.expect("a status");
    let over = cluster.until::<Job>("work", |j| has(j, "Failed")).await;
    let status = over.status.expect("a status");
    assert_eq!((status.failed, status.active), (Some(2), None), "the ended one counts as failed");
    cluster.until_all::<Pod>(|pods| pods.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_goes_when_its_time_is_over_and_takes_its_pods_along() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.create::<Job>(job(Some("0"), json!({"ttlSecondsAfterFinished": 0}))).await;
    cluster.until_gone::<Job>("work").await;
    cluster.until_all::<Pod>(<[Pod]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_deleted_job_do_not_hang() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.create::<Job>(job(None, json!({"parallelism": 2}))).await;
    cluster.until::<Job>("work", |j| j.status.as_ref().and_then(|s| s.ready) == Some(2)).await;
    let deleted = cluster.api::<Job>().delete("work", &DeleteParams::background()).await;
    deleted.expect("a deletion");
    cluster.until_all::<Pod>(<[Pod]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_lost_their_job_do_not_hang() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.create::<Job>(job(None, json!({"parallelism": 1}))).await;
    cluster.until::<Job>("work", |j| j.status.as_ref().and_then(|s| s.ready) == Some(1)).await;
    let first = cluster.until_all::<Pod>(|pods| pods.len() == 1).await.remove(0);
    let name = first.metadata.name.expect("a name");
    let labels: serde_json::Map<String, Value> =
        first.metadata.labels.unwrap_or_default().into_keys().map(|key| (key, Value::Null)).collect();
    cluster.merge::<Pod>(&name, json!({"metadata": {"labels": labels}})).await;
    let is_free = |pod: &Pod| {
        pod.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
            && pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
    };
    cluster.until::<Pod>(&name, is_free).await;

    cluster.until_all::<Pod>(|pods| pods.len() == 2).await;
    cluster.api::<Job>().delete("work", &DeleteParams::orphan()).await.expect("a deletion");
    cluster.until_gone::<Job>("work").await;
    cluster.until_all::<Pod>(|pods| pods.len() == 2 && pods.iter().all(is_free)).await;
}
