//! Spreading: soft topology constraints, and by default the pods of one workload over nodes and zones.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use penstock_informers::Meta;

use super::normalise;
use crate::cluster::{Cluster, NodeState};
use crate::filters::topology_spread::count;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

pub fn score(pod: &Arc<Pod>, cluster: &Cluster, nodes: &[Arc<NodeState>]) -> Option<Vec<i64>> {
    let constraints = soft_constraints(pod);
    if constraints.is_empty() {
        return None;
    }
    let mut raw = vec![0.0; nodes.len()];
    for constraint in &constraints {
        let spread = count(pod, constraint, &[], cluster);
        // A pod more in one of few zones weighs more than on one of many nodes.
        let weight = ((spread.counts.len() + 2) as f64).ln();
        for (sum, node) in raw.iter_mut().zip(nodes) {
            let here = node.label(&spread.key).and_then(|v| spread.counts.get(v)).copied().unwrap_or(0);
            *sum += here as f64 * weight + f64::from(constraint.max_skew - 1);
        }
    }
    Some(normalise(raw.into_iter().map(|n| (n * 100.0).round() as i64).collect(), true))
}

/// The pod's soft constraints; without any constraint, those of its workload by default.
fn soft_constraints(pod: &Pod) -> Vec<TopologySpreadConstraint> {
    let stated = pod.spec.as_ref().and_then(|s| s.topology_spread_constraints.as_ref());
    if let Some(stated) = stated.filter(|c| !c.is_empty()) {
        return stated.iter().filter(|c| c.when_unsatisfiable == "ScheduleAnyway").cloned().collect();
    }
    // Pods of one owner carry the same labels, so the labels stand for the owner's selector.
    let Some(labels) = pod.controller_ref().and(pod.metadata.labels.as_ref()).filter(|l| !l.is_empty())
    else {
        return Vec::new();
    };
    let per_pod = ["statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"];
    let labels = labels.iter().filter(|(k, _)| !per_pod.contains(&k.as_str()));
    let selector = LabelSelector {
        match_labels: Some(labels.map(|(k, v)| (k.clone(), v.clone())).collect()),
        match_expressions: None,
    };
    [(HOSTNAME, 3), (ZONE, 5)]
        .map(|(key, max_skew)| TopologySpreadConstraint {
            topology_key: key.to_owned(),
            max_skew,
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(selector.clone()),
            ..Default::default()
        })
        .into()
}
