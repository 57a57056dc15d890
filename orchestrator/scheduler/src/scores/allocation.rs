//! Room: nodes with more of it left first, and those whose CPU and memory fill evenly.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::SCORE_MAX;
use crate::cluster::{Cluster, NodeState};
use crate::resources::{Resources, requests, requests_with_defaults};

/// More left is better.
pub fn least_allocated(pod: &Arc<Pod>, _: &Cluster, nodes: &[Arc<NodeState>]) -> Option<Vec<i64>> {
    let wanted = requests_with_defaults(pod);
    let score = |node: &Arc<NodeState>| {
        let left = |name: &str| {
            let has = node.allocatable.get(name);
            let used = node.scored_requested.get(name).saturating_add(wanted.get(name));
            if has <= 0 || used > has {
                return 0;
            }
            ((i128::from(has - used) * i128::from(SCORE_MAX)) / i128::from(has)) as i64
        };
        (left("cpu") + left("memory")) / 2
    };
    Some(nodes.iter().map(score).collect())
}

/// The closer the used shares of CPU and memory are, the better. A pod that asks for neither has no say.
pub fn balanced(pod: &Arc<Pod>, _: &Cluster, nodes: &[Arc<NodeState>]) -> Option<Vec<i64>> {
    let wanted = requests(pod);
    if wanted.get("cpu") == 0 && wanted.get("memory") == 0 {
        return None;
    }
    Some(nodes.iter().map(|n| balance(&n.allocatable, &n.requested, &wanted)).collect())
}

fn balance(has: &Resources, used: &Resources, wanted: &Resources) -> i64 {
    let share = |name: &str| {
        let total = has.get(name).max(1) as f64;
        (used.get(name).saturating_add(wanted.get(name)) as f64 / total).min(1.0)
    };
    let deviation = (share("cpu") - share("memory")).abs() / 2.0;
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}
