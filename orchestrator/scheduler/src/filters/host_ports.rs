//! Two pods cannot hold the same port of a node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Filter, Rejection};
use crate::cluster::{Cluster, HostPort, NodeState, host_ports};

struct Ports(Vec<HostPort>);

pub fn prepare(pod: &Arc<Pod>, _: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    let ports = host_ports(pod);
    Ok((!ports.is_empty()).then(|| Box::new(Ports(ports)) as Box<dyn Filter>))
}

impl Filter for Ports {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        let mut taken = node.pods.values().flat_map(|p| p.ports.iter());
        if taken.any(|t| self.0.iter().any(|w| w.clashes(t))) {
            return Err(Rejection::by_pods("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}
