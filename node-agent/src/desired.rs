//! From Services and EndpointSlices to what the data plane, DNS and ingress are to serve. Pure.
//!
//! It exists to hold the API's rules about endpoints: which slices a port takes its backends from, what is local,
//! what has a name. Only the services named as changed are computed again. It must not do I/O.

mod host_ports;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use penstock_dataplane::{Backend, Desired, Protocol, Service, ServiceKey};
use penstock_dns::{Endpoint, Exposure, Port, ServiceName, ServiceRecord};
use penstock_ingress::ServicePort;

use crate::cluster::{Event, ObjectName, ServiceView, SliceView};

pub use host_ports::compile_host_ports;

/// All Services and slices, and which of them changed since they were last compiled.
#[derive(Debug, Default)]
pub struct Services {
    services: BTreeMap<ObjectName, ServiceView>,
    /// By Service, then by slice.
    slices: BTreeMap<ObjectName, BTreeMap<ObjectName, SliceView>>,
    /// Which Service each slice belongs to.
    owners: BTreeMap<ObjectName, ObjectName>,
    dirty: BTreeSet<ObjectName>,
    services_listed: bool,
    slices_listed: bool,
}

// === impl Services ===

impl Services {
    /// Takes note of a Service.
    pub fn see_service(&mut self, event: Event<ServiceView>) {
        match event {
            Event::Is(name, view) => {
                if self.services.get(&name) != Some(&view) {
                    self.dirty.insert(name.clone());
                    self.services.insert(name, view);
                }
            }
            Event::Gone(name) => self.forget_service(&name),
            Event::All(all) => {
                let gone: Vec<_> = self.services.keys().filter(|name| !all.contains(name)).cloned().collect();
                gone.iter().for_each(|name| self.forget_service(name));
                self.services_listed = true;
            }
        }
    }

    /// Takes note of a slice.
    pub fn see_slice(&mut self, event: Event<SliceView>) {
        match event {
            Event::Is(name, view) => {
                let Some(service) = view.service.clone() else { return self.forget_slice(&name) };
                let service = ObjectName { namespace: name.namespace.clone(), name: service };
                if self.owners.get(&name).is_some_and(|owner| *owner != service) {
                    self.forget_slice(&name);
                }
                self.owners.insert(name.clone(), service.clone());
                let previous = self.slices.entry(service.clone()).or_default().insert(name.clone(), view);
                if previous.as_ref() != self.slices[&service].get(&name) {
                    self.dirty.insert(service);
                }
            }
            Event::Gone(name) => self.forget_slice(&name),
            Event::All(all) => {
                let gone: Vec<_> = self.owners.keys().filter(|name| !all.contains(name)).cloned().collect();
                gone.iter().for_each(|name| self.forget_slice(name));
                self.slices_listed = true;
            }
        }
    }

    /// Whether both kinds were listed once: before that, what is missing may just not have been seen, and acting on
    /// it would cut connections.
    pub fn is_complete(&self) -> bool {
        self.services_listed && self.slices_listed
    }

    /// The Services changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.dirty)
    }

    /// Makes every Service one that changed.
    pub fn mark_all(&mut self) {
        self.dirty.extend(self.services.keys().cloned());
    }

    /// Brings the entries of one Service in `desired` up to date. `node` is this node's name.
    pub fn compile_into(&self, desired: &mut Desired, name: &ObjectName, node: &str) {
        let key = |port: &str| ServiceKey::new(&name.namespace, &name.name, port);
        let stale: Vec<ServiceKey> = desired
            .services
            .range(key("")..)
            .map(|(key, _)| key)
            .take_while(|key| key.namespace == name.namespace && key.name == name.name)
            // A pod may have the Service's name, and its host ports are not the Service's.
            .filter(|key| !host_ports::is_host_port(key))
            .cloned()
            .collect();
        for key in stale {
            desired.services.remove(&key);
        }
        let Some(service) = self.services.get(name).filter(|service| is_proxied(service)) else { return };
        for port in &service.ports {
            let compiled = Service {
                cluster_ips: service.cluster_ips.clone(),
                port: port.port,
                protocol: port.protocol,
                node_port: port.node_port,
                external_ips: service.external_ips.clone(),
                load_balancer_ips: service.load_balancer_ips.clone(),
                affinity_seconds: service.affinity_seconds,
                internal_local: service.internal_local,
                external_local: service.external_local,
                backends: self.backends(name, &port.name, port.protocol, node),
            };
            desired.services.insert(key(&port.name), compiled);
        }
    }

    /// What one Service puts into DNS; `None` when it is gone.
    pub fn compile_record(&self, name: &ObjectName) -> Option<ServiceRecord> {
        let service = self.services.get(name)?;
        let exposure = match &service.external_name {
            Some(target) => Exposure::External(target.clone()),
            None if service.headless => Exposure::Headless(self.endpoints(name)),
            None => Exposure::Cluster(service.cluster_ips.clone()),
        };
        let ports = service.ports.iter().map(|port| Port {
            name: port.name.clone(),
            protocol: protocol_label(port.protocol),
            number: port.port,
        });
        Some(ServiceRecord { name: service_name(name), exposure, ports: ports.collect() })
    }

    /// The endpoints ingress forwards to, of every TCP port; `None` when the Service is gone. Headless ones have them
    /// too. Loopback and link-local addresses are left out: ingress connects from the node, and whoever may write
    /// slices would reach what listens there for the node alone.
    pub fn compile_upstream(&self, name: &ObjectName) -> Option<Vec<ServicePort>> {
        let service = self.services.get(name)?;
        // An external name would make the node ask anybody on anyone's behalf.
        let ports = service.ports.iter().filter(|_| service.external_name.is_none());
        let ports = ports.filter(|port| port.protocol == Protocol::Tcp).map(|port| {
            let backends = self.backends(name, &port.name, port.protocol, "").into_iter();
            let endpoints = backends.filter(|backend| is_elsewhere(backend.address));
            ServicePort {
                name: port.name.clone(),
                number: port.port,
                endpoints: endpoints.map(endpoint_of).collect(),
            }
        });
        Some(ports.collect())
    }

    /// Every endpoint that has the port, in the order of its address. An address in two slices, which happens while
    /// an endpoint moves between them, counts once, and ready if it is so in one.
    fn backends(&self, name: &ObjectName, port: &str, protocol: Protocol, node: &str) -> Vec<Backend> {
        let mut found: BTreeMap<(IpAddr, u16), Backend> = BTreeMap::new();
        for slice in self.slices.get(name).into_iter().flat_map(BTreeMap::values) {
            let numbers = slice.ports.iter().filter(|p| p.name == port && p.protocol == protocol);
            for number in numbers.map(|port| port.number) {
                for endpoint in &slice.endpoints {
                    let backend = Backend {
                        address: endpoint.address,
                        port: number,
                        node: endpoint.node.clone(),
                        local: endpoint.node.as_deref() == Some(node),
                        ready: endpoint.ready,
                        serving: endpoint.serving,
                        terminating: endpoint.terminating,
                    };
                    let known = found.entry((endpoint.address, number)).or_insert_with(|| backend.clone());
                    if backend.ready && !known.ready {
                        *known = backend;
                    }
                }
            }
        }
        found.into_values().collect()
    }

    /// The ready endpoints of a headless Service, each once.
    fn endpoints(&self, name: &ObjectName) -> Vec<Endpoint> {
        let mut found = BTreeSet::new();
        for slice in self.slices.get(name).into_iter().flat_map(BTreeMap::values) {
            let ports = slice.ports.iter().map(|port| Port {
                name: port.name.clone(),
                protocol: protocol_label(port.protocol),
                number: port.number,
            });
            let ports: Arc<[Port]> = ports.collect();
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
                found.insert(Endpoint {
                    address: endpoint.address,
                    hostname: endpoint.hostname.clone(),
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

    fn forget_slice(&mut self, name: &ObjectName) {
        let Some(service) = self.owners.remove(name) else { return };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.dirty.insert(service);
    }
}

/// The name DNS knows a Service by.
pub fn service_name(name: &ObjectName) -> ServiceName {
    ServiceName { namespace: name.namespace.clone(), name: name.name.clone() }
}

fn is_proxied(service: &ServiceView) -> bool {
    !service.headless
        && !service.unproxied
        && service.external_name.is_none()
        && !service.cluster_ips.is_empty()
}

fn endpoint_of(backend: Backend) -> penstock_ingress::Endpoint {
    penstock_ingress::Endpoint {
        address: SocketAddr::new(backend.address, backend.port),
        ready: backend.ready,
        serving: backend.serving,
    }
}

/// Whether an address can be another host's or a pod's.
fn is_elsewhere(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_link_local = match address {
        IpAddr::V4(four) => four.is_link_local() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    };
    !(is_link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}
