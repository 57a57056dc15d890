//! What controllers read off pods: active, ready, available, which to delete first; and how a pod is made from
//! a template. Pure.

use std::cmp::Ordering;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use penstock_informers::Meta;

/// The phase, `Pending` when the status has none yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).filter(|p| !p.is_empty()).unwrap_or("Pending")
}

/// Whether the pod has run to its end.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Counts towards a replica count: neither finished nor going.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !pod.deleting()
}

/// Going, and not finished yet.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && pod.deleting()
}

/// A condition by type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Whether the Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when the pod is ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// Ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod) && seconds_until_available(pod, min_ready_seconds, now) == Some(0)
}

/// Seconds until a ready pod is available; `None` when it is not ready.
pub fn seconds_until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<i64> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(0);
    }
    let since = ready_since(pod)?.as_second();
    Some((since + i64::from(min_ready_seconds) - now.as_second()).max(0))
}

/// The name of the node the pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// Restarts of the most restarted container.
pub fn restarts_max(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|c| c.restart_count).max().unwrap_or(0)
}

/// What a user says a pod's loss costs, by annotation; 0 by default.
fn deletion_cost(pod: &Pod) -> i32 {
    pod.annotation("controller.kubernetes.io/pod-deletion-cost").and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Orders pods by who goes first when there are too many (documented with ReplicaSet "scaling down"):
/// unassigned, then pending, then not ready, then cheap, then crowded on a node, then young.
/// `crowd` is how many related pods share each pod's node.
pub fn compare_for_deletion(a: (&Pod, usize), b: (&Pod, usize), now: Timestamp) -> Ordering {
    let (a, crowd_a) = a;
    let (b, crowd_b) = b;
    let phase_rank = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    node_name(a)
        .is_some()
        .cmp(&node_name(b).is_some())
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowd_b.cmp(&crowd_a))
        .then_with(|| age_class(ready_since(a), now).cmp(&age_class(ready_since(b), now)))
        .then_with(|| restarts_max(b).cmp(&restarts_max(a)))
        .then_with(|| {
            let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
            age_class(created(a), now).cmp(&age_class(created(b), now))
        })
        .then_with(|| a.uid_str().cmp(b.uid_str()))
}

/// Ages compare by magnitude, so that among pods of about the same age the victim is not always the youngest.
fn age_class(since: Option<Timestamp>, now: Timestamp) -> i64 {
    let Some(since) = since else { return -1 };
    let age = (now.as_second() - since.as_second()).max(0);
    i64::from(64 - age.leading_zeros())
}

/// A pod as the template says, controlled by `owner`. `prefix` becomes the generateName.
pub fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    prefix: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(prefix.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodSpec, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    pub(crate) fn time(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).unwrap())
    }

    pub(crate) fn test_pod(name: &str, node: Option<&str>, phase: &str, ready_since: Option<i64>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.namespace = Some("ns".into());
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.metadata.creation_timestamp = Some(time(1000));
        pod.spec = Some(PodSpec { node_name: node.map(str::to_owned), ..Default::default() });
        pod.status = Some(PodStatus {
            phase: Some(phase.into()),
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: if ready_since.is_some() { "True" } else { "False" }.into(),
                last_transition_time: ready_since.map(time),
                ..Default::default()
            }]),
            ..Default::default()
        });
        pod
    }

    #[test]
    fn availability_counts_from_the_ready_transition() {
        let pod = test_pod("a", Some("n"), "Running", Some(100));
        let at = |s| Timestamp::from_second(s).unwrap();
        assert!(is_available(&pod, 0, at(100)));
        assert!(!is_available(&pod, 10, at(105)));
        assert_eq!(seconds_until_available(&pod, 10, at(105)), Some(5));
        assert!(is_available(&pod, 10, at(110)));
        assert!(!is_available(&test_pod("b", None, "Running", None), 0, at(105)));
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let now = Timestamp::from_second(5000).unwrap();
        let mut cheap = test_pod("cheap", Some("n1"), "Running", Some(2000));
        cheap.metadata.annotations =
            Some([("controller.kubernetes.io/pod-deletion-cost".to_owned(), "-5".to_owned())].into());
        let mut pods = [
            (test_pod("old", Some("n1"), "Running", Some(1000)), 1),
            (test_pod("crowded", Some("n2"), "Running", Some(1000)), 3),
            (cheap, 1),
            (test_pod("unready", Some("n1"), "Running", None), 1),
            (test_pod("pending", Some("n1"), "Pending", None), 1),
            (test_pod("unassigned", None, "Pending", None), 0),
        ];
        pods.sort_by(|a, b| compare_for_deletion((&a.0, a.1), (&b.0, b.1), now));
        let names: Vec<&str> = pods.iter().map(|(p, _)| p.name()).collect();
        assert_eq!(names, ["unassigned", "pending", "unready", "cheap", "crowded", "old"]);
    }
}
