//! Nodes that have large parts of the pod's images already are better.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::SCORE_MAX;
use crate::cluster::{Cluster, NodeState};

/// Below this, having the image is worth nothing; above the other (per container), nothing more.
const BYTES_MIN: i64 = 23 << 20;
const BYTES_MAX_PER_CONTAINER: i64 = 1000 << 20;

pub fn score(pod: &Arc<Pod>, cluster: &Cluster, nodes: &[Arc<NodeState>]) -> Option<Vec<i64>> {
    let spec = pod.spec.as_ref()?;
    let images: Vec<String> =
        spec.containers.iter().filter_map(|c| c.image.as_deref()).map(with_tag).collect();
    let mut spread: HashMap<&str, i64> = HashMap::new();
    for node in cluster.nodes.values() {
        for name in names(node).map(|(name, _)| name) {
            if let Some(image) = images.iter().find(|i| *i == name) {
                *spread.entry(image).or_default() += 1;
            }
        }
    }
    if spread.is_empty() {
        return None;
    }
    let total = cluster.nodes.len().max(1) as i64;
    let max = BYTES_MAX_PER_CONTAINER * images.len().max(1) as i64;
    let score = |node: &Arc<NodeState>| {
        let here = names(node).filter_map(|(name, size)| {
            let image = images.iter().find(|i| *i == name)?;
            // An image few nodes have must not draw every replica to them.
            Some(size * spread.get(image.as_str()).copied().unwrap_or(0) / total)
        });
        let bytes = here.sum::<i64>().clamp(BYTES_MIN, max);
        SCORE_MAX * (bytes - BYTES_MIN) / (max - BYTES_MIN)
    };
    Some(nodes.iter().map(score).collect())
}

fn names(node: &NodeState) -> impl Iterator<Item = (&str, i64)> {
    let images = node.node.status.iter().flat_map(|s| s.images.iter().flatten());
    images.flat_map(|i| {
        let size = i.size_bytes.unwrap_or(0);
        i.names.iter().flatten().map(move |n| (n.as_str(), size))
    })
}

fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
