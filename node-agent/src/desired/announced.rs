//! Which addresses of a Service the nodes are to announce, and which nodes may. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::slices::Slices;
use super::{Services, is_proxied};
use crate::cluster::{EndpointView, ObjectName};

/// A Service whose addresses the nodes announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    pub addresses: Vec<IpAddr>,
    /// The nodes that may; none when all may.
    pub nodes: Option<BTreeSet<String>>,
}

// === impl Services ===

impl Services {
    /// By which addresses the nodes are to announce a Service, and which nodes may; `None` when it has none of ours.
    pub fn compile_announced(&self, name: &ObjectName) -> Option<Announced> {
        let service =
            self.services.get(name).filter(|service| is_proxied(service) && service.special().announced)?;
        let addresses =
            service.special().load_balancer_ips.iter().copied().filter(|it| is_unicast(*it)).collect();
        Some(Announced { addresses, nodes: service.external_local.then(|| self.serving_nodes(name)) })
    }

    /// The nodes with ready endpoints of a Service; without any ready, those whose endpoints still serve as they end
    /// (KEP-1669).
    fn serving_nodes(&self, name: &ObjectName) -> BTreeSet<String> {
        let slices = || self.slices.get(name).into_iter().flat_map(Slices::values);
        let nodes = |which: fn(&EndpointView<'_>) -> bool| -> BTreeSet<String> {
            let endpoints = slices().flat_map(|slice| slice.endpoints.iter()).filter(|it| which(it));
            endpoints.filter_map(|endpoint| endpoint.place.node.clone()).collect()
        };
        let ready = nodes(|endpoint| endpoint.ready);
        if ready.is_empty() { nodes(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
    }
}

/// Whether hosts ask each other for an address.
fn is_unicast(address: IpAddr) -> bool {
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast())
}
