//! Jobs planned from what is observed: counts, indexes, failures and successes.

use super::*;
use crate::pod::tests::{test_pod, time};
use serde_json::{Value, json};

fn job(spec: Value, status: Value) -> Arc<Job> {
    let mut full = json!({"template": {}, "parallelism": 2, "completions": 3});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let job =
        json!({"metadata": {"name": "j", "namespace": "ns", "uid": "j"}, "spec": full, "status": status});
    Arc::new(serde_json::from_value(job).unwrap())
}

fn tracked(name: &str, phase: &str, index: Option<i32>) -> Pod {
    let mut pod = test_pod(name, Some("n"), phase, None);
    pod.metadata.finalizers = Some(vec![TRACKING.into()]);
    pod.metadata.annotations = index.map(|i| [(INDEX.to_owned(), i.to_string())].into());
    pod
}

fn observed(job: Arc<Job>, pods: Vec<Pod>) -> Observed {
    Observed {
        job,
        pods: pods.into_iter().map(Arc::new).collect(),
        settled: true,
        now: Timestamp::from_second(10_000).unwrap(),
    }
}

fn indexes(plan: &Plan) -> Vec<i32> {
    plan.create.iter().filter_map(|p| p.index).collect()
}

fn has(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

#[test]
fn as_many_pods_run_as_parallelism_and_completions_allow() {
    assert_eq!(plan(&observed(job(json!({}), json!({})), vec![])).create.len(), 2);
    let late = job(json!({}), json!({"succeeded": 2}));
    assert_eq!(plan(&observed(late, vec![])).create.len(), 1);
    let running = vec![tracked("a", "Running", None), tracked("b", "Running", None)];
    let fewer = plan(&observed(job(json!({"parallelism": 1}), json!({})), running));
    assert_eq!((fewer.create.len(), fewer.surplus.len()), (0, 1));
}

#[test]
fn a_finished_pod_is_written_down_released_and_then_counted_once() {
    let done = tracked("a", "Succeeded", None);
    let first = plan(&observed(job(json!({}), json!({})), vec![done.clone()]));
    let uncounted = first.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!((uncounted.succeeded, first.status.succeeded), (Some(vec!["uid-a".to_owned()]), None));
    assert_eq!(first.release.len(), 1);

    let status = serde_json::to_value(&first.status).unwrap();
    let same = plan(&observed(job(json!({}), status.clone()), vec![done.clone()]));
    assert_eq!(same.status.succeeded, None, "its finalizer is still there");
    let mut released = done;
    released.metadata.finalizers = None;
    let counted = plan(&observed(job(json!({}), status), vec![released.clone()]));
    assert_eq!(counted.status.succeeded, Some(1));
    let status = serde_json::to_value(&counted.status).unwrap();
    let again = plan(&observed(job(json!({}), status), vec![released]));
    assert_eq!(again.status.succeeded, Some(1));
}

#[test]
fn a_job_is_complete_when_all_are_counted_and_none_is_left() {
    let almost = json!({"succeeded": 2, "startTime": "1970-01-01T00:00:01Z"});
    let pods = vec![tracked("a", "Succeeded", None), tracked("b", "Running", None)];
    let target = plan(&observed(job(json!({}), almost), pods));
    assert!(has(&target.status, "SuccessCriteriaMet") && !has(&target.status, "Complete"));
    assert_eq!(target.end.len(), 1, "what still runs is ended");
    let mut status = serde_json::to_value(&target.status).unwrap();
    status["uncountedTerminatedPods"] = json!({});
    status["succeeded"] = 3.into();
    let complete = plan(&observed(job(json!({}), status), vec![]));
    assert!(has(&complete.status, "Complete") && complete.status.completion_time.is_some());
}

#[test]
fn too_many_failures_end_the_job_and_its_pods() {
    let spec = json!({"backoffLimit": 0});
    let pods = vec![tracked("a", "Failed", None), tracked("b", "Running", None)];
    let over = plan(&observed(job(spec.clone(), json!({})), pods));
    assert!(has(&over.status, "FailureTarget") && !has(&over.status, "Failed"));
    assert_eq!((over.end.len(), over.create.len()), (1, 0));
    let mut status = serde_json::to_value(&over.status).unwrap();
    status["uncountedTerminatedPods"] = json!({});
    let failed = plan(&observed(job(spec, status), vec![]));
    assert!(has(&failed.status, "Failed"));
    let reason = failed.status.conditions.unwrap().pop().unwrap().reason;
    assert_eq!(reason.as_deref(), Some("BackoffLimitExceeded"));
}

#[test]
fn a_failed_pod_is_replaced_after_its_backoff() {
    let mut failed = tracked("a", "Failed", None);
    failed.metadata.deletion_timestamp = Some(time(9_995));
    let waits = plan(&observed(job(json!({}), json!({})), vec![failed.clone()]));
    assert_eq!((waits.create.len(), waits.next), (0, Some(5)));
    failed.metadata.deletion_timestamp = Some(time(9_000));
    assert_eq!(plan(&observed(job(json!({}), json!({})), vec![failed])).create.len(), 2);
}

#[test]
fn every_index_succeeds_once() {
    let spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4});
    let pods = vec![
        tracked("a", "Running", Some(0)),
        tracked("b", "Running", Some(0)),
        tracked("c", "Succeeded", Some(2)),
    ];
    let plan = plan(&observed(job(spec, json!({})), pods));
    assert_eq!(indexes(&plan), [1, 3]);
    assert_eq!(plan.surplus.len(), 1, "one of the two of index 0");
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("2"));
    assert_eq!(plan.status.succeeded, Some(1));
}

#[test]
fn an_index_that_failed_too_often_is_given_up_alone() {
    let spec =
        json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1, "backoffLimit": 99});
    let first = tracked("a", "Failed", Some(0));
    let again = plan(&observed(job(spec.clone(), json!({})), vec![first.clone()]));
    assert_eq!(again.create[0], NewPod { index: Some(0), index_failures: 1 });
    let mut second = first;
    second.metadata.annotations.as_mut().unwrap().insert(INDEX_FAILURES.into(), "1".into());
    let given_up = plan(&observed(job(spec, json!({})), vec![second]));
    assert_eq!((indexes(&given_up), given_up.status.failed_indexes.as_deref()), (vec![1], Some("0")));
}

#[test]
fn a_suspended_job_has_no_pods_and_no_start() {
    let spec = json!({"suspend": true});
    let status = json!({"startTime": "1970-01-01T00:00:01Z"});
    let plan = plan(&observed(job(spec, status), vec![tracked("a", "Running", None)]));
    assert_eq!((plan.surplus.len(), plan.create.len()), (1, 0));
    assert!(has(&plan.status, "Suspended") && plan.status.start_time.is_none());
}

#[test]
fn a_deadline_that_passed_fails_the_job() {
    let spec = json!({"activeDeadlineSeconds": 100});
    let status = json!({"startTime": "1970-01-01T00:00:01Z"});
    let plan = plan(&observed(job(spec, status), vec![tracked("a", "Running", None)]));
    assert!(has(&plan.status, "FailureTarget") && plan.end.len() == 1);
}
