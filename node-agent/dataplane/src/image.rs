//! What the kernel's maps hold, or should: a value to compile to, to compare, and to read back.

use std::collections::{BTreeMap, BTreeSet};

use penstock_ebpf_common::{Address, Backend, VipKey, VipValue};

/// The contents of all maps that user space writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapImage {
    /// Service number to `namespace/name:port`.
    pub names: BTreeMap<u32, String>,
    /// Set number to set.
    pub sets: BTreeMap<u32, Set>,
    /// Address to service and sets.
    pub vips: BTreeMap<VipKey, VipValue>,
}

/// Backends among which the programs choose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// `SET_*`.
    pub flags: u32,
    /// How long a client keeps its backend; zero without affinity.
    pub affinity_seconds: u32,
    /// In the order of their addresses, so that equal sets are equal values.
    pub backends: Vec<Backend>,
}

/// A backend as flows name it: address, and port in network order.
pub type Endpoint = (Address, u16);

/// Which of the two sets of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Backends of the whole cluster.
    Cluster,
    /// Backends of this node.
    Local,
}

/// The number of a service's set. Zero is no set: service numbers start at one.
pub const fn set_id(service: u32, scope: Scope) -> u32 {
    service * 2 + scope as u32
}

/// The service a set belongs to.
pub const fn service_of(set: u32) -> u32 {
    set / 2
}

impl MapImage {
    /// Whether every address leads to sets and a name that exist: what must hold at every moment.
    pub fn is_whole(&self) -> bool {
        self.vips.values().all(|vip| {
            self.names.contains_key(&vip.service)
                && [vip.inside, vip.outside].iter().all(|set| *set == 0 || self.sets.contains_key(set))
        })
    }

    /// All backends of a service, in either of its sets.
    pub fn endpoints(&self, service: u32) -> BTreeSet<Endpoint> {
        [Scope::Cluster, Scope::Local]
            .into_iter()
            .filter_map(|scope| self.sets.get(&set_id(service, scope)))
            .flat_map(|set| set.backends.iter().map(|backend| (backend.address, backend.port)))
            .collect()
    }

    /// The backends that these services have here and have no more in `next`, by service.
    pub fn departed(&self, next: &Self, services: &BTreeSet<u32>) -> BTreeMap<u32, BTreeSet<Endpoint>> {
        let mut departed = BTreeMap::new();
        for service in services {
            let (before, after) = (self.endpoints(*service), next.endpoints(*service));
            let gone: BTreeSet<_> = before.difference(&after).copied().collect();
            if !gone.is_empty() {
                departed.insert(*service, gone);
            }
        }
        departed
    }
}
