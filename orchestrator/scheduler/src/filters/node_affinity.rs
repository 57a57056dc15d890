//! `nodeSelector` and required node affinity.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use penstock_informers::placement::node_affinity_holds;

use super::{Filter, Rejection};
use crate::cluster::{Cluster, NodeState};

struct NodeAffinity(Arc<Pod>);

pub fn prepare(pod: &Arc<Pod>, _: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    let spec = pod.spec.as_ref();
    let cares = spec.is_some_and(|s| {
        s.node_selector.is_some() || s.affinity.as_ref().is_some_and(|a| a.node_affinity.is_some())
    });
    Ok(cares.then(|| Box::new(NodeAffinity(pod.clone())) as Box<dyn Filter>))
}

impl Filter for NodeAffinity {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        match &self.0.spec {
            Some(spec) if !node_affinity_holds(spec, &node.node) => {
                Err(Rejection::by_node("node(s) didn't match Pod's node affinity/selector"))
            }
            _ => Ok(()),
        }
    }
}
