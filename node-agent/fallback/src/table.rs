//! What is served and by whom, as the planner has it; and the answer to "who may have this client". Pure.
//!
//! It exists so that eligibility, traffic policies, hints and conflicts are those of the kernel's maps. Must not know
//! sockets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use penstock_dataplane::{
    Applied, Choice, Limits, Listing, MapImage, NodeFacts, Operation, Planner, Protocol, Service,
    ServiceChange, ServiceKey, Set, service_of,
};
use penstock_ebpf_common::{
    Address, FlowKey, PROTOCOL_TCP, PROTOCOL_UDP, VIP_HOST_ONLY, VIP_SOURCE_RANGES, VipKey,
};
use penstock_ebpf_packet::hash;

/// The services of this node.
#[derive(Debug)]
pub struct Table {
    planner: Planner,
    /// The addresses of each service number, for what changes with its sets.
    vips: BTreeMap<u32, BTreeSet<VipKey>>,
    /// The other way round.
    owners: HashMap<VipKey, u32>,
    /// The tables of the sets that choose by one.
    places: BTreeMap<u32, Vec<u16>>,
    /// Backends that left their sets and still serve whom they have.
    lingering: BTreeMap<u32, BTreeSet<SocketAddr>>,
    /// Addresses of clients that count as inside as the node itself does: pods of this node.
    inside: Vec<IpNetwork>,
}

/// What became of some changes.
#[derive(Debug, Default)]
pub struct Changed {
    /// The addresses that may have to be opened or closed.
    pub vips: BTreeSet<VipKey>,
    /// Backends by service number with which nothing may go on.
    pub ended: Vec<(u32, SocketAddr)>,
    /// What to tell whoever asked for them.
    pub applied: Applied,
}

/// Who may have a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// The service port's number.
    pub service: u32,
    /// The set they are of.
    pub set: u32,
    /// How long the client keeps its backend; none without affinity.
    pub affinity_seconds: Option<u32>,
    /// How one of them is chosen.
    pub choice: Choice,
    /// The one that the set's table gives this connection, where it has a table: the same as on every other node.
    pub by_table: Option<SocketAddr>,
    /// In the order of their addresses, never empty.
    pub backends: Vec<SocketAddr>,
}

/// Why a client gets nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The address is not served, or not to clients outside.
    NotServed,
    /// The client is in none of the service's source ranges.
    SourceNotAllowed,
    /// There is no backend, or none on this node where only those may answer.
    NoBackend,
}

// === impl Table ===

impl Table {
    /// An empty one with room for this much.
    pub fn new(services_max: u32) -> Self {
        let limits = Limits { services_max, ..Limits::default() };
        let planner = Planner::recover(MapImage::default(), &limits);
        Self {
            planner,
            vips: BTreeMap::new(),
            owners: HashMap::new(),
            places: BTreeMap::new(),
            lingering: BTreeMap::new(),
            inside: Vec::new(),
        }
    }

    /// Says which clients are pods of this node.
    pub fn set_inside(&mut self, ranges: Vec<IpNetwork>) {
        self.inside = ranges;
    }

    /// What Services are now.
    pub fn change(&mut self, changes: &[ServiceChange], facts: &NodeFacts, listing: Listing) -> Changed {
        for change in changes {
            self.planner.change(change, facts);
        }
        if listing == Listing::Complete {
            self.planner.drop_unconfirmed();
        }
        let planned = self.planner.take();
        let mut changed = Changed::default();
        for operation in &planned.operations {
            match operation {
                Operation::PutVip(vip, value) => {
                    self.disown(vip);
                    self.owners.insert(*vip, value.service);
                    self.vips.entry(value.service).or_default().insert(*vip);
                    changed.vips.insert(*vip);
                }
                Operation::DeleteVip(vip) => {
                    self.disown(vip);
                    changed.vips.insert(*vip);
                }
                Operation::PutSet(id, _) | Operation::DeleteSet(id) => {
                    let set = self.planner.image().sets.get(id);
                    let places = set.map(Set::compile_table).filter(|places| !places.is_empty());
                    match places {
                        Some(places) => drop(self.places.insert(*id, places)),
                        None => drop(self.places.remove(id)),
                    }
                    changed.vips.extend(self.vips.get(&service_of(*id)).into_iter().flatten());
                }
                _ => {}
            }
        }
        for (service, endpoints) in planned.left.departed {
            self.lingering.entry(service).or_default().extend(endpoints.into_iter().map(socket_address));
        }
        changed.ended = self.end_lingering(changes);
        let operations = planned.operations.len();
        changed.applied = Applied { operations, ..self.planner.outcome(changes) };
        changed
    }

    /// Whether anybody could be answered at an address, so that it is worth a listener: without one clients are refused
    /// by the kernel, at once and as they expect it.
    pub fn is_answered(&self, vip: &VipKey) -> bool {
        let image = self.planner.image();
        let has_backends = |set: &u32| image.sets.get(set).is_some_and(|set| !set.backends.is_empty());
        image.vips.get(vip).is_some_and(|value| [value.inside, value.outside].iter().any(has_backends))
    }

    /// Whether an address is a service's.
    pub fn has(&self, vip: &VipKey) -> bool {
        self.planner.image().vips.contains_key(vip)
    }

    /// The service port an address belongs to.
    pub fn name(&self, vip: &VipKey) -> Option<Arc<ServiceKey>> {
        let image = self.planner.image();
        image.names.get(&image.vips.get(vip)?.service).cloned()
    }

    /// Who may have a client that asked an address, and that is a process of the node itself or not.
    pub fn candidates(&self, vip: &VipKey, peer: SocketAddr, is_node: bool) -> Result<Candidates, Refusal> {
        let image = self.planner.image();
        let value = image.vips.get(vip).ok_or(Refusal::NotServed)?;
        let client = peer.ip().to_canonical();
        let is_inside = is_node || self.inside.iter().any(|range| range.contains(client));
        let set = if is_inside { value.inside } else { value.outside };
        if set == 0 || value.flags & VIP_HOST_ONLY != 0 && !is_node {
            return Err(Refusal::NotServed);
        }
        if value.flags & VIP_SOURCE_RANGES != 0
            && !is_node
            && !image.ranges_of(value.service).any(|range| covers(range.address, range.prefix, client))
        {
            return Err(Refusal::SourceNotAllowed);
        }
        let found = image.sets.get(&set).ok_or(Refusal::NoBackend)?;
        let backends = found.backends.iter();
        // An endpoint that is itself an address we serve would have us call ourselves without end.
        let backends = backends.filter(|it| {
            !self.has(&VipKey { address: it.address, port: it.port, protocol: vip.protocol, zero: 0 })
        });
        let backends: Vec<_> = backends.map(|it| socket_address((it.address, it.port))).collect();
        if backends.is_empty() {
            return Err(Refusal::NoBackend);
        }
        let affinity_seconds = (found.affinity_seconds != 0).then_some(found.affinity_seconds);
        let by_table = self.by_table(set, found, &flow(vip, client, peer.port()));
        // Not one that was left out.
        let by_table = by_table.filter(|backend| backends.contains(backend));
        let choice = found.choice;
        Ok(Candidates { service: value.service, set, affinity_seconds, choice, by_table, backends })
    }

    /// The backend that has a connection's place in a set's table, if it has a table. As the programs find it.
    fn by_table(&self, number: u32, set: &Set, flow: &FlowKey) -> Option<SocketAddr> {
        let places = self.places.get(&number)?;
        let place = hash::reduce(hash::flow(flow), places.len() as u32);
        let entry = usize::from(*places.get(place as usize)?);
        let backend = set.backends.get(entry.checked_sub(1)?)?;
        Some(socket_address((backend.address, backend.port)))
    }

    /// Takes an address from the service it was of, if it was of any.
    fn disown(&mut self, vip: &VipKey) {
        let Some(owner) = self.owners.remove(vip) else { return };
        if let Some(vips) = self.vips.get_mut(&owner) {
            vips.remove(vip);
            if vips.is_empty() {
                self.vips.remove(&owner);
            }
        }
    }

    /// Of the backends that left their sets, those with which nothing may go on: all but those that still serve whom they
    /// have. That is TCP's alone: a datagram's next one is new.
    fn end_lingering(&mut self, changes: &[ServiceChange]) -> Vec<(u32, SocketAddr)> {
        let mut ended = Vec::new();
        let names = &self.planner.image().names;
        self.lingering.retain(|service, backends| {
            let key = names.get(service);
            let said =
                key.map(|key| changes.iter().find(|it| it.namespace == key.namespace && it.name == key.name));
            let serving: BTreeSet<_> = match (key, said) {
                // Nothing was said of it this time.
                (Some(_), Some(None)) => return true,
                (Some(key), Some(Some(change))) => {
                    change.ports.get(&key.port).map(serving).unwrap_or_default()
                }
                _ => BTreeSet::new(),
            };
            backends.retain(|backend| {
                let stays = serving.contains(backend);
                if !stays {
                    ended.push((*service, *backend));
                }
                stays
            });
            !backends.is_empty()
        });
        ended
    }
}

/// The backends of a service port that serve whom they have, whether they get anybody new or not.
fn serving(service: &Service) -> BTreeSet<SocketAddr> {
    let backends = service.backends.iter().filter(|it| it.serving && service.protocol == Protocol::Tcp);
    backends.map(|it| SocketAddr::new(it.address.to_canonical(), it.port)).collect()
}

/// A client's connection as its packets have it.
fn flow(vip: &VipKey, client: IpAddr, port: u16) -> FlowKey {
    FlowKey {
        source: client.into(),
        destination: vip.address,
        source_port: port.to_be(),
        destination_port: vip.port,
        protocol: vip.protocol,
        ..FlowKey::default()
    }
}

/// An address and a port in network order as sockets have them.
pub fn socket_address((address, port): (Address, u16)) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be(port))
}

/// Whether there is a proxy for the protocol.
pub fn is_proxied(vip: &VipKey) -> bool {
    matches!(vip.protocol, PROTOCOL_TCP | PROTOCOL_UDP)
}

fn covers(range: Address, prefix: u8, client: IpAddr) -> bool {
    let bits = |address: Address| u128::from_be_bytes(address.to_bytes());
    let behind = 128_u32.saturating_sub(prefix.into());
    let differ = bits(range) ^ bits(client.into());
    differ.checked_shr(behind).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests;
