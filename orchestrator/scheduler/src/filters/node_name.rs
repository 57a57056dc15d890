//! A pod that names its node goes there or nowhere.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Filter, Rejection};
use crate::cluster::{Cluster, NodeState};

struct NodeName(String);

pub fn prepare(pod: &Arc<Pod>, _: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    let name = pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
    Ok(name.map(|n| Box::new(NodeName(n)) as Box<dyn Filter>))
}

impl Filter for NodeName {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        if node.name() == self.0 {
            return Ok(());
        }
        Err(Rejection::by_node("node(s) didn't match the requested node name"))
    }
}
