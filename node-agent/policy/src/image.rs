//! What the kernel's maps hold of policies, and the changes of them that are written.
//!
//! Must not know how maps are written.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use penstock_ebpf_common::{POLICY_EGRESS, POLICY_INGRESS, PolicyRange, policy_key};

/// Which way a flow is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// By the pod.
    Egress,
}

/// The contents of all maps of policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Pods' addresses to the peers they are.
    pub peers: BTreeMap<IpAddr, u32>,
    /// Ranges of addresses to the peers that addresses in them are besides; the longest counts.
    pub blocks: BTreeMap<IpNetwork, u32>,
    /// What pods with policies let in and out, by the number of their link.
    pub tables: BTreeMap<u32, Table>,
}

/// What a pod lets in and out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The directions in which something needs to be allowed, `POLICY_*`.
    pub flags: u32,
    /// What is allowed, in order and apart from each other.
    pub ranges: Vec<PolicyRange>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A pod lets this in and out from now on.
    PutTable(u32, Table),
    /// A pod has no policies any more.
    DeleteTable(u32),
    /// An address is of this peer.
    PutPeer(IpAddr, u32),
    /// An address is of no peer.
    DeletePeer(IpAddr),
    /// Addresses of a range are this peer besides.
    PutBlock(IpNetwork, u32),
    /// The addresses of a range are nothing special.
    DeleteBlock(IpNetwork),
    /// No packet is judged any more by what tables were before.
    Settle,
    /// What was judged before is to be judged anew.
    Bump,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `POLICY_*`.
    pub const fn bit(self) -> u32 {
        match self {
            Self::Ingress => POLICY_INGRESS,
            Self::Egress => POLICY_EGRESS,
        }
    }
}

impl Table {
    /// With ranges as they come: put in order, and together where they meet.
    pub fn new(flags: u32, mut ranges: Vec<PolicyRange>) -> Self {
        ranges.sort_unstable();
        let mut apart: Vec<PolicyRange> = Vec::new();
        for range in ranges {
            match apart.last_mut() {
                Some(before) if range.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(range.last);
                }
                _ => apart.push(range),
            }
        }
        Self { flags, ranges: apart }
    }

    /// Whether a peer may open a flow: the rules of the programs (`ebpf/src/policy.rs`) once more.
    pub fn allows(&self, direction: Direction, peer: u32, protocol: u8, port: u16) -> bool {
        let key = policy_key(direction.bit(), peer, protocol, port);
        let behind = self.ranges.partition_point(|range| range.first <= key);
        behind.checked_sub(1).is_some_and(|at| self.ranges[at].last >= key)
    }

    /// Whether something needs to be allowed in a direction.
    pub fn isolates(&self, direction: Direction) -> bool {
        self.flags & direction.bit() != 0
    }
}

impl Image {
    /// Takes a change in.
    pub fn apply(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::PutTable(link, table) => drop(self.tables.insert(link, table)),
            Operation::DeleteTable(link) => drop(self.tables.remove(&link)),
            Operation::PutPeer(address, peer) => drop(self.peers.insert(address, peer)),
            Operation::DeletePeer(address) => drop(self.peers.remove(&address)),
            Operation::PutBlock(range, peer) => drop(self.blocks.insert(range, peer)),
            Operation::DeleteBlock(range) => drop(self.blocks.remove(&range)),
            Operation::Settle | Operation::Bump => {}
        }
    }

    /// The peer that addresses of a range are besides: of the longest range that holds it.
    pub fn block_of(&self, range: &IpNetwork) -> Option<u32> {
        longest(&self.blocks, range).copied()
    }

    /// Whether a flow may be opened between a pod with a link and an address.
    pub fn allows(&self, link: u32, direction: Direction, remote: IpAddr, protocol: u8, port: u16) -> bool {
        let Some(table) = self.tables.get(&link).filter(|table| table.isolates(direction)) else {
            return true;
        };
        let pod = self.peers.get(&remote).copied();
        let block = self.block_of(&IpNetwork::from(remote));
        [Some(penstock_ebpf_common::ANY_PEER), pod, block]
            .into_iter()
            .flatten()
            .any(|peer| table.allows(direction, peer, protocol, port))
    }
}

/// The value of the longest range that holds a range.
pub(crate) fn longest<'a, T>(ranges: &'a BTreeMap<IpNetwork, T>, of: &IpNetwork) -> Option<&'a T> {
    (0..=of.prefix()).rev().find_map(|prefix| {
        let wider = IpNetwork::new(of.ip(), prefix).ok()?;
        ranges.get(&IpNetwork::new(wider.network(), prefix).ok()?)
    })
}
