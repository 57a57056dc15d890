//! Volumes: claims must exist, bound volumes must be reachable from the node. Claims of a class that waits for
//! its first consumer are fine anywhere; choosing and provisioning their volumes is not done here yet.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelector, Pod};
use penstock_informers::placement::node_selector_matches;
use penstock_informers::{Key, Meta};

use super::{Filter, Rejection};
use crate::cluster::{Cluster, NodeState};

struct Volumes(Vec<NodeSelector>);

/// Names of the claims a pod uses; ephemeral volumes have claims named after pod and volume.
pub fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes
        .filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{}-{}", pod.name(), v.name)),
            (None, None) => None,
        })
        .collect()
}

pub fn prepare(pod: &Arc<Pod>, cluster: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    let mut selectors = Vec::new();
    for name in claim_names(pod) {
        let Some(claim) = cluster.claims.get(&Key::new(pod.ns(), name.clone())) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if claim.deleting() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let spec = claim.spec.as_ref();
        let volume = spec.and_then(|s| s.volume_name.as_ref()).filter(|v| !v.is_empty());
        match volume {
            Some(volume) => {
                let volume = cluster.volumes.get(volume).and_then(|v| v.spec.as_ref());
                let affinity = volume.and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.clone());
                selectors.extend(affinity);
            }
            None => {
                let class =
                    spec.and_then(|s| s.storage_class_name.as_ref()).and_then(|c| cluster.classes.get(c));
                let mode = class.and_then(|c| c.volume_binding_mode.as_deref());
                if mode != Some("WaitForFirstConsumer") {
                    return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
                }
            }
        }
    }
    Ok((!selectors.is_empty()).then(|| Box::new(Volumes(selectors)) as Box<dyn Filter>))
}

impl Filter for Volumes {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        if self.0.iter().all(|s| node_selector_matches(s, &node.node)) {
            return Ok(());
        }
        Err(Rejection::by_node("node(s) had volume node affinity conflict"))
    }
}
