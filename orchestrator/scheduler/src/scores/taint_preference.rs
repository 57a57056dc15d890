//! Fewer `PreferNoSchedule` taints that the pod does not tolerate are better.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use penstock_informers::placement::{taints, tolerates, tolerations};

use super::normalise;
use crate::cluster::{Cluster, NodeState};

pub fn score(pod: &Arc<Pod>, _: &Cluster, nodes: &[Arc<NodeState>]) -> Option<Vec<i64>> {
    let tolerations = tolerations(pod);
    let disliked = |node: &Arc<NodeState>| {
        let soft = taints(&node.node).iter().filter(|t| t.effect == "PreferNoSchedule");
        soft.filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint))).count() as i64
    };
    let raw: Vec<i64> = nodes.iter().map(disliked).collect();
    raw.iter().any(|n| *n > 0).then(|| normalise(raw, true))
}
