//! From Services and EndpointSlices to what the data plane, DNS and ingress are to serve. Pure.
//!
//! It exists to hold the API's rules about endpoints: which slices a port takes its backends from, what is local,
//! what has a name. Only the services named as changed are computed again. It must not do I/O.

mod announced;
mod health;
mod host_ports;
mod node_ports;
mod problems;
mod shared;
mod slices;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use penstock_dataplane::{Backend, Choice, Forwarding, Hint, Protocol, Service, ServiceChange};
use penstock_dns::{Endpoint, Exposure, Port, ServiceName, ServiceRecord};
use penstock_ingress::ServicePort;

use crate::cluster::{
    Event, ObjectName, OwnNodeView, Place, PortView, ServicePortView, ServiceView, SliceView,
    TrafficDistribution,
};

pub use announced::Announced;
pub use health::HealthCheck;
pub use host_ports::compile_host_ports;
pub use node_ports::NodePortAddresses;
pub use problems::Problem;
use shared::Shared;
use slices::{Slice, Slices};

/// How many changes are timed that come before the kernel has those before them.
const TIMED_MAX: usize = 4096;

/// All Services and slices, and which of them changed since they were last compiled.
#[derive(Debug, Default)]
pub struct Services {
    /// Boxed: half of the places in a tree are empty. Names are shared with the other trees.
    services: BTreeMap<Arc<ObjectName>, Box<ServiceView>>,
    /// By Service, then by slice.
    slices: BTreeMap<Arc<ObjectName>, Slices>,
    /// Which Service each slice belongs to.
    owners: BTreeMap<Arc<ObjectName>, Arc<ObjectName>>,
    places: Shared<Place>,
    ports: Shared<[ServicePortView]>,
    slice_ports: Shared<[PortView]>,
    dirty: BTreeSet<ObjectName>,
    /// When the changes happened for which slices were written, since they were last asked for.
    changed_at: Vec<Timestamp>,
    /// This node's zone, and whether it is about to go.
    own: OwnNodeView,
    /// How connections of Services that do not say get their backends.
    choice: Choice,
    /// Who answers clients of Services that do not say, where the backend is on another node.
    forwarding: Forwarding,
    seen_up_to: u64,
    services_listed: bool,
    slices_listed: bool,
    slices_listing: bool,
    own_listed: bool,
}

// === impl Services ===

impl Services {
    /// Services that are served this way unless they say otherwise.
    pub fn new(choice: Choice, forwarding: Forwarding) -> Self {
        Self { choice, forwarding, ..Self::default() }
    }

    /// Takes note of a Service.
    pub fn see_service(&mut self, event: Event<ServiceView>) {
        match event {
            Event::Is(name, mut view) => {
                if self.services.get(&name).is_none_or(|known| **known != view) {
                    self.dirty.insert(name.clone());
                    view.ports = self.ports.share(&view.ports);
                    self.services.insert(self.shared_name(name), Box::new(view));
                }
            }
            Event::Gone(name) => self.forget_service(&name),
            Event::Listing => {}
            Event::All(all) => {
                let gone: Vec<_> =
                    self.services.keys().filter(|name| !all.contains(&***name)).cloned().collect();
                gone.iter().for_each(|name| self.forget_service(name));
                self.services_listed = true;
            }
        }
    }

    /// Takes note of a slice.
    pub fn see_slice(&mut self, event: Event<SliceView>) {
        match event {
            Event::Is(name, view) => {
                let version = view.resource_version;
                match view.service.clone() {
                    Some(service) => self.put_slice(name, service, view),
                    None => self.forget_slice(&name),
                }
                if !self.slices_listing {
                    self.seen_up_to = self.seen_up_to.max(version);
                }
            }
            Event::Gone(name) => self.forget_slice(&name),
            Event::Listing => {
                // In no order until it is complete: what was said of the versions before stays true, no more.
                self.slices_listing = true;
            }
            Event::All(all) => {
                let gone: Vec<_> =
                    self.owners.keys().filter(|name| !all.contains(&***name)).cloned().collect();
                gone.iter().for_each(|name| self.forget_slice(name));
                (self.slices_listed, self.slices_listing) = (true, false);
                let slices = self.slices.values().flat_map(Slices::values);
                self.seen_up_to = slices.map(|slice| slice.resource_version).max().unwrap_or_default();
            }
        }
    }

    /// Takes note of this node.
    pub fn see_own(&mut self, event: Event<OwnNodeView>) {
        let own = match event {
            Event::Is(_, own) => own,
            Event::Gone(_) => OwnNodeView::default(),
            Event::Listing => return,
            Event::All(all) => {
                self.own_listed = true;
                if !all.is_empty() {
                    return;
                }
                OwnNodeView::default()
            }
        };
        let moved = self.own.zone != own.zone;
        self.own = own;
        if moved {
            self.mark_all();
        }
    }

    /// This node as it was last seen.
    pub fn own(&self) -> &OwnNodeView {
        &self.own
    }

    /// Whether everything was listed once: before that, what is missing may just not have been seen, and acting on
    /// it would cut connections.
    pub fn is_complete(&self) -> bool {
        self.services_listed && self.slices_listed && self.own_listed
    }

    /// The Services changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.dirty)
    }

    /// When the changes happened because of which slices changed since the last call.
    pub fn take_changed_at(&mut self) -> Vec<Timestamp> {
        std::mem::take(&mut self.changed_at)
    }

    /// Every change of any slice up to this resource version was seen. Zero before all were listed once.
    pub fn seen_up_to(&self) -> u64 {
        self.seen_up_to
    }

    /// The names of all Services.
    pub fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys().map(|name| &**name)
    }

    /// Makes every Service one that changed.
    pub fn mark_all(&mut self) {
        self.dirty.extend(self.services.keys().map(|name| (**name).clone()));
    }

    /// What a Service is to the data plane now. `node` is this node's name.
    pub fn compile(&self, name: &ObjectName, node: &str) -> ServiceChange {
        let mut change = ServiceChange {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            ports: BTreeMap::new(),
        };
        let Some(service) = self.services.get(name).filter(|service| is_proxied(service)) else {
            return change;
        };
        let (numbers, special) = (self.numbers(name), service.special());
        for port in service.ports.iter() {
            let compiled = Service {
                cluster_ips: service.cluster_ips.to_vec(),
                port: port.port,
                protocol: port.protocol,
                node_port: port.node_port,
                external_ips: special.external_ips.clone(),
                loopbacks: Vec::new(),
                load_balancer_ips: special.load_balancer_ips.clone(),
                source_ranges: special.source_ranges.clone(),
                affinity_seconds: service.affinity_seconds,
                internal_local: service.internal_local,
                external_local: service.external_local,
                choice: said(&special.choice).unwrap_or(self.choice),
                forwarding: said(&special.forwarding).unwrap_or(self.forwarding),
                backends: self.backends(&numbers, &port.name, port.protocol, service.distribution, node),
            };
            change.ports.insert(port.name.to_string(), compiled);
        }
        change
    }

    /// What one Service puts into DNS; `None` when it is gone.
    pub fn compile_record(&self, name: &ObjectName) -> Option<ServiceRecord> {
        let service = self.services.get(name)?;
        let exposure = match &service.special().external_name {
            Some(target) => Exposure::External(target.clone()),
            None if service.headless => Exposure::Headless(self.endpoints(name)),
            None => Exposure::Cluster(service.cluster_ips.to_vec()),
        };
        let ports = service.ports.iter().map(|port| Port {
            name: port.name.to_string(),
            protocol: protocol_label(port.protocol),
            number: port.port,
        });
        Some(ServiceRecord { name: service_name(name), exposure, ports: ports.collect() })
    }

    /// The endpoints ingress forwards to, of every TCP port; `None` when the Service is gone. Headless ones have them
    /// too.
    pub fn compile_upstream(&self, name: &ObjectName) -> Option<Vec<ServicePort>> {
        let service = self.services.get(name)?;
        let numbers = self.numbers(name);
        // An external name would make the node ask anybody on anyone's behalf.
        let ports = service.ports.iter().filter(|_| service.special().external_name.is_none());
        let ports = ports.filter(|port| port.protocol == Protocol::Tcp).map(|port| {
            let backends = self
                .backends(&numbers, &port.name, port.protocol, TrafficDistribution::Anywhere, "")
                .into_iter();
            ServicePort {
                name: port.name.to_string(),
                number: port.port,
                endpoints: backends.map(endpoint_of).collect(),
            }
        });
        Some(ports.collect())
    }

    /// Where each port of a Service's slices is to be found, for Services and slices of thousands of ports.
    fn numbers(&self, name: &ObjectName) -> Numbers<'_> {
        let mut numbers = Numbers::new();
        for slice in self.slices.get(name).into_iter().flat_map(Slices::values) {
            for port in slice.ports.iter() {
                numbers.entry((&port.name, port.protocol)).or_default().push((slice, port.number));
            }
        }
        numbers
    }

    /// Every endpoint that has the port, in the order of its address. An address in two slices, which happens while
    /// an endpoint moves between them, counts once, and ready if it is so in one.
    fn backends(
        &self,
        numbers: &Numbers<'_>,
        port: &str,
        protocol: Protocol,
        distribution: TrafficDistribution,
        node: &str,
    ) -> Vec<Backend> {
        let mut found = Vec::new();
        for (slice, number) in numbers.get(&(port, protocol)).into_iter().flatten() {
            found.extend(slice.endpoints.iter().map(|endpoint| {
                let place = endpoint.place;
                Backend {
                    address: endpoint.address,
                    port: *number,
                    local: place.node.as_deref() == Some(node),
                    ready: endpoint.ready,
                    serving: endpoint.serving,
                    terminating: endpoint.terminating,
                    node_hint: node_hint(place, distribution, node),
                    zone_hint: zone_hint(place, distribution, self.own.zone.as_deref()),
                }
            }));
        }
        found.sort_by_key(|it| (it.address, it.port, !it.ready));
        found.dedup_by_key(|it| (it.address, it.port));
        found
    }

    /// The ready endpoints of a headless Service, each once.
    fn endpoints(&self, name: &ObjectName) -> Vec<Endpoint> {
        let mut found = BTreeSet::new();
        for slice in self.slices.get(name).into_iter().flat_map(Slices::values) {
            let ports = slice.ports.iter().map(|port| Port {
                name: port.name.to_string(),
                protocol: protocol_label(port.protocol),
                number: port.number,
            });
            let ports: Arc<[Port]> = ports.collect();
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
                found.insert(Endpoint {
                    address: endpoint.address,
                    hostname: endpoint.hostname.map(str::to_owned),
                    ports: ports.clone(),
                });
            }
        }
        found.into_iter().collect()
    }

    fn forget_service(&mut self, name: &ObjectName) {
        if self.services.remove(name).is_some() {
            self.dirty.insert(name.clone());
        }
    }

    fn put_slice(&mut self, name: ObjectName, service: String, mut view: SliceView) {
        let changed_at = view.changed_at.take();
        view.endpoints.share_places(|place| self.places.share(place));
        view.ports = self.slice_ports.share(&view.ports);
        let service = ObjectName { namespace: name.namespace.clone(), name: service };
        if self.owners.get(&name).is_some_and(|owner| **owner != service) {
            self.forget_slice(&name);
        }
        let owner = self.shared_name(service);
        let known = self.owners.get_key_value(&name).map(|(slice, _)| slice.clone());
        let name = known.unwrap_or_else(|| Arc::new(name));
        self.owners.insert(name.clone(), owner.clone());
        let slice = Slice::from(view);
        let is_same = |former: &Slice| {
            former.ports == slice.ports
                && former.endpoints == slice.endpoints
                && former.nonsense == slice.nonsense
        };
        let slices = self.slices.entry(owner.clone()).or_default();
        if !slices.get(&name).is_some_and(is_same) {
            self.dirty.insert((*owner).clone());
            self.changed_at.extend(changed_at.filter(|_| self.changed_at.len() < TIMED_MAX));
        }
        slices.insert(name, slice);
    }

    /// The name of a Service, of which there is one copy.
    fn shared_name(&self, service: ObjectName) -> Arc<ObjectName> {
        let of_service = self.services.get_key_value(&service).map(|(name, _)| name);
        let of_slices = || self.slices.get_key_value(&service).map(|(name, _)| name);
        match of_service.or_else(of_slices) {
            Some(known) => known.clone(),
            None => Arc::new(service),
        }
    }

    fn forget_slice(&mut self, name: &ObjectName) {
        let Some((name, service)) = self.owners.remove_entry(name) else { return };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(&name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.dirty.insert((*service).clone());
    }
}

/// By name and protocol of a port: the slices that have it, each with the number it has there.
type Numbers<'a> = BTreeMap<(&'a str, Protocol), Vec<(&'a Slice, u16)>>;

/// What an annotation says, if it says it right.
fn said<T: Copy, E>(annotation: &Option<Result<T, E>>) -> Option<T> {
    annotation.as_ref()?.as_ref().ok().copied()
}

/// For whom an endpoint is meant as this node sees it: by its hints, or by where it is when the slice's author gives no
/// hints and the Service asks for near endpoints. The hints of Kubernetes' own controller say the same.
fn node_hint(place: &Place, distribution: TrafficDistribution, node: &str) -> Hint {
    match (place.for_nodes.is_empty(), distribution, &place.node) {
        (false, ..) => hint(place.for_nodes.iter().any(|name| name == node)),
        (true, TrafficDistribution::SameNode, Some(name)) => hint(name == node),
        _ => Hint::None,
    }
}

fn zone_hint(place: &Place, distribution: TrafficDistribution, zone: Option<&str>) -> Hint {
    let is_near = |name: &String| Some(name.as_str()) == zone;
    match (place.for_zones.is_empty(), distribution, &place.zone) {
        (false, ..) => hint(place.for_zones.iter().any(is_near)),
        (true, TrafficDistribution::SameNode | TrafficDistribution::SameZone, Some(name)) => {
            hint(is_near(name))
        }
        _ => Hint::None,
    }
}

fn hint(here: bool) -> Hint {
    if here { Hint::Here } else { Hint::Elsewhere }
}

/// The name DNS knows a Service by.
pub fn service_name(name: &ObjectName) -> ServiceName {
    ServiceName { namespace: name.namespace.clone(), name: name.name.clone() }
}

fn is_proxied(service: &ServiceView) -> bool {
    !service.headless
        && !service.unproxied
        && service.special().external_name.is_none()
        && !service.cluster_ips.is_empty()
}

fn endpoint_of(backend: Backend) -> penstock_ingress::Endpoint {
    penstock_ingress::Endpoint {
        address: SocketAddr::new(backend.address, backend.port),
        ready: backend.ready,
        serving: backend.serving,
    }
}

fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}
