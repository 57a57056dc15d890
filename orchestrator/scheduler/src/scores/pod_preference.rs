//! Preferred pod affinity and anti-affinity, the pod's own and that of pods already placed.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::normalise;
use crate::cluster::{Cluster, NodeState};
use crate::filters::affinity_terms::{Term, Terms};

/// What a required affinity of a placed pod towards the new one is worth.
const REQUIRED_WEIGHT: i64 = 1;

pub fn score(pod: &Arc<Pod>, cluster: &Cluster, nodes: &[Arc<NodeState>]) -> Option<Vec<i64>> {
    let own = Terms::of(pod).preferred;
    let names = &cluster.namespace_labels;
    let mut weights: HashMap<(String, String), i64> = HashMap::new();
    for node in cluster.nodes.values() {
        let mut credit = |term: &Term, weight: i64| {
            if let Some(value) = node.label(&term.topology_key) {
                *weights.entry((term.topology_key.clone(), value.to_owned())).or_default() += weight;
            }
        };
        for placed in node.pods.values() {
            for (term, weight) in own.iter().filter(|(t, _)| t.means(&placed.pod, names)) {
                credit(term, *weight);
            }
            if Terms::any(&placed.pod) {
                let theirs = Terms::of(&placed.pod);
                for (term, weight) in theirs.preferred.iter().filter(|(t, _)| t.means(pod, names)) {
                    credit(term, *weight);
                }
                for term in theirs.affinity.iter().filter(|t| t.means(pod, names)) {
                    credit(term, REQUIRED_WEIGHT);
                }
            }
        }
    }
    if weights.is_empty() {
        return None;
    }
    let weigh = |node: &Arc<NodeState>| {
        let here = weights.iter().filter(|((key, value), _)| node.label(key) == Some(value));
        here.map(|(_, weight)| weight).sum()
    };
    Some(normalise(nodes.iter().map(weigh).collect(), false))
}
