//! What load balancers are told when they ask whether this node has endpoints of a Service. Pure.
//!
//! It exists because a load balancer sends a node traffic of Services with `externalTrafficPolicy: Local` only while the
//! node says so. It must not know how it is asked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Services;
use crate::cluster::ObjectName;

/// A port on which is asked, and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// How many ready endpoints run on this node. One address counts once, however many ports and slices have it, and one
    /// that ends does not count, though it serves while there is no other: as kube-proxy counts.
    pub local_endpoints: usize,
}

impl Services {
    /// The health check of a Service; none when it is gone or wants none.
    pub fn compile_health(&self, name: &ObjectName, node: &str) -> Option<HealthCheck> {
        let port =
            self.services.get(name).filter(|service| super::is_proxied(service))?.special().health_port?;
        let endpoints = self.slices.get(name).into_iter().flat_map(|slices| slices.values());
        let endpoints = endpoints.flat_map(|slice| slice.endpoints.iter());
        let local = endpoints.filter(|it| it.ready && it.place.node.as_deref() == Some(node));
        let local: BTreeSet<IpAddr> = local.map(|endpoint| endpoint.address).collect();
        Some(HealthCheck { port, local_endpoints: local.len() })
    }
}
