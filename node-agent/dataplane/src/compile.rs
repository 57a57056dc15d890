//! Desired state to map image. Pure and deterministic: equal input, equal bytes.
//!
//! Each service port has up to two sets: the backends of the cluster and those of this node. Its addresses choose
//! between them by the traffic policies, which is where those policies end; the programs know only sets.
//! An address given to two services stays with the first by name.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use penstock_ebpf_common::{
    self as shared, Address, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, SET_EMPTY_IS_DROP, VIP_HOST_ONLY,
    VIP_NODE_PORT, VipKey, VipValue,
};

use crate::ids::Ids;
use crate::image::{Endpoint, MapImage, Scope, Set, set_id};
use crate::{Backend, Desired, Protocol, Service, ServiceKey};

/// What compiling gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// What the maps should hold.
    pub image: MapImage,
    /// The numbers used, to be given to the next compile.
    pub ids: Ids,
    /// Service ports for which there was no number left; they are not served.
    pub unplaced: Vec<ServiceKey>,
    /// Addresses another service already has; they lead to that one.
    pub conflicts: Vec<(ServiceKey, IpAddr, u16)>,
}

/// Compiles. `ids` are those of the last compile, or recovered from the kernel.
pub fn compile(desired: &Desired, ids: &Ids) -> Compiled {
    let served: Vec<_> = desired.services.iter().filter(|(_, service)| is_served(service)).collect();
    let (services, unplaced) = ids.services.next(&served.iter().map(|(key, _)| (*key).clone()).collect());
    let endpoints: BTreeSet<Endpoint> =
        served.iter().flat_map(|(_, it)| it.backends.iter().map(endpoint)).collect();
    let (backends, _) = ids.backends.next(&endpoints);
    let ids = Ids { services, backends };
    let mut compiled = Compiled { image: MapImage::default(), ids, unplaced, conflicts: Vec::new() };
    for (key, service) in served {
        if let Some(number) = compiled.ids.services.get(key) {
            compiled.add(desired, key, service, number);
        }
    }
    compiled
}

/// Whether there is any address to translate.
fn is_served(service: &Service) -> bool {
    !service.cluster_ips.is_empty()
        || !service.external_ips.is_empty()
        || !service.load_balancer_ips.is_empty()
        || service.node_port.is_some()
}

impl Compiled {
    fn add(&mut self, desired: &Desired, key: &ServiceKey, service: &Service, number: u32) {
        let (cluster, local) = (set_id(number, Scope::Cluster), set_id(number, Scope::Local));
        let inside = if service.internal_local { local } else { cluster };
        // Traffic from inside to an address for the outside is not bound to this node, as with kube-proxy: a pod gets
        // an answer although its node has no backend.
        let outside = if service.external_local { local } else { cluster };

        let eligible = eligible(service);
        let here: Vec<_> = eligible_of(service.backends.iter().filter(|backend| backend.local));
        let affinity_seconds = service.affinity_seconds.unwrap_or(0);
        let set =
            |backends: &[&Backend], flags| Set { flags, affinity_seconds, backends: self.numbered(backends) };
        let elsewhere = if eligible.is_empty() { 0 } else { SET_EMPTY_IS_DROP };
        let (cluster_set, local_set) = (set(&eligible, 0), set(&here, elsewhere));

        let port = service.port.to_be();
        let mut vips: Vec<(IpAddr, u16, VipValue)> = Vec::new();
        let mut reach = |address: IpAddr, port, inside, outside, flags| {
            vips.push((address, port, VipValue { service: number, inside, outside, flags }));
        };
        for address in &service.cluster_ips {
            reach(*address, port, inside, 0, 0);
        }
        for address in service.external_ips.iter().chain(&service.load_balancer_ips) {
            reach(*address, port, cluster, outside, 0);
        }
        if let Some(node_port) = service.node_port.map(u16::to_be) {
            for address in &desired.node_addresses {
                reach(*address, node_port, cluster, outside, VIP_NODE_PORT);
            }
            reach(Ipv4Addr::LOCALHOST.into(), node_port, cluster, 0, VIP_NODE_PORT | VIP_HOST_ONLY);
        }

        vips.retain(|(address, _, _)| !desired.never_translated.contains(address));
        self.image.names.insert(number, key.to_string());
        for (id, set) in [(cluster, cluster_set), (local, local_set)] {
            if vips.iter().any(|(_, _, vip)| vip.inside == id || vip.outside == id) {
                self.image.sets.insert(id, set);
            }
        }
        for (address, port, value) in vips {
            let vip =
                VipKey { address: address.into(), port, protocol: number_of(service.protocol), zero: 0 };
            match self.image.vips.get(&vip) {
                Some(holder) if holder.service != number => {
                    self.conflicts.push((key.clone(), address, u16::from_be(port)));
                }
                _ => {
                    self.image.vips.insert(vip, value);
                }
            }
        }
    }

    fn numbered(&self, backends: &[&Backend]) -> Vec<shared::Backend> {
        let mut numbered: Vec<_> = backends
            .iter()
            .filter_map(|backend| {
                let (address, port) = endpoint(backend);
                let id = self.ids.backends.get(&(address, port))?;
                Some(shared::Backend { address, port, local: backend.local.into(), id })
            })
            .collect();
        numbered.sort_unstable();
        numbered.dedup_by_key(|backend| (backend.address, backend.port));
        numbered
    }
}

/// Backends that may get new connections: the ready ones, or, when there are none, those that end but still serve
/// (KEP-1669).
fn eligible(service: &Service) -> Vec<&Backend> {
    eligible_of(service.backends.iter())
}

fn eligible_of<'a>(backends: impl Iterator<Item = &'a Backend> + Clone) -> Vec<&'a Backend> {
    let ready: Vec<_> = backends.clone().filter(|backend| backend.ready && !backend.terminating).collect();
    if ready.is_empty() {
        backends.filter(|backend| backend.serving && backend.terminating).collect()
    } else {
        ready
    }
}

fn endpoint(backend: &Backend) -> Endpoint {
    (Address::from(backend.address), backend.port.to_be())
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
