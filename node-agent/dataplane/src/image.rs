//! What the kernel's maps hold, or should: a value to compile to, to compare, and to read back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use penstock_ebpf_common::SETS_PER_SERVICE;
use penstock_ebpf_common::{Address, Backend, VipKey, VipValue};

use crate::{Choice, ServiceKey, maglev};

/// The contents of all maps that user space writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapImage {
    /// Service number to service port. The name is shared with whoever else knows the port.
    pub names: BTreeMap<u32, Arc<ServiceKey>>,
    /// Set number to set.
    pub sets: BTreeMap<u32, Set>,
    /// Who may reach the load balancer's addresses of services that name them.
    pub ranges: BTreeSet<SourceRange>,
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
    /// How the programs choose. The table of a set that chooses by one follows from its backends.
    pub choice: Choice,
    /// In the order of their addresses, so that equal sets are equal values.
    pub backends: Vec<Backend>,
}

/// Clients that may use a service's load balancer addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceRange {
    /// The service's number.
    pub service: u32,
    /// The range's address; what lies behind the prefix is zero.
    pub address: Address,
    /// How many bits of the address count; those of the mapping included for IPv4.
    pub prefix: u8,
}

/// A backend as flows name it: address, and port in network order.
pub type Endpoint = (Address, u16);

/// The sets of a service by the family of the addresses that lead to them: a client of one family cannot talk to a
/// backend of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which of the two sets of a service and family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Backends of the whole cluster.
    Cluster,
    /// Backends of this node.
    Local,
}

/// The number of a service's set. Zero is no set: service numbers start at one.
pub const fn set_id(service: u32, family: Family, scope: Scope) -> u32 {
    service * SETS_PER_SERVICE + family as u32 * 2 + scope as u32
}

/// All numbers of a service's sets.
pub fn set_ids(service: u32) -> std::ops::Range<u32> {
    service * SETS_PER_SERVICE..(service + 1) * SETS_PER_SERVICE
}

/// The service a set belongs to.
pub const fn service_of(set: u32) -> u32 {
    set / SETS_PER_SERVICE
}

// === impl MapImage ===

impl MapImage {
    /// Whether every address leads to sets and a name that exist: what must hold at every moment.
    pub fn is_whole(&self) -> bool {
        self.vips.values().all(|vip| {
            self.names.contains_key(&vip.service)
                && [vip.inside, vip.outside].iter().all(|set| *set == 0 || self.sets.contains_key(set))
        })
    }

    /// Who may use a service's load balancer addresses.
    pub fn ranges_of(&self, service: u32) -> impl Iterator<Item = &SourceRange> {
        let at = |service| SourceRange { service, address: Address::default(), prefix: 0 };
        self.ranges.range(at(service)..at(service + 1))
    }
}

// === impl Set ===

impl Set {
    /// Its backends as flows name them.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.backends.iter().map(|backend| (backend.address, backend.port))
    }

    /// The table by which it chooses: for each place the number of a backend, from one. Empty where it chooses otherwise.
    pub fn compile_table(&self) -> Vec<u16> {
        if self.choice == Choice::Maglev { maglev::compile_table(&self.backends) } else { Vec::new() }
    }
}

// === impl Family ===

impl Family {
    /// The family of an address as maps hold it.
    pub fn of(address: Address) -> Self {
        if address.is_v4() { Self::V4 } else { Self::V6 }
    }
}
