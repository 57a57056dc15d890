//! Which nodes a DaemonSet wants a pod on, which pods go, and what its status says. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use penstock_informers::Meta;
use penstock_informers::identity::controller_reference;
use penstock_informers::placement::{node_affinity_holds, taints, untolerated};

use crate::intstr::{Round, resolve};
use crate::pod;
use crate::revisions::HASH_LABEL;
use crate::template_hash::hash_template;

/// Taints a daemon stays through: it is part of the node.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub(crate) struct Observed {
    pub set: Arc<DaemonSet>,
    pub nodes: Vec<Arc<Node>>,
    pub pods: Vec<Arc<Pod>>,
    pub now: Timestamp,
}

/// What a pass does: nodes to create a pod on, pods to delete.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
}

/// Whether a node's change can make no difference to daemons.
pub(crate) fn same_for_daemons(old: &Node, new: &Node) -> bool {
    let spec = |n: &Node| n.spec.as_ref().map(|s| (s.taints.clone(), s.unschedulable));
    old.metadata.labels == new.metadata.labels && spec(old) == spec(new) && old.deleting() == new.deleting()
}

fn daemon_spec(set: &DaemonSet) -> Option<PodSpec> {
    let mut spec = set.spec.as_ref()?.template.spec.clone()?;
    let tolerations = spec.tolerations.get_or_insert_default();
    let network = [("node.kubernetes.io/network-unavailable", "NoSchedule")];
    let network = network.iter().filter(|_| spec.host_network == Some(true));
    for (key, effect) in TOLERATED.iter().chain(network) {
        tolerations.push(Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".into()),
            effect: Some((*effect).to_owned()),
            ..Default::default()
        });
    }
    Some(spec)
}

/// Whether a pod should start on the node, and whether one that is there may stay.
fn wants(spec: &PodSpec, node: &Node) -> (bool, bool) {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let fits = node_affinity_holds(spec, node)
        && spec.node_name.as_deref().is_none_or(|n| n.is_empty() || n == node.name());
    let free = |effects: &[&str]| untolerated(taints(node), tolerations, effects).is_none();
    (fits && free(&["NoSchedule", "NoExecute"]), fits && free(&["NoExecute"]))
}

/// The node a daemon pod is on or meant for.
fn target(pod: &Pod) -> Option<String> {
    if let Some(node) = pod::node_name(pod) {
        return Some(node.to_owned());
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.first()?.match_fields.as_ref()?;
    fields.iter().find(|f| f.key == "metadata.name")?.values.as_ref()?.first().cloned()
}

fn by_node(observed: &Observed) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut map: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in &observed.pods {
        map.entry(target(pod).unwrap_or_default()).or_default().push(pod.clone());
    }
    // The oldest is the one that stays.
    map.values_mut().for_each(|pods| pods.sort_by_key(|p| (p.created_seconds(), p.name().to_owned())));
    map
}

fn hash(set: &DaemonSet) -> String {
    set.spec.as_ref().map(|s| hash_template(&s.template, None)).unwrap_or_default()
}

pub(crate) fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = daemon_spec(&observed.set) else {
        return plan;
    };
    let mut pods = by_node(observed);
    for node in &observed.nodes {
        let (starts, stays) = wants(&spec, node);
        let here = pods.remove(node.name()).unwrap_or_default();
        if !stays {
            plan.delete.extend(here.into_iter().filter(|p| !p.deleting()));
            continue;
        }
        // A finished daemon is replaced, one that is going is waited for.
        let (finished, alive): (Vec<_>, Vec<_>) = here.into_iter().partition(|p| pod::is_finished(p));
        plan.delete.extend(finished.iter().filter(|p| !p.deleting()).cloned());
        plan.delete.extend(alive.iter().filter(|p| !p.deleting()).skip(1).cloned());
        if alive.is_empty() && finished.is_empty() && starts {
            plan.create.push(node.name().to_owned());
        }
    }
    plan.delete.extend(plan_update(observed, &spec, &plan.delete));
    plan
}

/// Pods of an old template that may go now.
fn plan_update(observed: &Observed, spec: &PodSpec, going: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let Some(set) = &observed.set.spec else {
        return Vec::new();
    };
    let strategy = set.update_strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return Vec::new();
    }
    let current = hash(&observed.set);
    let min_ready = set.min_ready_seconds.unwrap_or(0);
    let nodes: Vec<&str> = observed.nodes.iter().filter(|n| wants(spec, n).0).map(|n| n.name()).collect();
    let desired = i32::try_from(nodes.len()).unwrap_or(i32::MAX);
    let limit = strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.max_unavailable.as_ref());
    let limit = limit.and_then(|l| resolve(l, desired, Round::Up)).unwrap_or(1).max(1);
    let pods = by_node(observed);
    let alive = |node: &str| {
        let mut here = pods.get(node).into_iter().flatten();
        here.find(|p| pod::is_active(p) && !going.iter().any(|g| g.uid_str() == p.uid_str()))
    };
    let mut unavailable = 0;
    let (mut broken, mut serving) = (Vec::new(), Vec::new());
    for pod in nodes.iter().map(|n| alive(n)) {
        let Some(pod) = pod else {
            unavailable += 1;
            continue;
        };
        let available = pod::is_available(pod, min_ready, observed.now);
        unavailable += i32::from(!available);
        if pod.label(HASH_LABEL) != Some(&current) {
            if available { serving.push(pod.clone()) } else { broken.push(pod.clone()) }
        }
    }
    // What does not serve costs nothing to replace.
    let room = usize::try_from(limit - unavailable).unwrap_or(0);
    broken.into_iter().chain(serving.into_iter().take(room)).collect()
}

/// The pod for a node, bound to it by affinity so that the scheduler still checks that it fits.
pub(crate) fn plan_pod(set: &DaemonSet, node: &str) -> Option<Pod> {
    let template = &set.spec.as_ref()?.template;
    let mut pod =
        pod::from_template(template, set.ns(), &format!("{}-", set.name()), controller_reference(set));
    pod.metadata.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash(set));
    let mut spec = daemon_spec(set)?;
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let name = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let required = affinity.required_during_scheduling_ignored_during_execution.take();
    // Every alternative is narrowed to the node: the terms are or-ed.
    let mut terms = required.map(|r| r.node_selector_terms).unwrap_or_default();
    if terms.is_empty() {
        terms.push(NodeSelectorTerm::default());
    }
    terms.iter_mut().for_each(|t| t.match_fields = Some(vec![name.clone()]));
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: terms });
    pod.spec = Some(spec);
    Some(pod)
}

pub(crate) fn plan_status(observed: &Observed) -> DaemonSetStatus {
    let set = &observed.set;
    let old = set.status.clone().unwrap_or_default();
    let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let current = hash(set);
    let pods = by_node(observed);
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..Default::default()
    };
    let (mut available, mut updated) = (0, 0);
    let Some(spec) = daemon_spec(set) else {
        return status;
    };
    for node in &observed.nodes {
        let here = pods.get(node.name()).into_iter().flatten().find(|p| !pod::is_finished(p));
        if !wants(&spec, node).0 {
            status.number_misscheduled += i32::from(here.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = here else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pod::is_ready(pod));
        available += i32::from(pod::is_available(pod, min_ready, observed.now));
        updated += i32::from(pod.label(HASH_LABEL) == Some(&current));
    }
    let present = |n: i32| (n != 0).then_some(n);
    status.number_available = present(available);
    status.number_unavailable = present(status.desired_number_scheduled - available);
    status.updated_number_scheduled = present(updated);
    status
}

/// Seconds until the next ready pod counts as available.
pub(crate) fn seconds_until_available(observed: &Observed) -> Option<u64> {
    let min_ready = observed.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let waits = observed.pods.iter().filter_map(|p| pod::seconds_until_available(p, min_ready, observed.now));
    waits.filter(|s| *s > 0).min().and_then(|s| u64::try_from(s).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::test_pod;

    fn set(image: &str) -> Arc<DaemonSet> {
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "ds", "namespace": "ns", "uid": "ds"},
                "spec": {"selector": {"matchLabels": {"app": "ds"}}, "template": {
                    "metadata": {"labels": {"app": "ds"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
            }))
            .unwrap(),
        )
    }

    fn node(name: &str, taint: Option<&str>) -> Arc<Node> {
        let taints: Vec<_> =
            taint.iter().map(|k| serde_json::json!({"key": k, "effect": "NoSchedule"})).collect();
        let node = serde_json::json!({"metadata": {"name": name}, "spec": {"taints": taints}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn daemon(set: &DaemonSet, node: &str) -> Arc<Pod> {
        let mut pod = test_pod(&format!("p-{node}"), Some(node), "Running", Some(1));
        pod.metadata.labels = Some([(HASH_LABEL.to_owned(), hash(set))].into());
        Arc::new(pod)
    }

    fn observed(set: Arc<DaemonSet>, nodes: Vec<Arc<Node>>, pods: Vec<Arc<Pod>>) -> Observed {
        Observed { set, nodes, pods, now: Timestamp::from_second(100).unwrap() }
    }

    #[test]
    fn every_fitting_node_gets_one_pod_meant_for_it() {
        let nodes = vec![
            node("a", None),
            node("b", Some("theirs")),
            node("c", Some("node.kubernetes.io/unschedulable")),
        ];
        let plan = plan(&observed(set("v1"), nodes, vec![]));
        assert_eq!(plan.create, ["a", "c"], "a cordoned node keeps its daemons");
        let pod = plan_pod(&set("v1"), "a").unwrap();
        assert_eq!(target(&pod).as_deref(), Some("a"));
    }

    #[test]
    fn a_new_template_replaces_one_pod_at_a_time() {
        let old = set("v1");
        let nodes = vec![node("a", None), node("b", None)];
        let pods = vec![daemon(&old, "a"), daemon(&old, "b")];
        let now = observed(set("v2"), nodes.clone(), pods.clone());
        assert_eq!(plan(&now).delete.len(), 1);
        let half = observed(set("v2"), nodes, vec![pods[1].clone()]);
        let next = plan(&half);
        assert_eq!(
            (next.create.as_slice(), next.delete.len()),
            (["a".to_owned()].as_slice(), 0),
            "one is missing already"
        );
        let status = plan_status(&half);
        assert_eq!((status.desired_number_scheduled, status.current_number_scheduled), (2, 1));
    }
}
