//! Scores: each ranks the nodes that passed the filters, 0 to 100; the weighted sum decides.
//!
//! Adding one is one file and one line in [`SCORES`].

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, NodeState};

pub mod allocation;
pub mod image_locality;
pub mod node_preference;
pub mod pod_preference;
pub mod spread;
pub mod taint_preference;

/// The best a node can get from one score.
pub const SCORE_MAX: i64 = 100;

/// Ranks the given nodes, one number each, 0 to [`SCORE_MAX`]; `None` when the pod does not care.
pub type Score = fn(&Arc<Pod>, &Cluster, &[Arc<NodeState>]) -> Option<Vec<i64>>;

/// All scores with names and weights.
pub const SCORES: &[(&str, i64, Score)] = &[
    ("NodeResourcesFit", 1, allocation::least_allocated),
    ("NodeResourcesBalancedAllocation", 1, allocation::balanced),
    ("TaintToleration", 3, taint_preference::score),
    ("NodeAffinity", 2, node_preference::score),
    ("PodTopologySpread", 2, spread::score),
    ("InterPodAffinity", 2, pod_preference::score),
    ("ImageLocality", 1, image_locality::score),
];

/// Stretches raw numbers to 0..=100; with `reverse` the smallest is the best.
pub fn normalise(raw: Vec<i64>, reverse: bool) -> Vec<i64> {
    let (Some(min), Some(max)) = (raw.iter().min().copied(), raw.iter().max().copied()) else {
        return raw;
    };
    let span = max - min;
    raw.into_iter()
        .map(|n| match (span, reverse) {
            (0, _) => SCORE_MAX,
            (_, false) => (n - min) * SCORE_MAX / span,
            (_, true) => (max - n) * SCORE_MAX / span,
        })
        .collect()
}
