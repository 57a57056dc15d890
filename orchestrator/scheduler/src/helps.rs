//! Whether a change in the cluster may help a pod that no node could take. Pure.
//!
//! It may not miss a change that would: such a pod would wait for minutes. One that helps in the end not costs a try.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::Cluster;
use crate::filters::FILTERS;

/// Filters whose answer for one node depends on others and on the pods there.
const ACROSS_NODES: [&str; 2] = ["PodTopologySpread", "InterPodAffinity"];

/// A change in the cluster that may help parked pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A node appeared, has other labels, taints or room, or a pod left it.
    Node(&'a str),
    /// A pod was placed, or its labels changed.
    PodPlaced,
    /// A claim, volume or class changed.
    Storage,
}

impl Change<'_> {
    /// Whether the pod, which these filters kept off every node, could fit now. Without filters there was no node.
    pub fn helps(self, pod: &Arc<Pod>, filters: &BTreeSet<&'static str>, cluster: &Cluster) -> bool {
        let across = || filters.iter().any(|filter| ACROSS_NODES.contains(filter));
        match self {
            Self::Node(node) => filters.is_empty() || across() || takes(node, pod, filters, cluster),
            Self::PodPlaced => across(),
            Self::Storage => filters.contains("VolumeBinding"),
        }
    }
}

/// Whether none of these filters keeps the pod off the node any more. Others may: what is asked is only what must hold.
fn takes(node: &str, pod: &Arc<Pod>, filters: &BTreeSet<&'static str>, cluster: &Cluster) -> bool {
    let Some(node) = cluster.nodes.get(node) else { return false };
    let mut concerned = FILTERS.iter().filter(|(name, _)| filters.contains(name));
    concerned.all(|(_, prepare)| match prepare(pod, cluster) {
        Ok(filter) => filter.is_none_or(|filter| filter.check(node).is_ok()),
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Placed;
    use serde_json::{Value, json};

    fn node(cluster: &mut Cluster, name: &str, taints: Value, cpu: &str) {
        let node = json!({"metadata": {"name": name}, "spec": {"taints": taints},
            "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "10"}}});
        cluster.put_node(Arc::new(serde_json::from_value(node).unwrap()));
    }

    fn pod(name: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_first_node_helps_whoever_had_none_and_is_not_asked_more() {
        let mut cluster = Cluster::default();
        node(&mut cluster, "a", json!([{"key": "k", "effect": "NoSchedule"}]), "2");
        assert!(Change::Node("a").helps(&pod("p"), &BTreeSet::new(), &cluster));
        assert!(!Change::Storage.helps(&pod("p"), &BTreeSet::new(), &cluster));
    }

    #[test]
    fn a_node_helps_when_what_kept_the_pod_off_does_not_keep_it_off_there() {
        let (mut cluster, tainted) = (Cluster::default(), json!([{"key": "k", "effect": "NoSchedule"}]));
        let kept_off = BTreeSet::from(["TaintToleration"]);
        node(&mut cluster, "a", tainted, "2");
        assert!(!Change::Node("a").helps(&pod("p"), &kept_off, &cluster));
        assert!(!Change::Node("gone").helps(&pod("p"), &kept_off, &cluster));
        node(&mut cluster, "a", json!([]), "2");
        assert!(Change::Node("a").helps(&pod("p"), &kept_off, &cluster));
    }

    #[test]
    fn a_pod_that_leaves_helps_when_it_leaves_enough() {
        let (mut cluster, kept_off) = (Cluster::default(), BTreeSet::from(["NodeResourcesFit"]));
        node(&mut cluster, "a", json!([]), "2");
        for name in ["x", "y"] {
            cluster.put_pod("a", Placed::new(pod(name)));
        }
        assert!(!Change::Node("a").helps(&pod("p"), &kept_off, &cluster));
        cluster.remove_pod("x");
        assert!(Change::Node("a").helps(&pod("p"), &kept_off, &cluster));
    }

    #[test]
    fn who_looks_at_other_nodes_is_helped_by_any_and_by_pods_that_come() {
        let (cluster, kept_off) =
            (Cluster::default(), BTreeSet::from(["NodeResourcesFit", "PodTopologySpread"]));
        assert!(Change::Node("gone").helps(&pod("p"), &kept_off, &cluster));
        assert!(Change::PodPlaced.helps(&pod("p"), &kept_off, &cluster));
        assert!(!Change::PodPlaced.helps(&pod("p"), &BTreeSet::from(["NodeResourcesFit"]), &cluster));
    }
}
