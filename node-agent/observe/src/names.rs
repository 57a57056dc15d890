//! Names for addresses and network namespaces: what makes a flow readable.
//!
//! It exists so that an observer, which is another process than the agent, can be given names by whoever knows them: this
//! node's own attachments, the cluster's endpoints. Must not know where they come from. What has no name is shown by its
//! address.

use std::collections::HashMap;
use std::net::IpAddr;

/// What is known by name.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// `namespace/name` of pods.
    pods: HashMap<IpAddr, String>,
    /// The same, by the cookie of their network namespace.
    namespaces: HashMap<u64, String>,
    /// The cookie of the node's own network namespace.
    host: u64,
}

impl Names {
    /// Nothing but the node itself.
    pub fn new(host_netns: u64) -> Self {
        Self { host: host_netns, ..Self::default() }
    }

    /// Names a pod by its address.
    pub fn insert_pod(&mut self, address: IpAddr, name: impl Into<String>) {
        self.pods.insert(address, name.into());
    }

    /// Names a pod of this node by its network namespace.
    pub fn insert_namespace(&mut self, cookie: u64, name: impl Into<String>) {
        self.namespaces.insert(cookie, name.into());
    }

    /// The pod that has an address.
    pub fn pod(&self, address: IpAddr) -> Option<&str> {
        self.pods.get(&address).map(String::as_str)
    }

    /// The address of a pod.
    pub fn address(&self, pod: &str) -> Option<IpAddr> {
        let mut all: Vec<_> = self.pods.iter().filter(|(_, name)| *name == pod).map(|(it, _)| *it).collect();
        all.sort();
        all.first().copied()
    }

    /// The pod whose sockets are in a network namespace; none for the node's own.
    pub fn pod_in(&self, netns: u64) -> Option<&str> {
        self.namespaces.get(&netns).map(String::as_str)
    }

    /// Whether a network namespace is the node's own.
    pub fn is_host(&self, netns: u64) -> bool {
        netns != 0 && netns == self.host
    }
}
