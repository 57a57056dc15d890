//! Desired state to map image. Pure and deterministic: equal input, equal bytes.
//!
//! The unit is one service port: [`compile_port`] knows nothing of any other, which is why a change costs what changed.
//! Each port has up to two sets a family: the backends of the cluster and those of this node. Its addresses choose
//! between them by the traffic policies, which is where those policies end; the programs know only sets.
//! An address given to two services leads to the first by name, but one that a Service names itself (`externalIPs`) gives
//! way to one that was allocated: nobody takes another's traffic by naming its address.
//!
//! [`compile()`] is the same for a whole cluster at once: the plain way, against which the incremental one is checked.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use penstock_ebpf_common::{
    self as shared, Address, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, SET_EMPTY_IS_DROP, VIP_DIRECT,
    VIP_HOST_ONLY, VIP_NODE_PORT, VIP_SOURCE_RANGES, VIP_YIELDS, VipKey, VipValue,
};

use crate::desired::Hint;
use crate::ids::Ids;
use crate::image::{Family, MapImage, Scope, Set, SourceRange, set_id};
use crate::{Backend, Choice, Desired, Forwarding, NodeFacts, Protocol, Service, ServiceKey, maglev};

/// What compiling a whole cluster gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// What the maps should hold.
    pub image: MapImage,
    /// Service ports for which there was no number left; they are not served.
    pub unplaced: Vec<ServiceKey>,
    /// Addresses another service already has; they lead to that one.
    pub conflicts: Vec<(ServiceKey, IpAddr, u16)>,
}

/// What one service port wants of the maps, whether it gets it or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompiledPort {
    /// The sets its addresses lead to. Backends have no numbers yet.
    pub sets: BTreeMap<u32, Set>,
    /// Its addresses.
    pub vips: BTreeMap<VipKey, VipValue>,
    /// Who may use its load balancer addresses.
    pub ranges: Vec<SourceRange>,
}

/// Compiles everything. `ids` are the numbers that are given out already.
pub fn compile(desired: &Desired, ids: &Ids) -> Compiled {
    let (mut ids, facts, mut compiled) = (ids.clone(), desired.facts(), Compiled::default());
    for (key, service) in desired.services.iter().filter(|(_, service)| is_served(service)) {
        let key = Arc::new(key.clone());
        let Some(number) = ids.services.ensure(&key) else {
            compiled.unplaced.push((*key).clone());
            continue;
        };
        let mut port = compile_port(service, number, &facts);
        for backend in port.sets.values_mut().flat_map(|set| &mut set.backends) {
            backend.id = ids.backends.acquire((backend.address, backend.port));
        }
        compiled.image.names.insert(number, key.clone());
        compiled.image.sets.extend(port.sets);
        compiled.image.ranges.extend(port.ranges);
        for (vip, value) in port.vips {
            match compiled.image.vips.entry(vip) {
                Entry::Occupied(mut holder) if yields(holder.get()) && !yields(&value) => {
                    let loser = holder.insert(value).service;
                    compiled.conflicts.push(conflict(&compiled.image.names[&loser], &vip));
                }
                Entry::Occupied(_) => compiled.conflicts.push(conflict(&key, &vip)),
                Entry::Vacant(free) => drop(free.insert(value)),
            }
        }
    }
    compiled
}

/// Whether an address gives way to one that was allocated.
pub fn yields(vip: &VipValue) -> bool {
    vip.flags & VIP_YIELDS != 0
}

/// Whether there is any address to translate.
pub fn is_served(service: &Service) -> bool {
    !service.cluster_ips.is_empty()
        || !service.external_ips.is_empty()
        || !service.load_balancer_ips.is_empty()
        || !service.loopbacks.is_empty()
        || service.node_port.is_some()
}

/// A lost address as people read it.
pub fn conflict(key: &ServiceKey, vip: &VipKey) -> (ServiceKey, IpAddr, u16) {
    (key.clone(), vip.address.into(), u16::from_be(vip.port))
}

/// Compiles one service port that has this number.
pub fn compile_port(service: &Service, number: u32, facts: &NodeFacts) -> CompiledPort {
    let mut port = CompiledPort::default();
    if service.port == 0 {
        return port;
    }
    for family in families(service) {
        let vips = addresses(service, number, family, facts);
        let leads_to = |id| vips.values().any(|vip: &VipValue| vip.inside == id || vip.outside == id);
        let of_family: Vec<_> =
            service.backends.iter().filter(|it| family_of(it.address) == family).collect();
        let of_family: Vec<_> =
            of_family.into_iter().filter(|it| it.port != 0 && is_a_host(it.address)).collect();

        let cluster = eligible_anywhere(&of_family);
        let here = eligible(of_family.iter().copied().filter(|backend| backend.local));
        let elsewhere = if cluster.is_empty() { 0 } else { SET_EMPTY_IS_DROP };
        for (scope, backends, flags) in [(Scope::Cluster, cluster, 0), (Scope::Local, here, elsewhere)] {
            let id = set_id(number, family, scope);
            if leads_to(id) {
                port.sets.insert(id, set_of(service, &backends, flags));
            }
        }
        port.vips.extend(vips);
    }
    if port.vips.values().any(|vip| vip.flags & VIP_SOURCE_RANGES != 0) {
        port.ranges = service.source_ranges.iter().map(|range| source_range(number, range)).collect();
    }
    port
}

/// The families a service port is served in: those of its cluster addresses; without any, as a host port has it, both.
fn families(service: &Service) -> impl Iterator<Item = Family> {
    let has = |family| service.cluster_ips.iter().any(|address| family_of(*address) == family);
    let any = service.cluster_ips.is_empty();
    let found = [Family::V4, Family::V6].map(|family| (any || has(family)).then_some(family));
    found.into_iter().flatten()
}

/// The addresses of one family that lead to a service port.
fn addresses(
    service: &Service,
    number: u32,
    family: Family,
    facts: &NodeFacts,
) -> BTreeMap<VipKey, VipValue> {
    let (cluster, local) = (set_id(number, family, Scope::Cluster), set_id(number, family, Scope::Local));
    let inside = if service.internal_local { local } else { cluster };
    // Traffic from inside to an address for the outside is not bound to this node, as with kube-proxy: a pod gets
    // an answer although its node has no backend.
    let outside = if service.external_local { local } else { cluster };
    let direct = if service.forwarding == Forwarding::Dsr { VIP_DIRECT } else { 0 };
    let limited = if service.source_ranges.is_empty() { 0 } else { VIP_SOURCE_RANGES };

    let mut vips = BTreeMap::new();
    let mut reach = |address: IpAddr, port: u16, inside, outside, flags| {
        if family_of(address) != family || facts.never_translated.contains(&address) || port == 0 {
            return;
        }
        let protocol = number_of(service.protocol);
        let key = VipKey { address: address.into(), port: port.to_be(), protocol, zero: 0 };
        // Only clients from outside have another node answer them.
        let flags = if outside == 0 { flags } else { flags | direct };
        vips.insert(key, VipValue { service: number, inside, outside, flags });
    };
    let hosts =
        |addresses: &'_ [IpAddr]| addresses.iter().copied().filter(|it| is_a_host(*it)).collect::<Vec<_>>();
    for address in hosts(&service.cluster_ips) {
        reach(address, service.port, inside, 0, 0);
    }
    // Its own ClusterIP is one, whatever else it is called.
    let is_cluster_ip = |address: &IpAddr| service.cluster_ips.contains(address);
    for address in hosts(&service.load_balancer_ips).into_iter().filter(|it| !is_cluster_ip(it)) {
        reach(address, service.port, cluster, outside, limited);
    }
    // Later than those of load balancers: who is let in by one of both is let in.
    for address in hosts(&service.external_ips).into_iter().filter(|it| !is_cluster_ip(it)) {
        let own = service.load_balancer_ips.contains(&address);
        reach(address, service.port, cluster, outside, if own { 0 } else { VIP_YIELDS });
    }
    for loopback in service.loopbacks.iter().copied().filter(IpAddr::is_loopback) {
        reach(loopback, service.port, cluster, 0, VIP_HOST_ONLY);
    }
    if let Some(node_port) = service.node_port {
        for address in &facts.node_addresses {
            reach(*address, node_port, cluster, outside, VIP_NODE_PORT);
        }
        for loopback in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            reach(loopback, node_port, cluster, 0, VIP_NODE_PORT | VIP_HOST_ONLY);
        }
    }
    vips
}

fn set_of(service: &Service, backends: &[&Backend], flags: u32) -> Set {
    let numbered = |backend: &&Backend| shared::Backend {
        address: backend.address.into(),
        port: backend.port.to_be(),
        local: backend.local.into(),
        id: 0,
    };
    let mut backends: Vec<_> = backends.iter().map(numbered).collect();
    backends.sort_unstable();
    backends.dedup_by_key(|backend| (backend.address, backend.port));
    let choice = match service.choice {
        Choice::Maglev if maglev::places(backends.len()).is_none() => Choice::Random,
        choice => choice,
    };
    Set { flags, affinity_seconds: service.affinity_seconds.unwrap_or(0), choice, backends }
}

/// Backends for clients of any node: those meant for this one, where the hints are complete.
fn eligible_anywhere<'a>(backends: &[&'a Backend]) -> Vec<&'a Backend> {
    let ready = || backends.iter().copied().filter(|backend| backend.ready);
    // As kube-proxy reads them (KEP-2433, KEP-4444, KEP-3015): hints count when every ready endpoint has one and one is
    // meant for us; the node's before the zone's.
    for hint in [|it: &Backend| it.node_hint, |it: &Backend| it.zone_hint] {
        let complete = ready().all(|backend| hint(backend) != Hint::None);
        let here: Vec<_> = ready().filter(|backend| hint(backend) == Hint::Here).collect();
        if complete && !here.is_empty() {
            return here;
        }
    }
    eligible(backends.iter().copied())
}

/// Backends that may get new connections: the ready ones, or, when there are none, those that end but still serve
/// (KEP-1669). With `publishNotReadyAddresses` an endpoint is ready although it ends.
fn eligible<'a>(backends: impl Iterator<Item = &'a Backend> + Clone) -> Vec<&'a Backend> {
    let ready: Vec<_> = backends.clone().filter(|backend| backend.ready).collect();
    if ready.is_empty() {
        backends.filter(|backend| backend.serving && backend.terminating).collect()
    } else {
        ready
    }
}

fn source_range(service: u32, range: &IpNetwork) -> SourceRange {
    let address = Address::from(range.network());
    let mapped = if address.is_v4() { 96 } else { 0 };
    SourceRange { service, address, prefix: range.prefix() + mapped }
}

fn family_of(address: IpAddr) -> Family {
    Family::of(address.into())
}

/// Whether an address can be a service's or a backend's. The API refuses the others, and a slice that has one all the
/// same would lead clients to what listens for a node alone.
pub fn is_a_host(address: IpAddr) -> bool {
    let link_local = match address.to_canonical() {
        IpAddr::V4(four) => four.is_link_local() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    };
    let address = address.to_canonical();
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// The IP protocol number.
pub fn number_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => PROTOCOL_TCP,
        Protocol::Udp => PROTOCOL_UDP,
        Protocol::Sctp => PROTOCOL_SCTP,
    }
}

#[cfg(test)]
mod tests;
