//! Requests must fit into what the node has left, number of pods included.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Filter, Rejection};
use crate::cluster::{Cluster, NodeState};
use crate::resources::{Resources, requests};

struct Fit(Resources);

pub fn prepare(pod: &Arc<Pod>, _: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    Ok(Some(Box::new(Fit(requests(pod)))))
}

impl Filter for Fit {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        let mut reasons = Vec::new();
        let mut resolvable = true;
        let pods_max = node.allocatable.get("pods");
        if node.pods.len() as i64 >= pods_max {
            reasons.push("Too many pods".to_owned());
            resolvable &= pods_max > 0;
        }
        for (name, wanted) in self.0.0.iter().filter(|(_, wanted)| **wanted > 0) {
            let has = node.allocatable.get(name);
            if *wanted > has.saturating_sub(node.requested.get(name)) {
                reasons.push(format!("Insufficient {name}"));
                // More than the whole node: no pod's going can help.
                resolvable &= *wanted <= has;
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons, resolvable }) }
    }
}
