//! Services' endpoints, and the choice among them.
//!
//! It exists apart from the table so that a rollout changes one entry here and nothing else. It must not know paths
//! or connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::spec::{Name, Port};

/// The endpoints of all Services, updated a Service at a time.
#[derive(Debug, Default)]
pub struct Upstreams {
    services: RwLock<HashMap<Name, Arc<[Upstream]>>>,
}

/// A TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// `spec.ports[].name`, empty when unnamed.
    pub name: String,
    /// `spec.ports[].port`.
    pub number: u16,
    /// Every endpoint, of any readiness.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it wants new connections.
    pub ready: bool,
    /// Whether it still answers them, which a terminating one may.
    pub serving: bool,
}

/// Why there is no endpoint to forward to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// There is no such Service.
    NoService,
    /// The Service has no such TCP port.
    NoPort,
    /// The port has no endpoint that answers.
    NoEndpoint,
}

/// The endpoints to try, each once, beginning with the one whose turn it is.
#[derive(Debug)]
pub struct Candidates {
    ports: Arc<[Upstream]>,
    port: usize,
    turn: usize,
    tried: usize,
}

#[derive(Debug)]
struct Upstream {
    name: String,
    number: u16,
    addresses: Vec<SocketAddr>,
    turn: AtomicUsize,
}

// === impl Upstreams ===

impl Upstreams {
    /// Says what the Service is now; `None` when it is gone.
    pub fn set(&self, service: Name, ports: Option<Vec<ServicePort>>) {
        let mut services = self.services.write();
        let Some(ports) = ports else {
            services.remove(&service);
            return;
        };
        let before = services.get(&service);
        // Turns go on where they were: a change of one endpoint must not send every next request to the first.
        let turn = |port: &ServicePort| {
            let same = before?.iter().find(|upstream| upstream.name == port.name)?;
            Some(same.turn.load(Ordering::Relaxed))
        };
        let ports = ports.into_iter().map(|port| Upstream {
            turn: AtomicUsize::new(turn(&port).unwrap_or_default()),
            addresses: usable(&port.endpoints),
            name: port.name,
            number: port.number,
        });
        let ports = ports.collect();
        services.insert(service, ports);
    }

    /// The endpoints of a Service's port, in turn.
    pub fn candidates(&self, service: &Name, port: &Port) -> Result<Candidates, Unavailable> {
        let ports = self.services.read().get(service).cloned().ok_or(Unavailable::NoService)?;
        let is_wanted = |upstream: &Upstream| match port {
            Port::Name(name) => upstream.name == *name,
            Port::Number(number) => upstream.number == *number,
        };
        let port = ports.iter().position(is_wanted).ok_or(Unavailable::NoPort)?;
        if ports[port].addresses.is_empty() {
            return Err(Unavailable::NoEndpoint);
        }
        let turn = ports[port].turn.fetch_add(1, Ordering::Relaxed);
        Ok(Candidates { ports, port, turn, tried: 0 })
    }
}

/// The ready ones; where none is, those that terminate but still serve, as for Services.
fn usable(endpoints: &[Endpoint]) -> Vec<SocketAddr> {
    let ready: Vec<_> =
        endpoints.iter().filter(|endpoint| endpoint.ready).map(|endpoint| endpoint.address).collect();
    if !ready.is_empty() {
        return ready;
    }
    endpoints.iter().filter(|endpoint| endpoint.serving).map(|endpoint| endpoint.address).collect()
}

// === impl Candidates ===

impl Iterator for Candidates {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        let addresses = &self.ports[self.port].addresses;
        if self.tried == addresses.len() {
            return None;
        }
        let at = self.turn.wrapping_add(self.tried) % addresses.len();
        self.tried += 1;
        Some(addresses[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Name {
        Name { namespace: "a".into(), name: "web".into() }
    }

    fn endpoint(i: u8, ready: bool, serving: bool) -> Endpoint {
        Endpoint { address: ([10, 0, 0, i], 8080).into(), ready, serving }
    }

    fn port(name: &str, number: u16, endpoints: &[Endpoint]) -> ServicePort {
        ServicePort { name: name.into(), number, endpoints: endpoints.to_vec() }
    }

    fn last_octets(upstreams: &Upstreams, port: &Port) -> Result<Vec<u8>, Unavailable> {
        let last = |address: SocketAddr| match address {
            SocketAddr::V4(four) => four.ip().octets()[3],
            SocketAddr::V6(_) => 0,
        };
        Ok(upstreams.candidates(&web(), port)?.map(last).collect())
    }

    #[test]
    fn endpoints_take_turns_and_go_on_after_a_change() {
        let upstreams = Upstreams::default();
        let all: Vec<_> = (0..3).map(|i| endpoint(i, true, true)).collect();
        let http = Port::Name("http".into());
        upstreams.set(web(), Some(vec![port("http", 80, &all)]));
        assert_eq!(last_octets(&upstreams, &http), Ok(vec![0, 1, 2]));
        assert_eq!(last_octets(&upstreams, &Port::Number(80)), Ok(vec![1, 2, 0]));
        upstreams.set(web(), Some(vec![port("http", 80, &all)]));
        assert_eq!(last_octets(&upstreams, &http), Ok(vec![2, 0, 1]));
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        let upstreams = Upstreams::default();
        let eighty = Port::Number(80);
        assert_eq!(last_octets(&upstreams, &eighty), Err(Unavailable::NoService));
        upstreams.set(web(), Some(vec![port("http", 80, &[endpoint(1, false, false)])]));
        assert_eq!(last_octets(&upstreams, &Port::Name("admin".into())), Err(Unavailable::NoPort));
        assert_eq!(last_octets(&upstreams, &eighty), Err(Unavailable::NoEndpoint));
        upstreams.set(web(), None);
        assert_eq!(last_octets(&upstreams, &eighty), Err(Unavailable::NoService));
    }

    #[test]
    fn terminating_endpoints_serve_only_while_no_other_does() {
        let upstreams = Upstreams::default();
        let (leaving, ready) = (endpoint(1, false, true), endpoint(2, true, true));
        upstreams.set(web(), Some(vec![port("", 80, &[leaving, ready])]));
        assert_eq!(last_octets(&upstreams, &Port::Number(80)), Ok(vec![2]));
        upstreams.set(web(), Some(vec![port("", 80, &[leaving])]));
        assert_eq!(last_octets(&upstreams, &Port::Number(80)), Ok(vec![1]));
    }
}
