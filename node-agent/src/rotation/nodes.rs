//! The other nodes, as far as one must know them to ask something.
//!
//! It exists to pick who is asked: nodes that are Ready and have an address. It must not know what they are asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cluster::{NodeView, ObjectName};

/// Where kubelets listen that do not say where.
const KUBELET_PORT: u16 = 10250;

/// The nodes that can be asked; clones share them.
#[derive(Clone, Default)]
pub struct Nodes(Arc<Mutex<BTreeMap<String, SocketAddr>>>);

impl Nodes {
    /// All nodes of the cluster; `own` is left out.
    pub fn set(&self, own: &str, nodes: &BTreeMap<ObjectName, NodeView>) {
        let ready = nodes.iter().filter(|(name, node)| name.name != own && node.ready);
        let reachable = ready.filter_map(|(name, node)| {
            let port = node.kubelet_port.filter(|port| *port != 0).unwrap_or(KUBELET_PORT);
            Some((name.name.clone(), SocketAddr::new(*node.addresses.first()?, port)))
        });
        *self.0.lock() = reachable.collect();
    }

    /// Their names, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }

    /// Where one of them listens; none when it cannot be asked now.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.0.lock().get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn nodes_that_are_not_ready_or_have_no_address_are_not_asked() {
        let node = |address: Option<[u8; 4]>, ready, kubelet_port| NodeView {
            addresses: address.into_iter().map(IpAddr::from).collect(),
            ready,
            kubelet_port,
            ..NodeView::default()
        };
        let at = |name: &str| ObjectName { namespace: String::new(), name: name.into() };
        let nodes = Nodes::default();
        let all = BTreeMap::from([
            (at("a"), node(Some([10, 0, 0, 1]), true, None)),
            (at("b"), node(Some([10, 0, 0, 2]), true, Some(20250))),
            (at("c"), node(Some([10, 0, 0, 3]), false, None)),
            (at("d"), node(None, true, None)),
        ]);
        nodes.set("a", &all);
        assert_eq!(nodes.names(), ["b"]);
        assert_eq!(nodes.address("b"), Some("10.0.0.2:20250".parse().unwrap()));
        assert_eq!(nodes.address("a"), None);
    }
}
