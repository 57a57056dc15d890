//! Preferred node affinity: the weights of the terms a node matches.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use penstock_informers::placement::node_term_matches;

use super::normalise;
use crate::cluster::{Cluster, NodeState};

pub fn score(pod: &Arc<Pod>, _: &Cluster, nodes: &[Arc<NodeState>]) -> Option<Vec<i64>> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = affinity.preferred_during_scheduling_ignored_during_execution.as_ref()?;
    let weigh = |node: &Arc<NodeState>| {
        let matching = terms.iter().filter(|t| node_term_matches(&t.preference, &node.node));
        matching.map(|t| i64::from(t.weight)).sum()
    };
    let raw: Vec<i64> = nodes.iter().map(weigh).collect();
    raw.iter().any(|n| *n > 0).then(|| normalise(raw, false))
}
